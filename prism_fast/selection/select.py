"""Choose which samples of a finished run are trained on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prism_fast.dataset.ledger import REASONS, Ledger, write_ledger
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.errors import DataError, InputError
from prism_fast.labels.load import load_label_space
from prism_fast.selection.duplicates import ACCEPTED, OVER_QUOTA, keep_distinct
from prism_fast.selection.settings import Settings
from prism_fast.selection.stored import Array, Progress, Stored, read_stored

if TYPE_CHECKING:
    from prism_fast.selection.features import FeatureFile

_ACCEPTED, _ENERGY, _QUOTA, _DISAGREES, _DUPLICATE = range(len(REASONS))
#: Opens a named phase, whose progress is then told.
Phase = Callable[[str], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class AcceptedByClass:
    """Accepted images of the class that has fewest, of the one in the middle, and of the one that has most."""

    min: int
    median: float
    max: int


@dataclass(frozen=True)
class Selection:
    """A selection in numbers; ``rejected`` is by reason, ``short`` the classes with fewer images than their quota."""

    run_hash: str
    images: int
    accepted: int
    rejected: dict[str, int]
    classes: int
    accepted_by_class: AcceptedByClass
    short: int


@contextmanager
def silent(name: str) -> Iterator[Progress]:
    """A phase whose progress nobody is told."""
    yield lambda done, total, value: None


def parse_quotas(texts: Sequence[str]) -> dict[str, int]:
    """``CLASS=N`` texts as numbers by class name.

    Raises:
        InputError: not of that form, or a class twice.
    """
    found: dict[str, int] = {}
    for text in texts:
        name, _, count = text.rpartition("=")
        if not count.isdecimal():
            raise InputError(f"--quota {text!r} is not of the form CLASS=N, for example --quota 'red panda=20'")
        if name in found:
            raise InputError("--quota names a class twice; give one quota a class")
        found[name] = int(count)
    return found


def named_quotas(run: Path, quotas: Mapping[str, int]) -> tuple[tuple[int, int], ...]:
    """Quotas by class name as (label, number), in order of label.

    Raises:
        InputError: no such class. DataError: not a run directory.
    """
    if not quotas:
        return ()
    space = load_label_space(RunDirectory(run).config().labels)
    return tuple(sorted((space.index(name), count) for name, count in quotas.items()))


def _finished_shards(directory: RunDirectory, check: bool | None) -> ShardSet:
    missing, planned = directory.missing(), directory.layout().shards
    if missing:
        raise InputError(
            f"{directory.path} is not finished: {len(missing)} of {planned} shards are missing; "
            "'prism-fast synthesize' makes them"
        )
    return ShardSet.discover(directory.path, check=check)


def _alone(stored: Stored, settings: Settings) -> Array:
    """What each sample's own values say, as places in REASONS, (n,); an energy that is no number is too high."""
    limit = np.inf if settings.max_energy is None else settings.max_energy
    reason = np.full(len(stored.index), _ACCEPTED, np.int8)
    reason[~(stored.energy <= limit)] = _ENERGY
    if settings.agree:
        reason[(reason == _ACCEPTED) & (stored.top1 != stored.label)] = _DISAGREES
    return reason


def _by_class(stored: Stored) -> Iterator[tuple[int, Array]]:
    """Label and places of each class that has samples, its places in order of preference."""
    order = np.lexsort((stored.index, stored.energy, stored.label))
    ends = np.flatnonzero(np.diff(stored.label[order])) + 1
    for places in np.split(order, ends):
        yield int(stored.label[places[0]]), places


