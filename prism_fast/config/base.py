"""What every section of a run's document shares: frozen, unknown keys refused, bounds against mistyped numbers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

MOST_SHARDS = 999_999
#: Nine digits name a sample.
MOST_IMAGES = 10**9
#: Bounds that only a mistyped number meets: beyond them nothing fails, it just never ends.
MOST_ROWS, MOST_SIDE, MOST_THREADS, MOST_AHEAD, MOST_CORES = 65_536, 16_384, 1_024, 1_024, 65_536
MOST_STEPS, MOST_MINUTES = 10**9, 10**6
SHORTEST_LEASE_S, LONGEST_LEASE_S = 0.05, 7 * 86_400.0
#: Part of an image's area; of a smaller one a view holds no pixel.
SMALLEST_VIEW = 1e-4


class Document(BaseModel):
    """A section: frozen, without unknown keys, infinities and truth values in the place of numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        wanted = cls.model_fields[info.field_name or ""].annotation
        held = value if isinstance(value, list | tuple) else (value,)
        if wanted is not bool and any(isinstance(one, bool) for one in held):
            raise ValueError("expected something else than true or false")
        return value


def require_part(name: str, part: tuple[float, float]) -> None:
    """Refuse what is no part of a whole: [from, to) within 0..1."""
    low, high = part
    if not 0 <= low < high <= 1:
        raise ValueError(f"{name} must satisfy 0 <= from < to <= 1, got {low}, {high}")


def require_area(name: str, area: tuple[float, float]) -> None:
    """Refuse what is no range of a crop's area."""
    low, high = area
    if not 0 < low <= high <= 1:
        raise ValueError(f"{name} must satisfy 0 < from <= to <= 1, got {low}, {high}")
