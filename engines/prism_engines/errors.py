"""Errors of the engines; the application turns them into its own.

::

    EngineError
    ├── EngineInputError    a wrong name, shape, precision or directory was given
    │   └── UnsupportedOpError   a graph holds an operator that has no lowering
    ├── EngineMissingError  the store holds no such engine; the message names the field that differs
    ├── EngineBuildError    a backend could not build
    └── GateError           an engine was built and does not compute what eager computes
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of every error that prism_engines raises on purpose; one line that says what to do."""


class EngineInputError(EngineError):
    """What was given is wrong."""


class UnsupportedOpError(EngineInputError):
    """An operator has no export-safe form; the message names it and the module it comes from."""


class EngineMissingError(EngineError):
    """No stored engine has the wanted key."""


class EngineBuildError(EngineError):
    """A backend could not build; nothing was stored."""


class GateError(EngineError):
    """A built engine differs from eager by more than its precision allows; nothing was stored."""
