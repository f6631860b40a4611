"""Which samples nobody trains on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from prism_fast.dataset.shard_set import ShardSet
from prism_fast.views.counter import uniforms


def split(shards: ShardSet, share: float, most: int, seed: int) -> tuple[ShardSet, ShardSet]:
    raise NotImplementedError
