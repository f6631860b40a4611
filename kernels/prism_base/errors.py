"""The root of the tree of errors; :mod:`prism_fast.errors` draws the whole of it."""

from __future__ import annotations


class PrismError(Exception):
    """Base of every error that is raised on purpose; its message is one line: given, expected, what to do."""

    exit_code = 1


class InputError(PrismError):
    """What the user gave is missing or wrong."""

    exit_code = 2
