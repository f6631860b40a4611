"""Join partial runs of one configuration, made in several places, into one directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prism_fast.dataset.made_with import load_made_with
from prism_fast.dataset.margins import load_margins
from prism_fast.dataset.record import Record
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.errors import DataError, InputError
from prism_fast.operations.merged_views import adopt_views, best_views
from prism_fast.operations.verify import Progress, inspect
from prism_fast.storage.adopt import adopt_shard, link_or_copy

_COMMON = ("run.json", "plan.parquet", "engines.json", "margins.json")


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


def _check_same_length(one: RunDirectory, other: RunDirectory) -> None:
    mine, theirs = one.layout().images, other.layout().images
    if mine != theirs:
        shorter = one if mine < theirs else other
        raise InputError(
            f"{one.path} has {mine} images and {other.path} {theirs}; "
            f"'prism-fast extend {shorter.path} --images {max(mine, theirs)}' first"
        )


def _check_same_run(runs: Sequence[RunDirectory], out: RunDirectory) -> None:
    first, *others = runs
    wanted = first.layout().run_hash
    for run in others:
        if (found := run.layout().run_hash) != wanted:
            raise InputError(
                f"{run.path} is of run {found[:12]}, but {first.path} of run {wanted[:12]}; only parts of one run merge"
            )
        _check_same_length(first, run)
    if out.exists() and (owner := out.layout().run_hash) != wanted:
        raise InputError(
            f"{out.path} belongs to run {owner[:12]}, but {first.path} is of run {wanted[:12]}; choose another --out"
        )
    if out.exists():
        _check_same_length(first, out)


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
    if mine.engines != theirs.engines:
        raise InputError(
            f"{other.home.path} was made on other engines than {one.home.path}; only shards of the same engines merge"
        )
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


def _check_same_margins(runs: Sequence[RunDirectory]) -> None:
    held = [(run, margins) for run in runs if (margins := load_margins(run.path / "margins.json"))]
    for run, margins in held[1:]:
        if margins != held[0][1]:
            raise InputError(f"{run.path} was made with other margins than {held[0][0].path}; they do not merge")


def _check_same_draws(runs: Sequence[RunDirectory]) -> None:
    for run in runs[1:]:
        if run.decisions() != runs[0].decisions():
            raise InputError(
                f"{run.path} gave its rows other prompts than {runs[0].path}, as its run.json says; they do not merge"
            )


def _check_same_gpu(runs: Sequence[RunDirectory]) -> None:
    begun = [(run, load_made_with(run.path / "engines.json")) for run in runs]
    held = [(run, made.gpu) for run, made in begun if made and made.gpu]
    for run, gpu in held[1:]:
        if gpu != held[0][1]:
            raise InputError(
                f"{run.path} was made on {gpu}, {held[0][0].path} on {held[0][1]}, which rounds otherwise; they do not "
                "merge"
            )


def _claim(out: RunDirectory, runs: Sequence[RunDirectory]) -> None:
    if not out.exists():
        out.require_empty()
    try:
        out.path.mkdir(parents=True, exist_ok=True)
        for name in (*_COMMON, *(decision.file for decision in runs[0].decisions())):
            held = next((run.path / name for run in runs if (run.path / name).exists()), None)
            if held and not (out.path / name).exists():
                link_or_copy(held, out.path / name)
    except OSError as error:
        raise InputError(f"cannot write to {out.path}: {error.strerror or error}; choose another --out") from error


def merge(paths: Sequence[Path], out: Path, progress: Progress | None = None) -> Merged:
    """Verify runs and give every shard that one of them holds a place in ``out``, by hard link where possible.

    A complete run gets its manifest and its card; an incomplete one is completed by ``synthesize``. Files of views come
    along, of each shard that with the most views.

    Args:
        paths: partial runs of one run hash and the same models.
        out: a new directory, or one of the same run.
        progress: told after every shard that was verified.

    Raises:
        InputError: parts of different runs, models, engines, GPUs, margins, decisions or rules of views, a shard that
            differs between two, an ``out`` of another run.
        DataError: a directory that is no run, or a damaged shard.
        RunError: the disk refused.
    """
    target, runs = RunDirectory(out), [RunDirectory(path) for path in paths]
    _check_same_run(runs, target)
    parts = [target, *runs] if target.exists() else runs
    _check_same_margins(parts)
    _check_same_draws(parts)
    config, layout = runs[0].config(), runs[0].layout()
    found = _collect(parts, progress)
    _check_same_gpu(parts)  # what is damaged has been named by now
    views = best_views([part.path for part in parts], [shard.record for shard in found.values()])
    _claim(target, runs)
    new = [shard for shard in found.values() if shard.home is not target]
    linked = sum(adopt_shard(shard.home.shards, target.shards, shard.record.shard) for shard in new)
    adopt_views(views, target.path)
    if len(found) == layout.shards:
        target.finish(config)
    images = sum(shard.record.rows for shard in found.values())
    return Merged(len(found), layout.shards, images, linked, len(new) - linked)
