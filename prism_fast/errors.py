"""Errors of prism-fast.

::

    PrismError                    exit code
    ├── InputError        2       something the user gave is missing or wrong
    │   ├── ConfigError   2       the configuration document
    │   └── DataError     2       a dataset, shard or model directory
    └── RunError          1       the work itself failed

A message says what was given, what was expected and what to do, in one line.
"""

from __future__ import annotations


class PrismError(Exception):
    """Base of every error that prism-fast raises on purpose."""

    exit_code = 1


class InputError(PrismError):
    """What the user gave is missing or wrong."""

    exit_code = 2


class ConfigError(InputError):
    """The configuration document is wrong."""


class DataError(InputError):
    """A dataset, shard or model directory is wrong."""


class RunError(PrismError):
    """The work failed although its input was right."""
