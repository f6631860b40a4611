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
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.errors import InputError

_log = logging.getLogger(__name__)


class Loader(Protocol):
    """An endless stream of batches; every ``rows`` consecutive samples are one shuffled epoch.

    The stream is a function of (shards, seed, batch size). ``state_dict`` after k batches, loaded into a new loader,
    continues with batch k bit for bit. Batches run across the end of an epoch.
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
    shards: ShardSet, config: DistillConfig, device: str | torch.device, mean: Sequence[float], std: Sequence[float]
) -> Loader:
    """Open the loader that the configuration names.

    Raises:
        InputError: it cannot run here; the message lists every reason. There is no fallback.
    """
    target = torch.device(device)
    why = reasons(config.loader, target)
    if why:
        other = "torch" if config.loader == "dali" else "dali"
        raise InputError(f"loader {config.loader!r} cannot run: {'; '.join(why)}. Try distill.loader={other}")
    _log.info("loader %s: %d samples in %d shards", config.loader, shards.rows, len(shards.shards))
    if config.loader == "dali":
        from prism_fast.data.dali import DaliLoader

        return DaliLoader(shards, config, target, mean, std)
    from prism_fast.data.torch_loader import TorchLoader

    return TorchLoader(shards, config, target, mean, std)
