"""Measure what a run made: accuracy, precision and recall, energies, and the report a person reads."""
