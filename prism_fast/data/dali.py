"""NVIDIA DALI pipeline over WebDataset shards: read, decode a random crop, resize, flip, normalise.

On the CPU by default; on a CUDA device the decoder becomes DALI's ``mixed`` one and the rest runs on the GPU. DALI is
imported when a loader is made, never before.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from prism_fast.config import DistillConfig
from prism_fast.data.batch import Batch, require_labels
from prism_fast.data.descriptors import make_room
from prism_fast.dataset.shard import Shard
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.errors import DataError

_MAX_THREADS = 4
_SHUFFLE_BUFFER = 16384


def _pipeline(
    shards: ShardSet,
    indices: Sequence[Path],
    config: DistillConfig,
    device: torch.device,
    mean: Sequence[float],
    std: Sequence[float],
    checkpoint: bytes | None,
) -> Any:
    # Untyped on purpose: DALI's annotations leave out its enums and device_id=None.
    dali: Any = importlib.import_module("nvidia.dali")
    fn: Any = importlib.import_module("nvidia.dali.fn")
    types: Any = importlib.import_module("nvidia.dali.types")

    gpu = device.type == "cuda"

    @dali.pipeline_def(  # type: ignore[untyped-decorator]
        batch_size=config.batch_size,
        num_threads=min(_MAX_THREADS, len(os.sched_getaffinity(0))),
        device_id=(device.index or 0) if gpu else None,
        seed=config.seed % 2**31,
        enable_checkpointing=True,
    )
    def training() -> tuple[Any, Any, Any]:
        # mmap is off: DALI keeps maps by path, and a file that shrinks under its map kills the process with SIGBUS.
        raw, labels, logits = fn.readers.webdataset(
            paths=[str(shard.tar) for shard in shards.shards],
            index_paths=[str(index) for index in indices],
            ext=[shards.image_ext, "label", "logits"],
            dtypes=[types.UINT8, types.INT32, types.FLOAT16],
            missing_component_behavior="error",
            random_shuffle=True,
            initial_fill=min(shards.rows, _SHUFFLE_BUFFER),
            shuffle_after_epoch=True,
            shuffle_after_epoch_seed=config.seed % 2**31,
            dont_use_mmap=True,
            name="shards",
        )
        images = fn.decoders.image_random_crop(
            raw,
            device="mixed" if gpu else "cpu",
            random_area=list(config.crop_scale),
            random_aspect_ratio=[3 / 4, 4 / 3],
        )
        images = fn.resize(images, size=[config.image_size, config.image_size], antialias=True)
        images = fn.crop_mirror_normalize(
            images,
            dtype=types.FLOAT,
            output_layout="CHW",
            mean=[255 * value for value in mean],
            std=[255 * value for value in std],
            mirror=fn.random.coin_flip(probability=0.5 if config.flip else 0.0),
        )
        return images, labels, logits

    return training(checkpoint=checkpoint)


class DaliLoader:
    """See :class:`prism_fast.data.loader.Loader`. Exact resume is DALI's own pipeline checkpoint.

    Shards of which samples are rejected get an index without these, in a temporary directory that goes with the loader.
    """

    def __init__(
        self, shards: ShardSet, config: DistillConfig, device: torch.device, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self._shards, self._config, self._device = shards, config, device
        self._mean, self._std = tuple(mean), tuple(std)
        self._pipe: Any = None
        self._files = ExitStack()
        self._indices = self._files.enter_context(_indices(shards))
        self._open(None)

    def _open(self, checkpoint: bytes | None) -> None:
        self._pipe = None
        make_room(len(self._shards.shards))
        settings = (self._config, self._device, self._mean, self._std)
        try:
            self._pipe = _pipeline(self._shards, self._indices, *settings, checkpoint)
            self._pipe.build()
        except RuntimeError as error:
            raise DataError(f"DALI cannot open {self._shards.shards[0].tar.parent}: {_reason(error)}") from error

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        folder = self._shards.shards[0].tar.parent
        try:
            images, raw_labels, logits = self._pipe.run()
        except RuntimeError as error:
            raise DataError(f"DALI cannot read {folder}: {_reason(error)}") from error
        labels = from_dlpack(raw_labels.as_tensor()).flatten().long()  # on the CPU, whatever decodes the images
        require_labels(labels, self._shards.classes, folder)
        return Batch(self._tensor(images), labels.to(self._device), self._tensor(logits).float())

    def _tensor(self, output: Any) -> Tensor:
        # DALI reuses the buffer in the next run, hence the copy.
        view: Tensor = from_dlpack(output.as_tensor())
        return view.to(self._device, copy=True)

    def state_dict(self) -> dict[str, Any]:
        """DALI's serialised state as bytes in a tensor, which torch loads with ``weights_only=True``."""
        return {"loader": "dali", "checkpoint": torch.frombuffer(bytearray(self._pipe.checkpoint()), dtype=torch.uint8)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved position by building the pipeline anew.

        Raises:
            DataError: the state is another loader's, or the shards changed.
        """
        if state.get("loader") != "dali":
            raise DataError(f"loader state was saved by {state.get('loader')!r}, this is the DALI loader")
        self._open(bytes(state["checkpoint"].numpy()))

    def close(self) -> None:
        """Drop the pipeline, its threads and its files."""
        self._pipe = None
        self._files.close()


@contextmanager
def _indices(shards: ShardSet) -> Iterator[list[Path]]:
    """Each shard's index: its own, or a temporary one without what is rejected."""
    with tempfile.TemporaryDirectory(prefix="prism-fast-index-") as folder:
        yield [_index(shard, Path(folder)) for shard in shards.shards]


def _index(shard: Shard, folder: Path) -> Path:
    if not shard.rejected:
        return shard.index
    path = folder / shard.index.name
    path.write_text(shard.index_text(), encoding="utf-8")
    return path


def _reason(error: RuntimeError) -> str:
    """The most telling line of DALI's many-line message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "Current pipeline object" not in line and not line.startswith("Critical")]
    after = next((i for i, line in enumerate(telling) if line.startswith("encountered")), None)
    return telling[after + 1] if after is not None and after + 1 < len(telling) else (telling or lines or ["?"])[0]
