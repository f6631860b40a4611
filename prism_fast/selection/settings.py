"""What a selection is made by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from prism_fast.errors import InputError


@dataclass(frozen=True)
class Settings:
    """How many samples of each class are kept, and what a sample must be like.

    A class has one quota: its entry in ``quotas`` (label, count), else ``per_class``, else ``keep`` of what is stored
    of it, rounded up; else there is none.

    Raises:
        InputError: a value is out of range, or two of them contradict each other.
    """

    per_class: int | None = None
    keep: float | None = None
    quotas: tuple[tuple[int, int], ...] = ()
    max_energy: float | None = None
    agree: bool = False
    duplicates: float | None = None

    def __post_init__(self) -> None:
        if self.per_class is not None and self.keep is not None:
            raise InputError("--per-class and --keep both say how many images of a class are kept; give one of them")
        if self.per_class is not None and self.per_class < 1:
            raise InputError(f"--per-class is {self.per_class}; it must be at least 1")
        if self.keep is not None and not 0 < self.keep <= 1:
            raise InputError(f"--keep is {self.keep}; a share lies above 0 and up to 1")
        if self.max_energy is not None and not math.isfinite(self.max_energy):
            raise InputError(f"--max-energy is {self.max_energy}; it must be a finite number")
        if self.duplicates is not None and not 0 < self.duplicates <= 1:
            raise InputError(f"--duplicates is {self.duplicates}; a cosine to refuse lies above 0 and up to 1")
        labels = [label for label, _ in self.quotas]
        if len(set(labels)) != len(labels):
            raise InputError("--quota names a class twice; give one quota a class")

    def quota(self, label: int, stored: int) -> int | None:
        """How many samples of a class are kept at most, of which ``stored`` exist; None: all."""
        for named, count in self.quotas:
            if named == label:
                return count
        if self.per_class is not None:
            return self.per_class
        # The fraction as it was written: 0.1 of 30 is 3, though 0.1 * 30 is more in floating point.
        return None if self.keep is None else math.ceil(Fraction(repr(self.keep)) * stored)
