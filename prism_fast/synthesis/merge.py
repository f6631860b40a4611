"""Join partial runs of one configuration, made in several places, into one directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from prism_fast.config import RunConfig
from prism_fast.errors import DataError, InputError
from prism_fast.synthesis.adopt import adopt_shard, link_or_copy
from prism_fast.synthesis.rundir import RunDirectory
from prism_fast.synthesis.shards import Record
from prism_fast.synthesis.verify import Progress, inspect

_COMMON = ("run.json", "plan.parquet", "margins.json")


@dataclass(frozen=True)
class Merged:
    """What the merged run holds; ``linked`` and ``copied`` shards are new to it."""

    shards: int
    shards_planned: int
    images: int
    linked: int
    copied: int


@dataclass(frozen=True)
class _Shard:
    home: RunDirectory
    record: Record


def _check_same_run(runs: Sequence[RunDirectory], out: RunDirectory) -> None:
    first, *others = runs
    wanted = first.layout().run_hash
    for run in others:
        if (found := run.layout().run_hash) != wanted:
            raise InputError(
                f"{run.path} is of run {found[:12]}, but {first.path} of run {wanted[:12]}; only parts of one run merge"
            )
    if out.exists() and (owner := out.layout().run_hash) != wanted:
        raise InputError(
            f"{out.path} belongs to run {owner[:12]}, but {first.path} is of run {wanted[:12]}; choose another --out"
        )


def _intact_shards(run: RunDirectory, progress: Progress | None) -> list[_Shard]:
    shards = []
    for finding in inspect(run, progress):
        if finding.condemned:
            reason = (finding.problem or "").partition(";")[0]
            raise DataError(f"{run.path}: {reason}; run 'prism-fast repair {run.path}' first")
        if finding.record:
            shards.append(_Shard(run, finding.record))
    return shards


def _check_compatible(one: _Shard, other: _Shard) -> None:
    mine, theirs = one.record, other.record
    if mine.models != theirs.models:
        changed = ", ".join(
            k for k in sorted({*mine.models, *theirs.models}) if mine.models.get(k) != theirs.models.get(k)
        )
        raise InputError(f"{other.home.path} was made with other weights ({changed}) than {one.home.path}")
    if mine.shard == theirs.shard and mine.sha256 != theirs.sha256:
        name = f"{mine.shard:06d}"
        raise InputError(
            f"shard {name} of {one.home.path} and of {other.home.path} are not the same bytes, though each is intact; "
            f"delete {name}.json in one of them"
        )


def _collect(runs: Sequence[RunDirectory], progress: Progress | None) -> dict[int, _Shard]:
    found: dict[int, _Shard] = {}
    for shard in (shard for run in runs for shard in _intact_shards(run, progress)):
        _check_compatible(next(iter(found.values()), shard), shard)
        _check_compatible(found.setdefault(shard.record.shard, shard), shard)
    return found


def _claim(out: RunDirectory, runs: Sequence[RunDirectory]) -> None:
    try:
        out.path.mkdir(parents=True, exist_ok=True)
        for name in _COMMON:
            held = next((run.path / name for run in runs if (run.path / name).exists()), None)
            if held and not (out.path / name).exists():
                link_or_copy(held, out.path / name)
    except OSError as error:
        raise InputError(f"cannot write to {out.path}: {error.strerror or error}; choose another --out") from error


def _config(run: RunDirectory) -> RunConfig:
    try:
        return RunConfig.model_validate(run.facts()["config"])
    except ValidationError as error:
        raise DataError(
            f"{run.path / 'run.json'} holds no configuration of this version; make the run again"
        ) from error


def merge(paths: Sequence[Path], out: Path, progress: Progress | None = None) -> Merged:
    """Verify runs and give every shard that one of them holds a place in ``out``, by hard link where possible.

    A complete run gets its manifest and its card; an incomplete one is completed by ``synthesize``.

    Args:
        paths: partial runs of one run hash and the same models.
        out: a new directory, or one of the same run.
        progress: told after every shard that was verified.

    Raises:
        InputError: parts of different runs or models, a shard that differs between two, an ``out`` of another run.
        DataError: a directory that is no run, or a damaged shard.
        RunError: the disk refused.
    """
    target, runs = RunDirectory(out), [RunDirectory(path) for path in paths]
    _check_same_run(runs, target)
    config, layout = _config(runs[0]), runs[0].layout()
    found = _collect([target, *runs] if target.exists() else runs, progress)
    _claim(target, runs)
    new = [shard for shard in found.values() if shard.home is not target]
    linked = sum(adopt_shard(shard.home.shards, target.shards, shard.record.shard) for shard in new)
    if len(found) == layout.shards:
        target.finish(config)
    images = sum(shard.record.rows for shard in found.values())
    return Merged(len(found), layout.shards, images, linked, len(new) - linked)
