"""Errors of the engines; :mod:`prism_fast.errors` draws the whole tree."""

from __future__ import annotations

from prism_base.errors import InputError, PrismError


class EngineError(PrismError):
    """Base of every error that prism_engines raises on purpose; one line that says what to do."""


class EngineInputError(EngineError, InputError):
    """What was given is wrong."""


class UnsupportedOpError(EngineInputError):
    """An operator has no export-safe form; the message names it and the module it comes from."""


class EngineMissingError(EngineError, InputError):
    """No stored engine has the wanted key."""


class EngineBuildError(EngineError):
    """A backend could not build; nothing was stored."""


class GateError(EngineError):
    """A built engine differs from eager by more than its precision allows; nothing was stored."""
