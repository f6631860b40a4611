"""Errors of prism-fast, those of its engines and kernels included.

::

    PrismError              exit code
    ├── InputError              2     something the user gave is missing or wrong
    │   ├── ConfigError         2     the configuration document
    │   ├── DataError           2     a dataset, shard or model directory
    │   ├── EngineInputError    2     a wrong name, shape, precision or directory of an engine
    │   │   └── UnsupportedOpError      a graph holds an operator that has no lowering
    │   ├── EngineMissingError  2     the store holds no such engine; the message names the field that differs
    │   ├── KernelInputError    2     an operator was given tensors that it does not accept
    │   └── KernelBackendError  2     the kernels' backend that was asked for cannot run here
    ├── EngineError             1     an engine cannot be stored or opened; also the base of the four engine errors
    │   ├── EngineBuildError    1     a backend could not build
    │   └── GateError           1     an engine was built and does not compute what eager computes
    └── RunError                1     the work itself failed

Beside it stands ``StoppedError``, exit code 128 + n: signal n asked the work to stop. It is no Exception, so that
nobody takes it for a failure.

A message says what was given, what was expected and what to do, in one line.
"""

from __future__ import annotations

import signal

from prism_base.errors import InputError, PrismError

__all__ = ["ConfigError", "DataError", "InputError", "PrismError", "RunError", "StoppedError"]


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
