"""A row of the plan: what one sample is made from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PlanRow:
    """What sample ``index`` shows: its class, its prompt, and the content and style that the prompt was made of."""

    index: int
    label: int
    class_name: str
    prompt: str
    style: str
    content: str
    negative_prompt: str
