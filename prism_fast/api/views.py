"""Labels of a run's views."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prism_fast.operations.views import LabelledViews

Progress = Callable[[int, int, float], None]


def label_views(
    run: Path | str,
    count: int,
    changes: Mapping[str, object] | None = None,
    *,
    device: str = "cpu",
    check: bool | None = None,
    progress: Progress | None = None,
) -> LabelledViews:
    """Let a run's teacher label the first ``count`` views of every image, for ``distill.teacher: views``.

    Called again after an interruption it goes on; several processes may do it at once. With a larger ``count`` the
    views before are kept.

    Args:
        run: the run's directory, finished or growing.
        count: how many views of each image there shall be.
        changes: other values than the run's own: ``{"views.crop_scale": [0.3, 1.0]}``.
        device: where the teacher runs.
        check: whether every byte of the shards is hashed first; None means that of a small run (256 MiB).
        progress: told after every shard: shards that are ready, shards in all, images labelled a second.

    Raises:
        ConfigError: a value out of range, or of another section. InputError: views of another rule are there, or no
            such device. DataError: not a run directory, a damaged shard, or another teacher than the run's.
        RunError: the disk refused, or logits that half precision does not hold.
    """
    from prism_fast.process import prepare

    prepare()
    from prism_fast.operations.views import label_views as label
    from prism_fast.storage.paths import run_path

    return label(run_path(run), count, changes, device=device, check=check, progress=progress)
