"""Errors of the operators."""


class KernelInputError(ValueError):
    """An operator was given tensors that it does not accept; the message prints their shapes."""
