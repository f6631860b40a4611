"""One contract, two loaders: NVIDIA DALI, and plain torch where DALI cannot be installed."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from prism_engines.backends.reasons import cuda_reasons, extra, module_reasons

from prism_fast.config import DistillConfig
from prism_fast.data.batch import Batch
from prism_fast.data.part import Part
from prism_fast.data.source import Source
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.dataset.view_labels import open_view_labels
from prism_fast.errors import InputError

__all__ = ["Loader", "Part", "open_loader", "reasons"]

_log = logging.getLogger(__name__)


class Loader(Protocol):
    """An endless stream of batches; every ``rows`` consecutive pictures are one shuffled epoch.

    The stream is a function of (shards, recipe) and the same for both loaders and any number of ranks: the ranks' parts
    of a step, one after another, are what a single rank gives. ``state_dict`` after k batches, the same on every rank,
    loaded into a new loader, continues with batch k bit for bit. Batches run across the end of an epoch.
    """

    def __iter__(self) -> Iterator[Batch]: ...

    def __next__(self) -> Batch: ...

    def state_dict(self) -> dict[str, Any]:
        """Position in the stream, made of ints, strings and tensors only."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved position."""
        ...

    def close(self) -> None:
        """Release threads and memory; the loader cannot be used afterwards."""
        ...


def reasons(name: str, device: torch.device) -> list[str]:
    """Why the named loader cannot feed the device here; empty when it can."""
    found = []
    if name == "dali":
        if platform.system() != "Linux":
            found.append(f"DALI runs on Linux only, this is {platform.system()}; choose distill.loader=torch")
        found += module_reasons("nvidia.dali", remedy=extra("dali"))
        if device.type not in ("cpu", "cuda"):
            found.append(f"DALI feeds cpu and cuda, not {device.type}; choose distill.loader=torch")
    return found + (cuda_reasons() if device.type == "cuda" else [])


def open_loader(
    shards: ShardSet,
    config: DistillConfig,
    device: str | torch.device,
    mean: Sequence[float],
    std: Sequence[float],
    part: Part | None = None,
    image_size: int | None = None,
) -> Loader:
    """Open the loader that the configuration names.

    Args:
        shards: what it reads.
        config: the recipe; its batch is that of all ranks.
        device: where batches are needed.
        mean: of the students' pictures.
        std: of the students' pictures.
        part: the rank that loads, of several; none: it is alone.
        image_size: side of the pictures, if another than the recipe's.

    Raises:
        InputError: it cannot run here, and there is no fallback; the message lists every reason. Or the ranks cannot
            share a batch.
        DataError: the recipe wants views, and the shards lack them.
    """
    target = torch.device(device)
    why = reasons(config.loader, target)
    if why:
        other = "torch" if config.loader == "dali" else "dali"
        raise InputError(f"loader {config.loader!r} cannot run: {'; '.join(why)}. Try distill.loader={other}")
    _log.info("loader %s: %d samples in %d shards", config.loader, shards.rows, len(shards.shards))
    stored = open_view_labels(shards) if config.teacher == "views" else None
    source = Source(shards, config, part, stored)
    settings = (source, target, mean, std, image_size or config.image_size)
    if config.loader == "dali":
        from prism_fast.data.dali import DaliLoader

        return DaliLoader(*settings)
    from prism_fast.data.torch_loader import TorchLoader

    return TorchLoader(*settings)
