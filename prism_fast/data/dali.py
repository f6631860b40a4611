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
from prism_fast.sampling.transfer import to_device

#: On the CPU the student needs the other cores; under a GPU the host has nothing else to do than to decode.
_MAX_THREADS = 4
_SHUFFLE_BUFFER = 16384
#: The samples that wait in it lie encoded in memory, and 16,384 PNG of 1024 pixels are 28 GB.
_SHUFFLE_BYTES = 4 << 30


def shuffle_fill(shards: ShardSet) -> int:
    """How many samples the shuffle buffer holds: :data:`_SHUFFLE_BUFFER`, or what fits :data:`_SHUFFLE_BYTES`.

    It is a function of the shards: another number would be another order of the samples.
    """
    records = [shard.record for shard in shards.shards]
    fitting = _SHUFFLE_BYTES * sum(record.rows for record in records) // sum(record.size_bytes for record in records)
    return max(1, min(shards.rows, _SHUFFLE_BUFFER, fitting))


def _pipeline(
    shards: ShardSet,
    indices: Sequence[Path],
    config: DistillConfig,
    device: torch.device,
    mean: Sequence[float],
    std: Sequence[float],
    fill: int,
    checkpoint: bytes | None,
) -> Any:
    # Untyped on purpose: DALI's annotations leave out its enums and device_id=None.
    dali: Any = importlib.import_module("nvidia.dali")
    fn: Any = importlib.import_module("nvidia.dali.fn")
    types: Any = importlib.import_module("nvidia.dali.types")

    gpu = device.type == "cuda"
    cores = len(os.sched_getaffinity(0))

    @dali.pipeline_def(  # type: ignore[untyped-decorator]
        batch_size=config.batch_size,
        num_threads=cores if gpu else min(_MAX_THREADS, cores),
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
            initial_fill=fill,
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
        self._copied: torch.cuda.Event | None = None
        self._files = ExitStack()
        self._indices = self._files.enter_context(_indices(shards))
        self._open(shuffle_fill(shards), None)

    def _open(self, fill: int, checkpoint: bytes | None) -> None:
        self._pipe, self._fill = None, fill
        make_room(len(self._shards.shards))
        settings = (self._config, self._device, self._mean, self._std, fill)
        try:
            self._pipe = _pipeline(self._shards, self._indices, *settings, checkpoint)
            self._pipe.build()
        except RuntimeError as error:
            raise DataError(f"DALI cannot open {self._shards.shards[0].tar.parent}: {_reason(error)}") from error

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        folder = self._shards.shards[0].tar.parent
        if self._copied is not None:  # DALI writes its next batch where the last one was copied from
            self._copied.synchronize()
        try:
            outputs = self._pipe.run()
        except RuntimeError as error:
            raise DataError(f"DALI cannot read {folder}: {_reason(error)}") from error
        images, raw_labels, raw_logits = (_view(output) for output in outputs)
        labels = raw_labels.flatten().long()  # on the CPU, whatever decodes the images
        require_labels(labels, self._shards.classes, folder)
        labels, logits = to_device([labels, raw_logits], self._device)
        batch = Batch(images.to(self._device, copy=True), labels, logits.float())
        self._copied = _mark(self._device)
        return batch

    def state_dict(self) -> dict[str, Any]:
        """DALI's serialised state as bytes in a tensor, which torch loads with ``weights_only=True``."""
        checkpoint = torch.frombuffer(bytearray(self._pipe.checkpoint()), dtype=torch.uint8)
        return {"loader": "dali", "fill": self._fill, "checkpoint": checkpoint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved position by building the pipeline anew, with the shuffle buffer that it had.

        Raises:
            DataError: the state is another loader's, or the shards changed.
        """
        if state.get("loader") != "dali":
            raise DataError(f"loader state was saved by {state.get('loader')!r}, this is the DALI loader")
        fill = int(state.get("fill", min(self._shards.rows, _SHUFFLE_BUFFER)))  # before there was a bound in bytes
        self._open(fill, bytes(state["checkpoint"].numpy()))

    def close(self) -> None:
        """Drop the pipeline, its threads and its files."""
        self._pipe = None
        self._files.close()


def _view(output: Any) -> Tensor:
    """A batch of DALI's as it lies in a buffer that the next run reuses."""
    view: Tensor = from_dlpack(output.as_tensor())
    return view


def _mark(device: torch.device) -> torch.cuda.Event | None:
    """An event that has happened when a GPU has done what it was given so far."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event


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
