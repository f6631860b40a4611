"""Let a run have more images than it was begun with; nothing is sampled here.

Row i of the plan does not depend on the number of images, and neither does a full shard: they stay as they are. A last
shard that was not full is another one in the longer run, with more samples and another batch shape. It is retired:
its record goes, and ``synthesize`` makes it again with the rest. So an extended run is byte for byte the run that would
have been made at once; unless the new images are given out by what those before say: that decision is a file in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prism_fast.config import RunConfig
from prism_fast.dataset.layout import Layout
from prism_fast.dataset.run_directory import RunDirectory, run_document
from prism_fast.errors import InputError, RunError
from prism_fast.storage.files import remove, replace
from prism_fast.workers.leases import require_idle

if TYPE_CHECKING:
    from prism_fast.dataset.draws import Decision
    from prism_fast.operations.decide import Aim
    from prism_fast.operations.needs import Progress

_OF_THE_OLD_LENGTH = ("plan.parquet", "manifest.parquet", "README.md")


@dataclass(frozen=True)
class Extended:
    """The longer run; ``retired`` is the last shard that was not full, None when there was none."""

    images_before: int
    images: int
    shards: int
    shards_to_make: int
    retired: int | None


def _longer(config: RunConfig, layout: Layout, path: Path, images: int) -> RunConfig:
    if images < layout.images:
        raise InputError(f"{path} is a run of {layout.images} images, which only grows; --images {images} is fewer")
    if config.run_hash() != layout.run_hash:  # the label file's content is a part of it
        raise InputError(f"{path} was begun with another label file than {config.labels} is now; restore that file")
    return config.model_copy(update={"synthesis": config.synthesis.model_copy(update={"images": images})})


def _retire_partial(directory: RunDirectory, layout: Layout) -> int | None:
    last = layout.shards - 1
    if layout.extent(last)[1] == layout.shard_size:
        return None
    record = directory.shards / f"{last:06d}.json"
    held = record.exists()
    remove(record)
    return last if held else None


def _decided(
    directory: RunDirectory, config: RunConfig, images: int, aim: Aim | None, progress: Progress | None
) -> tuple[Decision, ...]:
    """What is decided of the rows of the longer run; of most runs nothing, and nothing heavy is loaded."""
    if aim is None and not directory.decisions():
        return ()
    from prism_fast.operations.decide import decide

    return decide(directory, config, images, aim, progress)


def extend(path: Path, images: int, aim: Aim | None = None, progress: Progress | None = None) -> Extended:
    """Make a run of N images one of ``images``; refused while a worker has a shard of it in hand.

    Killed at any moment it leaves a run of the old or of the new length, and the same call goes on: what the new rows
    are is decided and stored, the partial shard and the plan of the old length go, then ``run.json`` changes, then the
    longer plan is written.

    Args:
        path: the run.
        images: how many it shall have.
        aim: what the new images are given out by; None: to every class equally many.
        progress: told how many samples were looked at.

    Raises:
        InputError: a worker is busy, fewer images than the run has, its label file changed, or a wrong student.
        DataError: not a run directory, or nothing in it to look at. RunError: the disk refused.
    """
    directory = RunDirectory(path)
    require_idle(directory.shards)
    before, config = directory.layout(), directory.config()
    longer, retired = _longer(config, before, path, images), None
    try:
        decided = _decided(directory, config, images, aim, progress)
        if images > before.images:
            retired = _retire_partial(directory, before)
            for name in _OF_THE_OLD_LENGTH:
                remove(path / name)
            replace(path / "run.json", run_document(longer, before.run_hash, decided))
    except OSError as error:
        raise RunError(f"cannot extend {path}: {error.strerror or error}; fix it and run the same command") from error
    directory.claim(longer)
    layout = directory.layout()
    done = sum(1 for shard in directory.records() if shard < layout.shards)
    return Extended(before.images, images, layout.shards, layout.shards - done, retired)
