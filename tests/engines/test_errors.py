"""Errors of engines and operators hang in one tree, with its exit codes; the tree costs no import of torch."""

from __future__ import annotations

import inspect
import subprocess
import sys
from types import ModuleType

import prism_engines.errors
import prism_kernels._errors
import pytest
from prism_base.errors import InputError, PrismError
from prism_engines.errors import (
    EngineBuildError,
    EngineError,
    EngineInputError,
    EngineMissingError,
    GateError,
    UnsupportedOpError,
)
from prism_kernels import KernelBackendError, KernelInputError

USERS_MISTAKE = {EngineInputError, UnsupportedOpError, EngineMissingError, KernelInputError, KernelBackendError}
OURS = {EngineError, EngineBuildError, GateError}


def defined(module: ModuleType) -> set[type]:
    """The classes that a module makes itself."""
    return {one for _, one in inspect.getmembers(module, inspect.isclass) if one.__module__ == module.__name__}


def test_every_error_is_in_the_tree_and_judged_here() -> None:
    found = defined(prism_engines.errors) | defined(prism_kernels._errors)
    assert all(issubclass(one, PrismError) for one in found)
    assert found == USERS_MISTAKE | OURS


@pytest.mark.parametrize("error", sorted(USERS_MISTAKE, key=str))
def test_what_the_user_gave_exits_with_two(error: type[PrismError]) -> None:
    assert issubclass(error, InputError)
    assert error("x").exit_code == 2


@pytest.mark.parametrize("error", sorted(OURS, key=str))
def test_what_else_fails_exits_with_one(error: type[PrismError]) -> None:
    assert not issubclass(error, InputError)
    assert error("x").exit_code == 1


def test_operators_raise_what_torch_would() -> None:
    assert issubclass(KernelInputError, ValueError)
    assert issubclass(KernelBackendError, RuntimeError)


def test_one_clause_catches_all_that_engines_raise() -> None:
    assert all(issubclass(one, EngineError) for one in defined(prism_engines.errors))


@pytest.mark.parametrize("module", ["prism_base.errors", "prism_engines.errors"])
def test_the_tree_does_not_import_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
