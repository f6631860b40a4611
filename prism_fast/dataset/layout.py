"""How a run's plan is cut into shards."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """Whose run it is, and how its plan is cut into shards."""

    run_hash: str
    images: int
    shard_size: int

    @property
    def shards(self) -> int:
        """Number of planned shards."""
        return -(-self.images // self.shard_size)

    def plans(self, name: str) -> bool:
        """Whether a shard of that name, without an extension, is planned."""
        return name.isdecimal() and int(name) < self.shards and name == f"{int(name):06d}"

    def extent(self, shard: int) -> tuple[int, int]:
        """First index of a shard, and how many are planned for it."""
        first = shard * self.shard_size
        return first, min(self.shard_size, self.images - first)
