"""The stored logits of a run's views, as loaders ask for them: of any samples of a shard, any view of each.

They lie in files beside the shards, if the run has such files, else with the samples in the tars. Nothing is held but
where the views of each sample begin, 16 bytes a sample, known of a shard from its first use on; the logits are read
when they are asked for. So a million samples take 16 MB, whatever the number of views.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from prism_fast.config.views import ViewsConfig
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.dataset.shard import Shard
from prism_fast.dataset.shard_set import HASHED_BYTES, ShardSet
from prism_fast.dataset.view_files import Labelling, ViewsFile, read_views, view_files, views_path
from prism_fast.errors import DataError, InputError
from prism_fast.views.codec import Dense, ViewCodec
from prism_fast.views.draw import ViewRule

#: Files that are open at once, however many shards there are.
OPEN_FILES = 64
_READERS = 8
_MEMBER = re.compile(rb" views (\d+) (\d+) (\d+)\.views\b")

Index = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class _Places:
    """Where the views of a shard's samples begin, in order of index; ``stamp`` tells a file that was replaced since.

    Shapes: index (n,), starts (n,).
    """

    path: Path
    index: Index
    starts: Index
    stamp: tuple[int, int]


class _File:
    """A file that is closed as soon as nobody reads it any more."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor)


class ViewLabels:
    """Logits of the first ``count`` views of every sample; may be asked from several threads.

    Attributes:
        labelling: how the views are drawn and who labelled them.
        count: how many views of each sample there are.
    """

    def __init__(self, labelling: Labelling, count: int, locate: Callable[[Shard], _Places]) -> None:
        self.labelling, self.count, self._codec = labelling, count, labelling.codec
        self._locate, self._places = locate, dict[int, _Places]()
        self._files, self._lock = OrderedDict[Path, _File](), threading.Lock()

    @property
    def rule(self) -> ViewRule:
        """What the views are drawn by."""
        return self.labelling.rule

    @property
    def image_size(self) -> int | None:
        """Side that a view was resized to before the teacher saw it; None: the teacher's own."""
        return self.labelling.image_size

    def digest(self) -> str:
        """SHA-256 of what the labels of given shards depend on; not of how many views there are."""
        return hashlib.sha256(self.labelling.model_dump_json().encode()).hexdigest()

    def logits(self, shard: Shard, indices: Index, views: Index) -> Dense:
        """The teacher's logits of some views of a shard's samples.

        Of a class beyond those that are stored it is what an equal part of the rest's mass gives.

        Shapes: indices (n,), views (n,), 0 to ``count`` - 1; returns (n, classes).
        Dtypes: int64; float32.

        Raises:
            DataError: the shard holds no such sample, or its labels are damaged or were replaced meanwhile.
            InputError: there is no such view.
        """
        if len(views) and not 0 <= int(views.min()) <= int(views.max()) < self.count:
            raise InputError(f"views {views.min()} to {views.max()} are asked for, labelled are 0 to {self.count - 1}")
        places = self._places.get(shard.record.shard) or self._place(shard)
        rows = np.searchsorted(places.index, indices).clip(max=max(len(places.index) - 1, 0))
        if len(indices) and not (len(places.index) and (places.index[rows] == indices).all()):
            raise DataError(f"{places.path} holds no labels of some of these samples: {indices[:8].tolist()}")
        starts = places.starts[rows] + views * self._codec.size_bytes
        records = np.frombuffer(self._read(places, starts.tolist()), self._codec.dtype)
        try:
            return self._codec.decode(records)
        except IndexError as error:
            raise DataError(f"{places.path} is damaged: {error}; 'prism-fast verify' says what to do") from error

    def _place(self, shard: Shard) -> _Places:
        return self._places.setdefault(shard.record.shard, self._locate(shard))

    def _read(self, places: _Places, starts: Sequence[int]) -> bytearray:
        file, size = self._open(places), self._codec.size_bytes
        buffer = bytearray(size * len(starts))
        pieces = memoryview(buffer)
        for number, start in enumerate(starts):
            if os.preadv(file.descriptor, [pieces[number * size : (number + 1) * size]], start) != size:
                raise DataError(f"{places.path} is cut short; 'prism-fast verify' says what to do")
        return buffer

    def _open(self, places: _Places) -> _File:
        """The file, one of the :data:`OPEN_FILES` that were used last."""
        with self._lock:
            file = self._files.get(places.path) or _opened(places)
            self._files[places.path] = file
            self._files.move_to_end(places.path)
            if len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)
        return file


