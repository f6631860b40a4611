"""How a network differs from timm's of its name: what ``config.json`` says under ``structure``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

#: What may stand after a projection, so that it has the range of the features it stands for.
Activation = Literal["identity", "relu", "relu6", "silu", "gelu", "hard_swish"]


class Structure(BaseModel):
    """A trunk, the first block groups of ``architecture``, and what its features go into.

    ``head``: ``own``, the pooling and classifier of ``architecture`` itself; ``projected``, a projection into those of
    the timm network ``classifier``; ``linear``, a new classifier on the pooled features. ``width`` below 1: channels
    are missing, and the shapes of the weights say which layers have how many. ``left_out``: paths of the residual
    blocks that are not there. ``options`` and ``classifier_options`` are timm's arguments for the two networks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    blocks: int | None = Field(default=None, ge=1)
    width: float = Field(default=1.0, gt=0, le=1)
    left_out: tuple[str, ...] = ()
    head: Literal["own", "projected", "linear"] = "own"
    activation: Activation = "identity"
    classifier: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    classifier_options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Structure:
        if (self.head == "projected") != (self.classifier is not None):
            raise ValueError("a projected head needs the name of its classifier's network, and no other head has one")
        if self.blocks is not None and self.head == "own":
            raise ValueError("the first blocks of a network cannot go into its own head; expected projected or linear")
        return self

    @model_serializer(mode="wrap")
    def _without_absent(self, make: SerializerFunctionWrapHandler) -> dict[str, Any]:
        made: dict[str, Any] = make(self)
        return {key: value for key, value in made.items() if value not in (None, {}, ())}
