"""Errors of the operators."""

from prism_base.errors import InputError


class KernelInputError(InputError, ValueError):
    """An operator was given tensors that it does not accept; the message prints their shapes."""


class KernelBackendError(InputError, RuntimeError):
    """The backend that was asked for cannot run these inputs; the message gives every reason."""
