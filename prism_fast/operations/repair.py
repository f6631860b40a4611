"""Delete from a run exactly what ``verify`` condemns, so that ``synthesize`` makes exactly that again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.dataset.view_files import views_folder
from prism_fast.errors import RunError
from prism_fast.operations.verify import Finding, Progress, inspect
from prism_fast.storage.files import abandoned, remove
from prism_fast.workers.leases import require_idle


@dataclass(frozen=True)
class Removal:
    """One file that has to go, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Repair:
    """What has to go, and what is to be made then: ``images`` in ``shards``, counting what is missing already."""

    removals: tuple[Removal, ...]
    shards: int
    images: int


def _removals(directory: RunDirectory, findings: list[Finding]) -> Iterator[Removal]:
    for finding in findings:
        reason = (finding.problem or "").partition(";")[0]  # what follows is what to do by hand
        yield from (Removal(path, reason) for path in finding.condemned)
    for folder in (directory.shards, views_folder(directory.path)):
        for path in abandoned(folder):
            yield Removal(path, "left by a killed attempt")


def examine(path: Path, progress: Progress | None = None) -> Repair:
    """Find what has to go; nothing is changed.

    Of a damaged shard that is its record alone: without it the shard does not exist, and ``synthesize`` writes over the
    rest. An intact shard is never among it.

    Args:
        path: the run's directory.
        progress: told after every shard.

    Raises:
        DataError: ``path`` is not a run directory. InputError: a worker has a shard of it in hand.
        RunError: a shard cannot be read.
    """
    directory = RunDirectory(path)
    layout = directory.layout()
    require_idle(directory.shards)
    findings = list(inspect(directory, progress))
    wrong = [shard for shard in range(layout.shards) if findings[shard].problem]
    images = sum(layout.extent(shard)[1] for shard in wrong)
    return Repair(tuple(_removals(directory, findings)), len(wrong), images)


def carry_out(repair: Repair) -> None:
    """Delete what was found.

    Raises:
        RunError: a file cannot be deleted; what was deleted before it stays deleted.
    """
    for removal in repair.removals:
        try:
            remove(removal.path)
        except OSError as error:
            reason = error.strerror or error
            raise RunError(f"cannot delete {removal.path}: {reason}; delete it by hand and repair again") from error
