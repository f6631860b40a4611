"""What a model answers for one class: the entry of the bank, in a form that every strict JSON schema can hold.

Strict mode takes no default, no open mapping and no length: every key is there, empty where nothing is to be said, and
what the schema cannot say is checked here.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from prism_fast.labels.bank import BankEntry, Kind, Setting

_MARK_AT_END = re.compile(r"[.,;:!?]$")


def _phrase(text: str) -> str:
    """One line of words."""
    words = " ".join(text.split())
    if not words:
        raise ValueError("it is empty")
    if _MARK_AT_END.search(words):
        raise ValueError(f"{words!r} ends with a mark")
    return words


Phrase = Annotated[str, AfterValidator(_phrase)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Scenes(_Strict):
    """Scenes by place."""

    outdoors: tuple[Phrase, ...]
    indoors: tuple[Phrase, ...]
    underwater: tuple[Phrase, ...]
    night: tuple[Phrase, ...]


class Answer(_Strict):
    """An entry as the model writes it; a plural of null says that the thing cannot be counted."""

    name: Phrase
    plural: Phrase | None = Field(description="null if it cannot be counted")
    kind: Kind
    sense: Phrase
    alternatives: tuple[Phrase, ...]
    variants: tuple[Phrase, ...]
    scenes: Scenes
    confusions: tuple[Phrase, ...]

    def entry(self) -> BankEntry:
        """The bank's form of it."""
        scenes = {place: found for place, found in self.scenes.model_dump().items() if found}
        return BankEntry(**self.model_dump(exclude={"scenes"}), uncountable=self.plural is None, scenes=scenes)


def answer_schema() -> dict[str, Any]:
    """JSON schema of an answer, within the limits of strict mode."""
    return Answer.model_json_schema()


def read_answer(text: str) -> BankEntry:
    """The entry that an answer holds; what stands around its JSON, as a fence of Markdown, is passed over.

    Raises:
        ValueError: it holds none; the message is one line, written for the model.
    """
    found = text[text.find("{") : text.rfind("}") + 1]
    if not found:
        raise ValueError("the answer holds no JSON object")
    try:
        return Answer.model_validate_json(found).entry()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}{': ' if where else ''}{first['msg']}") from error


def as_answer(entry: BankEntry) -> str:
    """The answer that an entry came from."""
    fields = entry.model_dump(mode="json", exclude={"uncountable"})
    return json.dumps({**fields, "scenes": {place: entry.scenes.get(place, ()) for place in get_args(Setting)}})
