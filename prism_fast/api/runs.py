"""What is done with runs: engines, synthesis, checks, selection, distillation, the report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prism_fast.compile.command import Outcome
    from prism_fast.config import RunConfig
    from prism_fast.dataset.record import Record
    from prism_fast.evaluation.comparison import Scored
    from prism_fast.gpu_check.check import Checked, StepResult
    from prism_fast.operations.extend import Extended
    from prism_fast.operations.needs import Towards
    from prism_fast.operations.verify import Verdict
    from prism_fast.selection.select import Selection
    from prism_fast.workers.launch.job import LauncherName
    from prism_fast.workers.rank import Rank
    from prism_fast.workers.stop import Stop
    from prism_fast.workers.synthesize import Summary

#: (done, in all, a number that says how it goes)
Progress = Callable[[int, int, float], None]
Log = Callable[[str], None]
LOG = logging.getLogger("prism_fast")


def build_engines(
    config: RunConfig,
    *,
    backend: str = "auto",
    precision: str = "auto",
    parts: Sequence[str] = (),
    store: Path | str | None = None,
    log: Log = LOG.info,
) -> Outcome:
    """Compile what a run computes, the energy gradient included; each engine is kept only if it agrees with eager.

    Args:
        config: the run.
        backend: ``auto`` (all that can run here), ``all`` (all that can build here), or a name.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        parts: which parts; none means those that the configuration computes.
        store: where engines are kept; the user's own store when not given.
        log: told what is built.

    Raises:
        InputError: an unknown part or precision, or bad models. RunError: no backend gives one of the parts.
        EngineError: a backend is unknown, or was named and cannot do it.
    """
    from prism_fast.process import prepare

    prepare()
    from prism_fast.compile.command import build_all
    from prism_fast.compile.tune import with_tuned_batch

    where = path_of(store)
    return build_all(with_tuned_batch(config, where), backend, precision, tuple(parts), where, log)


def synthesize(
    config: RunConfig,
    out: Path | str,
    *,
    store: Path | str | None = None,
    launch: LauncherName | None = None,
    workers: int = 1,
    rank: Rank | None = None,
    progress: Progress | None = None,
    finished: Callable[[Record], None] | None = None,
    log: Log = LOG.info,
    stop: Stop | None = None,
) -> Summary:
    """Make a run, or what is missing of it; called again after an interruption it goes on and ends with the same bytes.

    Args:
        config: what to make.
        out: the run's directory, or ``s3://BUCKET/RUN``.
        store: where compiled engines are kept; the user's own store when not given.
        launch: what starts the workers; None is one worker, in this process.
        workers: how many, with ``local``, ``ray`` and ``slurm``.
        rank: which of several workers on one directory this process is.
        progress: told after every shard: images finished, images planned, images a second.
        finished: told of every shard's record.
        log: told which engines are built and used.
        stop: asks to stop; see :func:`prism_fast.workers.stop.stoppable`, which binds it to signals.

    Raises:
        InputError: bad models, a directory of another run, a launcher that is not installed.
        RunError: the disk refused, or shards are missing because workers ended.
        EngineError: a named backend cannot run here. StoppedError: ``stop`` was asked for.
    """
    from prism_fast.process import prepare

    if launch == "torchrun":
        from prism_fast.workers.share import see_own_gpu

        config = see_own_gpu(config)
    prepare()
    from prism_fast.storage.paths import run_path
    from prism_fast.workers.launch import Job, start
    from prism_fast.workers.rank import Rank
    from prism_fast.workers.stop import Stop

    job = Job(
        config=config,
        out=run_path(out),
        workers=workers,
        store=path_of(store),
        rank=rank or Rank(),
        progress=progress,
        log=log,
        stop=stop or Stop(),
        finished=finished,
    )
    return start(launch, job)


def verify(run: Path | str, *, progress: Progress | None = None) -> Verdict:
    """Check that every planned image is there exactly once and every byte is as recorded.

    Args:
        run: the run's directory, or ``s3://BUCKET/RUN``.
        progress: told after every shard: shards checked, shards planned, MB a second.

    Raises:
        DataError: not a run directory. RunError: a shard cannot be read.
    """
    from prism_fast.operations.verify import verify as check
    from prism_fast.storage.paths import run_path

    return check(run_path(run), progress)


def check_gpu(
    config: RunConfig | None = None,
    *,
    device: str = "cuda:0",
    only: Sequence[str] = (),
    out: Path | str | None = None,
    began: Callable[[str], None] = lambda name: None,
    ended: Callable[[StepResult], None] = lambda result: None,
) -> Checked:
    """Check every part of the project on a GPU, a step at a time, each in a process of its own.

    Args:
        config: a run whose models the steps ``guided`` and ``shards`` take; small bundled ones without it.
        device: the GPU.
        only: steps, or groups of them as ``operators``; none means all.
        out: where each step's messages and the answer as JSON are kept; without it nowhere.
        began: told a step's name when it begins.
        ended: told what a step found.

    Raises:
        InputError: there is no such GPU or step, or ``out`` cannot be written. RunError: the disk refused.
    """
    from prism_fast.gpu_check.check import check_all, chosen, require_gpu

    require_gpu(device)
    steps, where = chosen(only), path_of(out)
    if config is not None:
        from prism_fast.compile.tune import with_tuned_batch

        config = with_tuned_batch(config, None)
    return check_all(steps, device, config, where, began, ended)


def select(
    run: Path | str,
    *,
    per_class: int | None = None,
    keep: float | None = None,
    quotas: Mapping[str, int] | None = None,
    max_energy: float | None = None,
    agree: bool = False,
    duplicates: float | None = None,
    device: str = "cpu",
    check: bool | None = None,
    phase: Callable[[str], AbstractContextManager[Progress]] | None = None,
) -> Selection:
    """Choose which images of a finished run are trained on, lowest energies first; then ``distill.selection=true``.

    Args:
        run: the run's directory.
        per_class: keep at most so many of each class.
        keep: keep this share of each class instead.
        quotas: another number for some classes, by name.
        max_energy: refuse higher final free energies.
        agree: refuse what the teacher takes for another class.
        duplicates: refuse what has this cosine or more with a kept image of its class.
        device: where the teacher runs, for ``duplicates``.
        check: whether every byte of the shards is hashed first; None means that of a small run (256 MiB).
        phase: opens a named phase of the work, whose progress is then told.

    Raises:
        InputError: settings that contradict each other, a run that is not finished. DataError: not a run directory, a
            sample that cannot be read. RunError: the disk refused.
    """
    from prism_fast.selection.select import named_quotas, silent
    from prism_fast.selection.select import select as choose
    from prism_fast.selection.settings import Settings
    from prism_fast.storage.paths import run_path

    path = run_path(run)
    settings = Settings(per_class, keep, named_quotas(path, quotas or {}), max_energy, agree, duplicates)
    if duplicates is not None:
        from prism_fast.models.device import require_device
        from prism_fast.process import prepare

        prepare()
        require_device(device)
    return choose(path, settings, device=device, check=check, phase=phase or silent)


def evaluate(
    classifier: Path | str,
    pictures: Path | str = "minis",
    labels: Path | str | None = None,
    *,
    device: str = "cpu",
    batch_size: int = 128,
    ground_truth: Path | str | None = None,
    real: Path | str | None = None,
) -> list[Scored]:
    """Top-1 and top-5 on real pictures, a result for each test set.

    A folder is scored among the classes that it has folders of. These are matched by name, by WordNet id, or by number.

    Args:
        classifier: a directory, a timm model name, or ``minis`` for the bundled teacher.
        pictures: an ImageFolder directory, or ``minis`` for the bundled test sets.
        labels: the label space of the classifier, bundled or a YAML file, to match folders with; without it the
            classifier's own names or a bundled label space if it knows every folder, else the numbers that the
            folders' names begin with.
        device: where the classifier computes.
        batch_size: pictures seen at once.
        ground_truth: a file of pictures' names and classes, for pictures that lie in no class folders.
        real: ``real.json`` of reassessed-imagenet, for ImageNet's validation pictures: any of a picture's labels is
            right, pictures without one are left out.

    Raises:
        InputError: no such classifier, device or label space, or test sets of another number of classes. DataError: a
            wrong directory, folders that match no class, or a picture that cannot be read. RunError: the classifier
            answered with NaN or infinity.
    """
    from prism_fast.process import prepare

    prepare()
    from prism_fast.errors import InputError
    from prism_fast.evaluation.comparison import score_bundled
    from prism_fast.evaluation.scoring import score_pictures
    from prism_fast.models.bundled import resolve
    from prism_fast.models.classifier import load_classifier
    from prism_fast.models.device import require_device

    require_device(device)
    name, space = str(classifier), None if labels is None else str(labels)
    network = load_classifier(resolve(name, "teacher"))
    truth, reassessed = (None if file is None else Path(file) for file in (ground_truth, real))
    if str(pictures) != "minis":
        path = Path(pictures)
        return [score_pictures(name, network, path, batch_size, space, device, ground_truth=truth, real=reassessed)]
    if truth or reassessed:
        raise InputError("--ground-truth and --real are for pictures of your own; give --pictures DIR")
    return score_bundled(name, network, batch_size, space, device)


def report(
    run: Path | str,
    out: Path | str | None = None,
    *,
    picture: Path | str | None = None,
    check: bool | None = None,
    diversity: int | None = None,
) -> Path:
    """Write one self-contained HTML page about a run; gives its path.

    Args:
        run: what ``synthesize`` or ``demo`` wrote.
        out: the HTML file; ``report.html`` in the run when not given.
        picture: also write a PNG there: the first four images of each class, of at most 64.
        check: whether every byte of the shards is hashed first; None means that of a small run (256 MiB).
        diversity: measure diversity by class on so many images of each of at most 64 classes; loads models.features.

    Raises:
        DataError: there is no run, or one of its shards is damaged. InputError: there can be no such file, diversity
            is below 2, or models.features is no network for it.
        RunError: the disk refused.
    """
    from prism_fast.dataset.shard_set import ShardSet
    from prism_fast.evaluation.first import first_of_each_class
    from prism_fast.evaluation.gather import gather, main_run
    from prism_fast.evaluation.picture import save_class_grid
    from prism_fast.evaluation.report import build_report
    from prism_fast.storage.paths import local_path

    path = local_path(run)
    main = main_run(path)
    page = build_report(gather(path, check, diversity=diversity), path_of(out) or path / "report.html")
    if picture is not None:
        save_class_grid(list(first_of_each_class(ShardSet.discover(main, check=False), 4)), 4, local_path(picture))
    return page


def extend(
    run: Path | str,
    images: int,
    *,
    towards: Towards | None = None,
    student: Path | str | None = None,
    progress: Progress | None = None,
) -> Extended:
    """Let a run have more images; ``synthesize`` makes them.

    Args:
        run: the run's directory.
        images: how many it shall have.
        towards: give the new ones to the classes, sorts and scenes that lack ``agreement``, ``coverage``, or what a
            ``student`` has not learnt; None: to every class equally many.
        student: of ``towards="student"``, what ``distill`` wrote.
        progress: told how many samples were looked at.

    Raises:
        InputError: a worker is busy, the run is longer already, or there is no such student. DataError: it is no run,
            or holds nothing to look at. RunError: the disk refused.
    """
    from prism_fast.process import prepare

    prepare()
    from prism_fast.operations.decide import Aim
    from prism_fast.operations.extend import extend as lengthen
    from prism_fast.storage.paths import run_path

    return lengthen(run_path(run), images, Aim(towards, path_of(student)) if towards else None, progress)


def path_of(given: Path | str | None) -> Path | None:
    """A local path that may be left out."""
    from prism_fast.storage.paths import local_path

    return None if given is None else local_path(given)