def open_view_labels(shards: ShardSet, check: bool | None = None) -> ViewLabels:
    """The labels of the views of these shards' samples.

    ``check`` says whether every byte of files beside the shards is hashed; by default that is done where they have
    :data:`~prism_fast.dataset.shard_set.HASHED_BYTES` and less. Those in the tars were checked with them.

    Raises:
        DataError: there are none, or not of every shard, or they are damaged or not of these shards; the message says
            how to make them. RunError: a file cannot be read.
    """
    folder = shards.shards[0].folder
    run = folder.parent
    if files := view_files(run):
        return _beside(run, shards, _is_checked(files, check))
    directory = RunDirectory(run)
    config = directory.config() if directory.exists() else None
    if config is None or not config.views.count:
        raise DataError(f"{run} holds no labels of views; make them with 'prism-fast views {run} --count V'")
    record = shards.shards[0].record
    labelling = labelling_of(config.views, config.seed, record.classes, record.models.get("teacher", ""))
    locate = partial(_in_tar, codec=labelling.codec, count=config.views.count)
    return ViewLabels(labelling, config.views.count, locate)


def labelling_of(config: ViewsConfig, seed: int, classes: int, teacher: str) -> Labelling:
    """How a run with these settings labels views; ``teacher`` is the content hash of the network."""
    return Labelling(
        seed=seed,
        crop_scale=config.crop_scale,
        flip=config.flip,
        image_size=config.image_size,
        classes=classes,
        top_k=ViewCodec.of(classes, config.top_k).top_k,
        teacher=teacher,
    )


def _is_checked(files: Sequence[Path], check: bool | None) -> bool:
    return sum(file.stat().st_size for file in files) <= HASHED_BYTES if check is None else check


def _beside(run: Path, shards: ShardSet, check: bool) -> ViewLabels:
    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(lambda shard: _summary(_fitting(run, shard), check), shards.shards)
        labelling, count = _common(run, found)
    return ViewLabels(labelling, count, partial(_in_file, run))


def _summary(file: ViewsFile, check: bool) -> tuple[Labelling, int]:
    if check:
        file.check()
    return file.record.labelling, file.record.count


def _common(run: Path, found: Iterable[tuple[Labelling, int]]) -> tuple[Labelling, int]:
    """The labelling that all files share, and the views that every one of them has."""
    pairs = iter(found)
    labelling, count = next(pairs)
    for other, views in pairs:
        if other != labelling:
            raise DataError(
                f"{run / 'views'} mixes views of several rules; delete it and run 'prism-fast views {run} --count V'"
            )
        count = min(count, views)
    return labelling, count


def _fitting(run: Path, shard: Shard) -> ViewsFile:
    """The file of a shard's views.

    Raises:
        DataError: it is missing, damaged, or of another shard.
    """
    remedy = f"make it with 'prism-fast views {run} --count V'"
    path = views_path(run, shard.record.shard)
    if not path.exists():
        raise DataError(f"{path} is missing; {remedy}")
    file = read_views(path)
    if why := file.misfit(shard.record) or _of_another_teacher(file, shard):
        raise DataError(f"{run}: {why}; {remedy}")
    return file


def _of_another_teacher(file: ViewsFile, shard: Shard) -> str | None:
    same = file.record.labelling.teacher == shard.record.models.get("teacher", "")
    return None if same else f"{file.path.name} was labelled by another teacher than the run's"


def _in_file(run: Path, shard: Shard) -> _Places:
    file = _fitting(run, shard)
    starts = file.views_at + file.stride * np.arange(file.record.rows)
    return _sorted(file.path, file.index(), starts)


def _in_tar(shard: Shard, codec: ViewCodec, count: int) -> _Places:
    members = _MEMBER.findall(shard.index.read_bytes())
    found = np.array(members, dtype="S20").astype(np.int64).reshape(-1, 3)
    wanted = count * codec.size_bytes
    if len(found) != shard.record.rows or (found[:, 1] != wanted).any():
        raise DataError(
            f"{shard.index}: expected {count} views of {wanted} bytes for each of {shard.record.rows} samples; "
            "'prism-fast verify' says what to do"
        )
    return _sorted(shard.tar, found[:, 2], found[:, 0])


def _sorted(path: Path, index: Index, starts: Index) -> _Places:
    order = np.argsort(index, kind="stable")
    return _Places(path, index[order], starts[order], _stamp(os.stat(path)))


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _opened(places: _Places) -> _File:
    try:
        file = _File(places.path)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{places.path} cannot be read ({reason}); 'prism-fast verify' says what to do") from error
    if _stamp(os.fstat(file.descriptor)) != places.stamp:
        raise DataError(f"{places.path} was replaced while it was read; run the same command again")
    return file
