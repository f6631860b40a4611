"""Tests of prism_fast.evaluate."""
