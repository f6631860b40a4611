"""Documents that carry a check of themselves: a flipped bit in one of them is not believed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import to_json

SEAL = "self_sha256"


def self_hash(document: Mapping[str, Any]) -> str:
    """SHA-256 over a JSON document, its own entry :data:`SEAL` left out; layout and order of keys do not matter."""
    others = {key: value for key, value in document.items() if key != SEAL}
    plain = json.loads(to_json(others, inf_nan_mode="null"))  # as pydantic writes what is no number
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON document that says its own hash."""
    return {**document, SEAL: self_hash(document)}


def unsealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document without its own hash; one of before says none.

    Raises:
        ValueError: it says another hash than it has.
    """
    if SEAL in document and document[SEAL] != self_hash(document):
        raise ValueError("its own hash is another one")
    return {key: value for key, value in document.items() if key != SEAL}


class Sealed(BaseModel):
    """Written as JSON it says its own hash; one that says another than it has is refused.

    One that says none was written by a version before there was a hash, and is taken as it is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_serializer(mode="wrap")
    def _seal(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        document: dict[str, Any] = handler(self)
        return sealed(document) if info.mode == "json" else document

    @model_validator(mode="before")
    @classmethod
    def _unseal(cls, data: Any) -> Any:
        return unsealed(data) if isinstance(data, dict) else data
