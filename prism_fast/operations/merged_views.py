"""Files of views on their way into a merged run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from prism_fast.dataset.record import Record
from prism_fast.dataset.view_files import ViewsFile, read_views, view_files, views_folder, views_path
from prism_fast.errors import InputError, RunError
from prism_fast.storage.adopt import link_or_copy


def best_views(runs: Sequence[Path], records: Sequence[Record]) -> dict[int, ViewsFile]:
    """Of each shard the file with the most views; of equally many, the one in the first run.

    Raises:
        InputError: two runs draw or label views by different rules. DataError: a file is damaged.
    """
    shards, best = {record.shard: record for record in records}, dict[int, ViewsFile]()
    for file in (read_views(path) for run in runs for path in view_files(run)):
        shard = file.record.shard
        if shard not in shards or file.misfit(shards[shard]):
            continue
        first = next(iter(best.values()), file)
        if first.record.labelling != file.record.labelling:
            raise InputError(
                f"{file.path.parent} holds views of another rule than {first.path.parent}; delete one of these folders"
            )
        if shard not in best or best[shard].record.count < file.record.count:
            best[shard] = file
    return best


def adopt_views(files: Mapping[int, ViewsFile], out: Path) -> None:
    """Give each file a place in a run directory, by hard link where possible.

    Raises:
        RunError: the disk refused.
    """
    try:
        for shard, file in files.items():
            views_folder(out).mkdir(parents=True, exist_ok=True)
            if file.path != (target := views_path(out, shard)):
                link_or_copy(file.path, target)
    except OSError as error:
        raise RunError(
            f"cannot write {views_folder(out)}: {error.strerror or error}; make room or fix permissions and run the "
            "same command again"
        ) from error
