"""Docstrings as this project writes them, in Markdown: its own sections, reST's roles, and pydantic's descriptions."""

from __future__ import annotations

import ast
import re
from typing import Any

from griffe import Attribute, Docstring, ExprCall, ExprKeyword, Extension, Object

_ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc):`~?([\w.]+)`")
#: A section that begins on the line of its name; Google's style knows those whose text is indented below.
_SECTION = re.compile(r"^(Shapes|Dtypes|Reference|Raises)( \([\w ]+\))?: ", re.MULTILINE)
_LIMITS = {
    "ge": "at least", "gt": "above", "le": "at most", "lt": "below", "multiple_of": "a multiple of",
    "min_length": "entries: at least",
}  # fmt: skip


def as_markdown(text: str) -> str:
    """The same docstring for a reader of Markdown."""
    text = re.sub(r"^::\n", "", re.sub(r"(\S)::\n\n(?= )", r"\1:\n\n", text), flags=re.MULTILINE)
    text = _SECTION.sub(lambda found: f"\n**{found[1]}**{found[2] or ''}: ", text)
    return _ROLE.sub(lambda found: f'<autoref identifier="{found[1]}" optional>`{found[1]}`</autoref>', text)


class Docstrings(Extension):
    """Rewrites every docstring once; a field's description becomes its docstring."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """A module, class, function or attribute was read."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)

    def on_attribute_instance(self, *, attr: Attribute, **_: Any) -> None:
        """``Field(default, description="...")`` is shown as its default and that description."""
        value = attr.value
        if not isinstance(value, ExprCall) or str(value.function) != "Field":
            return
        named = {one.name: one.value for one in value.arguments if isinstance(one, ExprKeyword)}
        described = named.pop("description", None)
        text = ast.literal_eval(str(described)) if described else ""
        limits = ", ".join(f"{_LIMITS[name]} {limit}" for name, limit in named.items() if name in _LIMITS)
        attr.docstring = Docstring("; ".join(filter(None, (text, limits))))
        attr.value = next((one for one in value.arguments if not isinstance(one, ExprKeyword)), None)
