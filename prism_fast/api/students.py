"""Students: trained, cut out of a teacher, written for other tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from prism_fast.api.runs import LOG, Log, Progress, path_of

if TYPE_CHECKING:
    from prism_fast.config import RunConfig
    from prism_fast.distillation.task import Result, Watch
    from prism_fast.experiments.compress import Compressed
    from prism_fast.operations.export_student import Exported, Format
    from prism_fast.workers.launch.training import TrainingLauncherName


def distill(
    config: RunConfig,
    run: Path | str,
    out: Path | str,
    *,
    device: str = "cpu",
    check: bool | None = None,
    launch: TrainingLauncherName | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    watch: Watch | None = None,
    log: Log = LOG.info,
) -> tuple[Result, ...]:
    """Train a student, or several on the same batches, on a synthesized dataset; called again, it goes on.

    Args:
        config: the recipe (``distill``) and, where a teacher is needed, the teacher.
        run: the run's directory.
        out: where the students and their checkpoints go.
        device: where students and teacher compute.
        check: whether every byte of the shards is hashed first; None means that of a small run (256 MiB).
        launch: what starts several ranks, which share every batch; ``torchrun``: this process is one of its ranks.
        workers: how many, with ``local`` and ``slurm``.
        progress: told every few steps: steps done, steps in all, loss of the first student.
        watch: told every few steps: a student's name and what there is to show of it.
        log: told what is launched.

    Raises:
        InputError: an unknown student or device, a loader that cannot run, a checkpoint of another recipe.
        DataError: shards or a teacher that cannot be read. RunError: the loss is not finite, or the disk refused.
    """
    from prism_fast.process import prepare

    prepare()
    from prism_fast.distillation.parallel import joined
    from prism_fast.distillation.run import distill_run
    from prism_fast.storage.paths import local_path
    from prism_fast.workers.launch.training import Training, launch_local, launch_slurm

    training = Training(config, local_path(run), local_path(out), device, check, workers)
    if launch == "torchrun":
        with joined(device) as world:
            return distill_run(
                config, training.run, training.out, device=str(world.device), world=world, check=check,
                progress=progress, watch=watch,
            )  # fmt: skip
    if launch == "local":
        launch_local(training, log)
    if launch == "slurm":
        launch_slurm(training, log)
    # What ranks have finished is only read here.
    return distill_run(config, training.run, training.out, device=device, check=check, progress=progress, watch=watch)


def export_student(
    student: Path | str,
    out: Path | str,
    formats: Sequence[Format] = ("safetensors", "onnx", "torch"),
    *,
    half: bool = False,
    latency: bool = False,
) -> Exported:
    """Write a student for other tools, each file compared with the student itself, and a model card.

    Args:
        student: what ``distill`` wrote, or any classifier directory.
        out: a new or empty folder.
        formats: ``safetensors`` (timm's directory, as on the hub), ``onnx``, ``torch`` (torch.export); of several, one
            that this network cannot have is left out and named in the result's notes.
        half: weights in float16.
        latency: measure milliseconds for the model card.

    Raises:
        InputError: a format that it cannot have, a package that is missing, or ``out`` is not empty. DataError: there
            is no such student, or it is incomplete. RunError: a format does not give the student's logits, or the disk
            refused.
    """
    from prism_fast.process import prepare

    prepare()
    from prism_fast.operations.export_student import export_student as write
    from prism_fast.storage.paths import local_path

    return write(local_path(student), local_path(out), formats, half=half, latency=latency)


def compress(
    config: RunConfig,
    budget: float,
    out: Path | str,
    *,
    run: Path | str | None = None,
    candidates: int = 2,
    device: str = "cpu",
    phase: Callable[[str], AbstractContextManager[Progress]] | None = None,
    log: Log = LOG.info,
) -> tuple[Compressed, ...]:
    """Make a smaller classifier of the configured teacher: images, a search over what to cut, distillation, the choice.

    Args:
        config: images and teacher; ``distill`` says how long students are trained.
        budget: part of the teacher's multiply-adds that a student may cost, between 0 and 1.
        out: where images, students and ``compress.json`` go; called again it goes on.
        run: images that are there already.
        candidates: how many cuts are distilled, on the same batches.
        device: where students and teacher compute.
        phase: opens a named phase of the work, whose progress is then told.
        log: told what is chosen.

    Raises:
        InputError: no cut costs that little, or the teacher cannot be taken apart. DataError: bad images or models.
        RunError: the disk refused.
    """
    from prism_fast.process import prepare

    prepare()
    from prism_fast.experiments.compress import compress as make
    from prism_fast.selection.select import silent
    from prism_fast.storage.paths import local_path

    where = local_path(out)
    return make(config, budget, where, phase or silent, run=path_of(run), candidates=candidates, device=device, log=log)
