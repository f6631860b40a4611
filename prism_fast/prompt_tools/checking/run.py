"""Check the senses of a configuration: make what is missing, judge all of it, write ``check.json`` and the page."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prism_fast.compile.tune import with_tuned_batch
from prism_fast.config import RunConfig, assign
from prism_fast.errors import InputError
from prism_fast.labels.chosen import chosen_labels
from prism_fast.labels.load import load_label_space
from prism_fast.labels.space import LabelSpace
from prism_fast.models.device import gpu_name
from prism_fast.prompt_tools.checking.choose import bank_text, require_bank, write_bank
from prism_fast.prompt_tools.checking.engines import on_chosen_engines
from prism_fast.prompt_tools.checking.files import ClassFiles
from prism_fast.prompt_tools.checking.jobs import MOST_IMAGES, Job, Senses, settings_hash
from prism_fast.prompt_tools.checking.maker import ClassMaker
from prism_fast.prompt_tools.checking.page import write_page
from prism_fast.prompt_tools.checking.pictures import JudgedClass, judged_class
from prism_fast.prompt_tools.checking.verdict import Checked, checked
from prism_fast.storage.files import make_folder, replace, writing
from prism_fast.synthesis.synthesizer import Synthesizer
from prism_fast.workers.leases import Leases
from prism_fast.workers.maker import Generator
from prism_fast.workers.stop import Stop

_LOG = logging.getLogger(__name__)
Log = Callable[[str], None]
#: (images finished, images wanted, images a second of this process)
Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Outcome:
    """What a check found, and what this call did for it: classes that it made, and that were there as they should be.

    The others were made meanwhile by another process on the same directory.
    """

    checked: Checked
    made: int
    found: int
    images_per_s: float


def check_prompts(
    config: RunConfig,
    out: Path,
    *,
    classes: Sequence[str | int] = (),
    images: int = 8,
    choose: Path | None = None,
    store: Path | None = None,
    progress: Progress | None = None,
    log: Log = _LOG.info,
    stop: Stop | None = None,
    generator: Generator | None = None,
) -> Outcome:
    """Let the teacher say whether it sees each class in unguided images of each of its senses.

    Image j of every sense of a class has the same noise and the same choices. Classes that lie in ``out`` are not made
    again, unless their prompts or the settings changed or a file is damaged.

    Args:
        config: whose prompts, networks and sampling; guidance is left out.
        out: ``check.json``, ``check.html`` and the images go there, a shard a class below ``classes``.
        classes: names or labels; none means all.
        images: of each sense.
        choose: write a bank there in which each checked class's best sense is its sense.
        store: where compiled engines are kept; the user's own store when not given.
        progress: told after every class.
        log: told which engines are used, and of damaged files.
        stop: asks to stop; see :func:`prism_fast.workers.stop.stoppable`.
        generator: makes the images in place of the configured models.

    Raises:
        InputError: no such class, bad models or prompts, or a file ``choose`` that says something else. RunError: the
            disk refused. EngineError: a named backend cannot run here. StoppedError: a signal asked for it.
    """
    config = assign(with_tuned_batch(config, store), {"guidance.enabled": False})
    if choose is not None:
        require_bank(config)
    space, stop = load_label_space(config.labels), stop or Stop()
    jobs = _jobs(config, space, classes, images)
    with writing(out):
        make_folder(out / "classes")
    with Leases(out / "classes", duration_s=config.launch.lease_s, hold_s=config.launch.hold_s) as leases:
        made_by, engines = (generator, {}) if generator else _models(config, out, leases, store, log)
        files = _files(config, space, out, made_by, engines, log)
        work = _Work(ClassMaker(made_by, files, leases, stop), jobs, progress)
        with stop.patient():
            work.make_missing()
    judged = _judged(files, jobs)
    result = checked(config.name, config.seed, files.models, files.engines, [c.name for c in space.classes], judged)
    with writing(out / "check.json"):
        replace(out / "check.json", result.model_dump_json(indent=1).encode())
    write_page(result, judged, space, out / "check.html")
    if choose is not None:
        write_bank(choose, bank_text(config, space, result.classes))
    return Outcome(result, work.made, work.found, work.images_per_s)


def _jobs(config: RunConfig, space: LabelSpace, classes: Sequence[str | int], images: int) -> list[Job]:
    if not 1 <= images <= MOST_IMAGES:
        raise InputError(f"images must be from 1 to {MOST_IMAGES}, got {images}")
    labels, senses = chosen_labels(space, classes), Senses(config, space)
    return [senses.job(label, images) for label in labels]


def _models(
    config: RunConfig, out: Path, leases: Leases, store: Path | None, log: Log
) -> tuple[Generator, dict[str, str]]:
    return on_chosen_engines(Synthesizer.load(config), out / "engines.json", leases, log, store)


def _files(
    config: RunConfig, space: LabelSpace, out: Path, made_by: Generator, engines: dict[str, str], log: Log
) -> ClassFiles:
    settings = settings_hash(config, space, made_by.hashes, engines, gpu_name(config.sampling.device))
    image_ext = config.synthesis.image_format
    return ClassFiles(out / "classes", settings, made_by.hashes, engines, made_by.classes, image_ext, log)


class _Work:
    """Makes what is missing of some classes, and counts."""

    def __init__(self, maker: ClassMaker, jobs: Sequence[Job], progress: Progress | None) -> None:
        self.maker, self.jobs, self.progress = maker, jobs, progress
        self.made = self.found = self._images = 0
        self._total = sum(len(job.rows) for job in jobs)

    @property
    def images_per_s(self) -> float:
        """Of the images that were made here."""
        return self._images / max(self.maker.seconds, 1e-9)

    def make_missing(self) -> None:
        """Until every class is there, whoever makes it.

        Raises:
            StoppedError: a signal asked for it. RunError: the disk refused.
        """
        files, missing = self.maker.files, list[Job]()
        self.maker.forget_dead()
        for job in self.jobs:
            self.maker.stop.check()
            if files.find(job) is None:
                missing.append(job)
        self.found = len(self.jobs) - len(missing)
        self._tell(missing)
        while missing:
            before = self.made
            for job in self.maker.make(missing):
                self.made, self._images = self.made + 1, self._images + len(job.rows)
                missing = [other for other in missing if other is not job]
                self._tell(missing)
            left = [job for job in missing if not files.has(job)]
            if len(left) < len(missing):
                self._tell(left)
            elif left and self.made == before:
                self.maker.leases.wait()
            missing = left

    def _tell(self, missing: Sequence[Job]) -> None:
        if self.progress:
            self.progress(self._total - sum(len(job.rows) for job in missing), self._total, self.images_per_s)


def _judged(files: ClassFiles, jobs: Sequence[Job]) -> list[JudgedClass]:
    """Read back what was made, a class a thread; of its images the thumbnails are kept."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(partial(judged_class, files), jobs))
