"""Label views of a run's images after it was made, finished or growing: ``RUN/views/NNNNNN.views`` beside its shards.

A file is a function of its shard, the rule and the teacher: batches are :data:`BATCH` samples of one shard in their
order, and each view is a pass of its own. So whoever makes a file, alone or beside others, on the same kind of device,
writes the same bytes. A file that is there and fits is not made again; one with fewer views is extended by those that
it lacks, which gives the bytes that all of them at once would have given.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from prism_fast.config import RunConfig, assign
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.dataset.shard import Entry, Shard
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.dataset.view_files import ViewsFile, read_views, views_folder, views_path, write_views
from prism_fast.dataset.view_labels import labelling_of
from prism_fast.errors import ConfigError, DataError, InputError, RunError
from prism_fast.labels.load import load_label_space
from prism_fast.models.classifier import Classifier
from prism_fast.models.device import require_device
from prism_fast.models.label_space import for_label_space
from prism_fast.operations.verify import Progress
from prism_fast.sampling.transfer import to_device, to_host
from prism_fast.selection.teacher import run_teacher
from prism_fast.storage.files import sweep
from prism_fast.synthesis.memory import enough_memory
from prism_fast.synthesis.overlap import pipelined
from prism_fast.synthesis.views import ViewLabeller, eager_teacher
from prism_fast.views.codec import Records
from prism_fast.workers.leases import Leases

#: Images of a pass.
BATCH = 64


@dataclass(frozen=True)
class LabelledViews:
    """``count`` views of each sample are labelled; ``made`` files were written now, of ``shards`` with samples.

    ``with_samples``: the run stores them with its samples, and nothing was to do.
    """

    count: int
    shards: int
    made: int
    images_per_s: float
    with_samples: bool


def label_views(
    run: Path,
    count: int,
    changes: Mapping[str, object] | None = None,
    *,
    device: str = "cpu",
    check: bool | None = None,
    progress: Progress | None = None,
) -> LabelledViews:
    """Label the first ``count`` views of every sample of a run's finished shards.

    Args:
        run: the run's directory.
        count: how many views of each sample there shall be at least.
        changes: other values than the run's own below ``views``: ``{"views.crop_scale": [0.3, 1.0]}``.
        device: where the teacher runs.
        check: whether every byte of the shards is hashed first; None means that of a small run.
        progress: told after every shard: shards that are ready, shards in all, images labelled a second.

    Raises:
        ConfigError: a value out of range, or of another section. InputError: views of another rule are there, or no
            such device. DataError: not a run directory, no finished shard, a damaged one, or another teacher than the
            run's. RunError: the disk refused, or logits that half precision does not hold.
    """
    directory = RunDirectory(run)
    before = directory.config()
    config = _wanted(before, count, changes or {})
    shards = ShardSet.discover(run, check=check)
    if before.views.count >= count and before.views == config.views.model_copy(update={"count": before.views.count}):
        return LabelledViews(before.views.count, len(shards.shards), 0, 0.0, with_samples=True)
    require_device(device)
    teacher = for_label_space(run_teacher(directory), load_label_space(config.labels))
    teacher.net.to(device)
    maker = _Maker(run, config, shards, teacher, torch.device(device))
    return maker.make(progress or (lambda done, total, rate: None))


def _wanted(config: RunConfig, count: int, changes: Mapping[str, object]) -> RunConfig:
    for key in changes:
        if not key.startswith("views.") or key == "views.count":
            raise ConfigError(f"--set {key}: only views.* can differ from the run, and --count says how many")
    if count < 1:
        raise InputError(f"--count must be 1 or more, got {count}")
    return assign(config, {**changes, "views.count": count})


class _Maker:
    """Makes the files that are missing, one shard after the other."""

    def __init__(
        self, run: Path, config: RunConfig, shards: ShardSet, teacher: Classifier, device: torch.device
    ) -> None:
        self.run, self.shards, self.device = run, shards.shards, device
        self.count, self.lease_s = config.views.count, config.launch.lease_s
        side = config.views.image_size or teacher.config.image_size
        views = config.views.model_copy(update={"image_size": side})
        named = shards.shards[0].record.models.get("teacher", "")
        self.labelling = labelling_of(views, config.seed, shards.classes, named)
        self.labeller = ViewLabeller(self.labelling, side, eager_teacher(teacher, side))
        self.cores = len(os.sched_getaffinity(0))

    def make(self, progress: Progress) -> LabelledViews:
        """Make what is missing; shards that others have in hand are waited for."""
        folder, total = views_folder(self.run), len(self.shards)
        left = {shard.record.shard: shard for shard in self.shards if not self._ready(shard)}
        sweep(folder)
        made, images, start = 0, 0, time.monotonic()
        with Leases(folder, "views", self.lease_s) as leases:
            while left:
                before = len(left)
                for number, shard in list(left.items()):
                    found = self._take(shard, leases)
                    if found == "held by others":
                        continue
                    del left[number]
                    if found == "made":
                        made, images = made + 1, images + shard.record.rows
                    progress(total - len(left), total, images / max(time.monotonic() - start, 1e-9))
                if len(left) == before:
                    leases.wait()
        rate = images / max(time.monotonic() - start, 1e-9)
        return LabelledViews(self.count, total, made, rate, with_samples=False)

    def _take(self, shard: Shard, leases: Leases) -> Literal["ready", "made", "held by others"]:
        if self._ready(shard):
            return "ready"
        if not leases.take(name := f"{shard.record.shard:06d}"):
            return "held by others"
        try:
            if self._ready(shard):  # finished between the look and the lease
                return "ready"
            self._label(shard)
            return "made"
        finally:
            leases.release(name)

    def _ready(self, shard: Shard) -> bool:
        file = self._held(shard)
        return file is not None and file.record.count >= self.count

    def _held(self, shard: Shard) -> ViewsFile | None:
        """The file of a shard, if it fits it and is whole as far as its header says.

        Raises:
            InputError: it fits, but its views are drawn or labelled otherwise.
        """
        path = views_path(self.run, shard.record.shard)
        if not path.exists():
            return None
        try:
            file = read_views(path)
        except DataError:  # damaged
            return None
        if file.misfit(shard.record):
            return None
        if file.record.labelling != self.labelling:
            raise InputError(
                f"{path} holds views of another rule ({_differences(file, self.labelling)}); ask for the same with "
                f"--set, or delete {path.parent}"
            )
        return file

    def _label(self, shard: Shard) -> None:
        """Write the file of a shard; views that it has already are kept."""
        held = self._whole(shard)
        start = held.record.count if held else 0
        whole = shard.without(frozenset())
        entries = whole.entries()
        parts = [entries[begin : begin + BATCH] for begin in range(0, len(entries), BATCH)]
        turns = range(start, self.count)
        with enough_memory():
            new = np.concatenate(list(self._records(whole, parts, turns)))
        records = np.concatenate([held.records(), new], axis=1) if held else new
        index = np.array([entry.index for entry in entries], np.int64)
        write_views(self.run, shard.record, self.labelling, index, records)

    def _whole(self, shard: Shard) -> ViewsFile | None:
        file = self._held(shard)
        try:
            if file:
                file.check()
        except DataError:
            return None
        return file

    def _records(self, shard: Shard, parts: list[list[Entry]], turns: range) -> Iterator[Records]:
        """The records of each batch (n, turns); the next one is read and decoded while one is labelled."""
        with shard.open() as reader, ThreadPoolExecutor(self.cores, "decode") as pool:

            def load(part: list[Entry]) -> tuple[list[int], torch.Tensor]:
                data = [reader.image_bytes(entry) for entry in part]
                images = torch.stack(list(pool.map(shard.decoded, part, data)))
                return [entry.index for entry in part], images

            def label(loaded: tuple[list[int], torch.Tensor]) -> Records:
                indices, images = loaded
                (pixels,) = to_device([images], self.device)
                packed = to_host(self.labeller.label(indices, pixels, turns))
                self._require_finite(shard, indices, packed)
                return self.labeller.records(packed)

            yield from pipelined(parts, (load, label), depth=1)

    def _require_finite(self, shard: Shard, indices: list[int], packed: Sequence[torch.Tensor]) -> None:
        finite = self.labeller.finite(packed)
        if not finite.all():
            lost = indices[int(finite.logical_not().nonzero()[0])]
            raise RunError(
                f"{shard.tar}: the teacher's logits of a view of sample {lost} are not finite in half precision, which "
                "ends at 65,504; such views cannot be stored, set distill.teacher to live"
            )


def _differences(file: ViewsFile, wanted: object) -> str:
    return ", ".join(f"{k} {v}" for k, v in dict(file.record.labelling).items() if v != getattr(wanted, k))
