"""Classes that somebody names, by name or by number."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from prism_fast.errors import InputError
from prism_fast.labels.space import LabelSpace

_CLOSE = 3


def chosen_labels(space: LabelSpace, classes: Sequence[str | int]) -> list[int]:
    """Labels of classes given by name or number, each once, in their order; none given means all.

    Raises:
        InputError: there is no such class; the message names those that are called alike.
    """
    if not classes:
        return list(range(len(space.classes)))
    return sorted({_label(space, given) for given in classes})


def _label(space: LabelSpace, given: str | int) -> int:
    names = [cls.name for cls in space.classes]
    if given in names:
        return names.index(str(given))
    if str(given).isdecimal() and int(given) < len(names):
        return int(given)
    folded = {name.casefold(): name for name in names}
    wanted = str(given).casefold()
    close = difflib.get_close_matches(wanted, folded, _CLOSE, 0.5) or [n for n in folded if wanted in n][:_CLOSE]
    alike = f"close ones are {', '.join(repr(folded[name]) for name in close)}" if wanted and close else "none is close"
    raise InputError(
        f"class {str(given)!r} is not in label space {space.name!r}; {alike}; labels from 0 to {len(names) - 1} do too"
    )