def choose(
    stored: Stored, settings: Settings, features: FeatureFile | None = None, progress: Progress | None = None
) -> Ledger:
    """What becomes of every sample; a function of what is stored, the settings and the features.

    In each class samples take turns in order of energy, equal ones in order of index. A sample is refused for the first
    of these reasons: its energy, its teacher's answer, a class that is full, an accepted sample that it repeats.
    """
    reason, repeats = _alone(stored, settings), np.full(len(stored.index), -1, np.int64)
    classes = list(_by_class(stored))
    for done, (label, places) in enumerate(classes, 1):
        left = places[reason[places] == _ACCEPTED]
        limit = settings.quota(label, len(places))
        quota = len(left) if limit is None else limit
        if features is None or settings.duplicates is None or not len(left):
            reason[left[quota:]] = _QUOTA
        else:
            fate = keep_distinct(features.at(left), quota, settings.duplicates)
            reason[left[fate == OVER_QUOTA]] = _QUOTA
            same = fate > ACCEPTED
            reason[left[same]] = _DUPLICATE
            repeats[left[same]] = stored.index[left[fate[same]]]
        if progress:
            progress(done, len(classes), int((reason == _ACCEPTED).sum()))
    return Ledger(stored.index, stored.shard, stored.label, stored.energy, reason, repeats)


def _summary(run_hash: str, ledger: Ledger, classes: int, settings: Settings) -> Selection:
    counts = np.bincount(ledger.reason, minlength=len(REASONS))
    held = np.bincount(ledger.label, minlength=classes)
    taken = np.bincount(ledger.label[ledger.reason == _ACCEPTED], minlength=classes)
    quotas = [settings.quota(label, int(count)) for label, count in enumerate(held)]
    return Selection(
        run_hash=run_hash,
        images=len(ledger.index),
        accepted=int(counts[_ACCEPTED]),
        rejected={name: int(count) for name, count in zip(REASONS[1:], counts[1:], strict=True)},
        classes=classes,
        accepted_by_class=AcceptedByClass(int(taken.min()), float(np.median(taken)), int(taken.max())),
        short=sum(quota is not None and count < quota for count, quota in zip(taken.tolist(), quotas, strict=True)),
    )


def _judge(
    directory: RunDirectory, shards: ShardSet, stored: Stored, settings: Settings, device: str, phase: Phase
) -> Ledger:
    """Choose, with the teacher's features where samples have to be compared."""
    wanted = _alone(stored, settings) == _ACCEPTED
    if settings.duplicates is None or not wanted.any():
        return choose(stored, settings)
    from prism_fast.selection.features import write_features  # loads torch and timm
    from prism_fast.selection.teacher import run_teacher

    teacher = run_teacher(directory)
    with tempfile.TemporaryDirectory(prefix="prism-fast-select-") as folder:
        file = Path(folder) / "features"
        with phase("features, images") as progress:
            features = write_features(
                file, shards.shards, stored.index, wanted, teacher, device=device, progress=progress
            )
        with phase("duplicates, images kept") as progress:
            return choose(stored, settings, features, progress)


def select(
    run: Path, settings: Settings, *, device: str = "cpu", check: bool | None = None, phase: Phase = silent
) -> Selection:
    """Choose from a finished run and write ``selection.parquet`` into its directory.

    The accepted samples depend on what the run holds and on the settings alone. Without ``settings.duplicates`` only
    the ``.json`` members are read. With it the teacher sees every image that its own values do not rule out. Its
    features lie in a temporary file (below ``TMPDIR``, gone afterwards), so that memory is bounded by the features of
    one class, one batch of images and one shard's index, besides less than 100 bytes a sample for the ledger.

    Args:
        run: the run's directory.
        settings: what to keep.
        device: where the teacher runs; another one can change the last bits of a cosine.
        check: whether every byte of the shards is hashed first; None means that of a small run.
        phase: opens a phase of the work by its name and shows its progress.

    Raises:
        InputError: the run is not finished, or the teacher is not there.
        DataError: not a run directory, a sample that cannot be read, or another teacher than the run's.
        RunError: the disk refused.
    """
    directory = RunDirectory(run)
    shards = _finished_shards(directory, check)
    with phase("read, samples") as progress:
        stored = read_stored(shards.shards, progress)
    if settings.agree and not stored.has_top1:
        raise DataError(f"{run} does not store the teacher's top-1 of every sample; select without --agree")
    ledger = _judge(directory, shards, stored, settings, device, phase)
    write_ledger(run, ledger, asdict(settings), [shard.record.sha256 for shard in shards.shards])
    return _summary(directory.layout().run_hash, ledger, shards.classes, settings)
