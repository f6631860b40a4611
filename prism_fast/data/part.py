"""Which part of each step a rank loads."""

from __future__ import annotations

from dataclasses import dataclass

from prism_fast.errors import InputError


@dataclass(frozen=True)
class Part:
    """One of several ranks that share the steps."""

    rank: int = 0
    ranks: int = 1

    def of(self, pictures: int) -> range:
        """This rank's pictures of a step.

        Raises:
            InputError: they cannot be shared equally.
        """
        if not 0 <= self.rank < self.ranks:
            raise InputError(f"rank must be 0 to {self.ranks - 1}, got {self.rank}")
        if pictures % self.ranks:
            raise InputError(
                f"a step decodes {pictures} pictures, which {self.ranks} ranks cannot share equally; "
                "set distill.batch_size to a multiple of ranks times distill.views_per_decode"
            )
        size = pictures // self.ranks
        return range(self.rank * size, (self.rank + 1) * size)
