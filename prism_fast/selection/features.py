"""The teacher's features of a run's images, in a file rather than in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from prism_fast.dataset.shard import Entry, Shard
from prism_fast.errors import RunError
from prism_fast.evaluation.features import pooled_features
from prism_fast.models.classifier import Classifier
from prism_fast.selection.stored import Array, Progress

Floats = np.ndarray[Any, np.dtype[np.float32]]
_BATCH = 64  # fixed: another batch shape could change the last bits of a feature


class FeatureFile:
    """Features of unit length, float16, in a file that is mapped and not read as a whole.

    Shapes: row_of (n,), the row of the file that holds a sample's feature.
    """

    def __init__(self, path: Path, width: int, row_of: Array) -> None:
        self._rows = np.memmap(path, np.float16, "r").reshape(-1, width)
        self._row_of = row_of

    def at(self, places: Array) -> Floats:
        """Features of the samples at these places.

        Shapes: places (k,) -> (k, d) float32, of unit length; a feature of zeros stays one.
        """
        return _unit(self._rows[self._row_of[places]].astype(np.float32))


def _unit(features: Floats) -> Floats:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    found: Floats = features / np.maximum(length, np.finfo(np.float32).tiny)
    return found


def _images(shard: Shard, entries: Sequence[Entry]) -> Iterator[torch.Tensor]:
    """Batches of a shard's images, uint8 (b, 3, h, w)."""
    with shard.open() as reader:
        for start in range(0, len(entries), _BATCH):
            yield torch.stack([reader.image(entry) for entry in entries[start : start + _BATCH]])


def _features(shard: Shard, wanted: Array, teacher: Classifier, device: str) -> Iterator[Floats]:
    """Batches of features (b, d) of the samples of a shard whose index is wanted."""
    entries = shard.entries()
    chosen = np.flatnonzero(np.isin([entry.index for entry in entries], wanted))
    for images in _images(shard, [entries[i] for i in chosen]):
        found = pooled_features(teacher.net, images, prepare=teacher.prepare, batch_size=_BATCH, device=device)
        yield _unit(found.numpy())


def write_features(
    path: Path,
    shards: Sequence[Shard],
    index: Array,
    wanted: Array,
    teacher: Classifier,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> FeatureFile:
    """Write to ``path`` the pooled features, before the classifier layer, of the samples ``index[wanted]``.

    One shard after another, 64 images decoded and seen at a time: in memory are a batch and a shard's index, and later
    what :meth:`FeatureFile.at` is asked for. At least one sample is wanted.

    Shapes: index (n,), ascending; wanted (n,), boolean.

    Raises:
        DataError: an image cannot be decoded. InputError: the teacher has no pooled features.
        RunError: the disk refused, or a feature is not finite.
    """
    width = written = 0
    ordered = sorted(
        shards, key=lambda shard: shard.record.shard
    )  # a sample's batch does not depend on how they are given
    with path.open("wb") as file:
        for done, shard in enumerate(ordered, 1):
            for features in _features(shard, index[wanted], teacher, device):
                width, written = features.shape[1], written + len(features)
                _append(file, features.astype(np.float16).tobytes())
            if progress:
                progress(done, len(ordered), written)
    return FeatureFile(path, width, np.cumsum(wanted) - 1)


def _append(file: BinaryIO, data: bytes) -> None:
    try:
        file.write(data)
        file.flush()
    except OSError as error:
        raise RunError(
            f"cannot write features to {file.name}: {error.strerror or error}; make room, or set TMPDIR to another disk"
        ) from error
