"""Errors of the operators."""


class KernelInputError(ValueError):
    """An operator was given tensors that it does not accept; the message prints their shapes."""


class KernelBackendError(RuntimeError):
    """The backend that was asked for cannot run these inputs; the message gives every reason."""
