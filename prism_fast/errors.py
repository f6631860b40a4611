"""Errors of prism-fast.

::

    PrismError                    exit code
    ├── InputError        2       something the user gave is missing or wrong
    │   ├── ConfigError   2       the configuration document
    │   └── DataError     2       a dataset, shard or model directory
    └── RunError          1       the work itself failed

Beside it stands ``StoppedError``, exit code 128 + n: signal n asked the work to stop. It is no Exception, so that
nobody takes it for a failure.

A message says what was given, what was expected and what to do, in one line.
"""

from __future__ import annotations

import signal


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


class StoppedError(BaseException):
    """A signal asked the work to stop; whoever starts it again goes on."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(f"stopped by {number.name}; what is finished is kept, the same command goes on")
        self.exit_code = 128 + number

    def __reduce__(self) -> tuple[type[StoppedError], tuple[signal.Signals]]:
        return type(self), (signal.Signals(self.exit_code - 128),)
