"""Distil an image classifier without its data: energy-guided synthesis from a text-to-image model, then a student.

::

    import prism_fast

    config = prism_fast.load_config("minis-emoji", ["synthesis.images=320"])
    prism_fast.synthesize(config, "runs/my")
    student = prism_fast.distill(config, "runs/my", "runs/my-student")[0].student
    print(prism_fast.evaluate(student)[0].top1)

Nothing heavy is imported before the first call that needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prism_fast.api import (
        build_engines,
        check_gpu,
        check_prompts,
        compress,
        distill,
        evaluate,
        export_student,
        extend,
        label_views,
        prompt_stats,
        report,
        select,
        synthesize,
        verify,
        write_bank,
    )
    from prism_fast.config import load_config
    from prism_fast.dataset.shard_set import ShardSet

    __version__: str

__all__ = [
    "ShardSet",
    "__version__",
    "build_engines",
    "check_gpu",
    "check_prompts",
    "compress",
    "distill",
    "evaluate",
    "export_student",
    "extend",
    "label_views",
    "load_config",
    "prompt_stats",
    "report",
    "select",
    "synthesize",
    "verify",
    "write_bank",
]

_HOMES = dict.fromkeys((name for name in __all__ if not name.startswith("__")), "prism_fast.api") | {
    "ShardSet": "prism_fast.dataset.shard_set",
    "load_config": "prism_fast.config",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("prism-fast")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
