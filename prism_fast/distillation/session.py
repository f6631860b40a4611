"""One call of a training: steps from where the students stand to the end, and what is written meanwhile."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from prism_fast.distillation.checkpoint import save_checkpoint
from prism_fast.distillation.learner import Learner
from prism_fast.distillation.model_card import Card, Training, looks_of, model_card
from prism_fast.distillation.records import Board, best_step, exhausted, record
from prism_fast.distillation.student import save_student
from prism_fast.distillation.task import Progress, Result, Task, Watch
from prism_fast.distillation.trainer import Trainer
from prism_fast.distillation.validation import Validation
from prism_fast.errors import InputError
from prism_fast.evaluation.cost import Cost, cost_of
from prism_fast.models.classifier import Classifier
from prism_fast.storage.files import replace

_log = logging.getLogger(__name__)

LOG_EVERY = 10


@dataclass(frozen=True)
class Timing:
    """How fast steps were, and the part of their time in which the loader was waited for."""

    images_per_s: float = 0.0
    data_wait: float = 0.0


class Session:
    """One call: steps from where the students stand to the end, and what is written meanwhile."""

    def __init__(
        self,
        task: Task,
        trainer: Trainer,
        validation: Validation | None,
        progress: Progress | None,
        watch: Watch | None,
    ) -> None:
        self.task, self.trainer, self.validation = task, trainer, validation
        self.progress, self.watch = progress, watch
        self.windows: dict[str, list[Tensor]] = {learner.name: [] for learner in trainer.learners}
        self.starts = {learner.name: learner.step for learner in trainer.learners}
        self.boards: dict[str, Board] = {}
        self.costs: dict[str, Cost] = {}
        self.timing = Timing()
        self.began = self.since = time.perf_counter()
        self.seconds = 0.0
        self.stopped = all(exhausted(learner.history, task.config) for learner in trainer.learners)

    def run(self) -> None:
        """All steps that are left."""
        trainer, config = self.trainer, self.task.config
        self._open()
        try:
            while trainer.step < config.steps and not self.stopped:
                for name, found in trainer.train_step().items():
                    self.windows[name].append(found)
                self._after(trainer.step)
        finally:
            for board in self.boards.values():
                board.close()
        self.seconds = time.perf_counter() - self.began

    def _open(self) -> None:
        for learner in self.trainer.learners:
            folder = self.task.folder(learner)
            _make_directory(folder)
            if self.task.world.leads:
                self.boards[learner.name] = Board(folder / "tensorboard", learner.step)

    def _after(self, step: int) -> None:
        config = self.task.config
        saving = step % config.checkpoint_every == 0 or step == config.steps
        looks = config.validation.share > 0
        looking = looks and (step % config.validation.every == 0 or step == config.steps)
        if not (saving or looking or step % LOG_EVERY == 0):
            return
        self._record(step, looking)
        if saving or self.stopped:
            self._save()
        self.since = time.perf_counter()

    def _record(self, step: int, looking: bool) -> None:
        """Of students that did this step: one that was ahead has its rows already."""
        current = [learner for learner in self.trainer.learners if self.windows[learner.name]]
        steps = len(self.windows[current[0].name])
        rows = {learner.name: record(learner, self.windows[learner.name]) for learner in current}
        self._time(steps)
        for learner in current:
            self.windows[learner.name].clear()
            if looking:
                self._look(learner, rows[learner.name])
            self._tell(learner, rows[learner.name], looking)
        if looking:
            self._decide()
        if self.progress and self.task.world.leads:
            self.progress(step, self.task.config.steps, self.trainer.learners[0].history[-1]["loss"])

    def _time(self, steps: int) -> None:
        """How fast the last steps were; looks and what is written are left out."""
        seconds = max(time.perf_counter() - self.since, 1e-9)
        self.timing = Timing(steps * self.task.config.batch_size / seconds, self.trainer.waited_s / seconds)
        self.trainer.waited_s = 0.0

    def _look(self, learner: Learner, row: dict[str, float]) -> None:
        if self.validation is not None:
            row.update(self.validation.look(learner))
            if best_step(learner.history) == learner.step:
                self._write(learner, "best")

    def _tell(self, learner: Learner, row: dict[str, float], looking: bool) -> None:
        if not self.task.world.leads:
            return
        shown = {**row, **vars(self.timing)}
        self.boards[learner.name].numbers(shown)
        if (looking or len(learner.history) == 1) and self.trainer.last is not None:
            self.boards[learner.name].pictures(self._pixels(self.trainer.last.images), learner.step)
        if self.watch:
            self.watch(learner.name, shown)

    def _pixels(self, images: Tensor) -> Tensor:
        mean, std = (images.new_tensor(x).view(3, 1, 1) for x in (self.task.mean, self.task.std))
        return images * std + mean

    def _decide(self) -> None:
        """Whether all students have stopped getting better; the leading rank says it to all."""
        learners = self.trainer.learners
        self.stopped = self.task.world.told(all(exhausted(one.history, self.task.config) for one in learners))
        if self.stopped:
            _log.info("nothing better for %s looks: stopped at step %d", self.task.config.validation.patience,
                      self.trainer.step)  # fmt: skip

    def _save(self) -> None:
        if self.task.world.leads:
            state = self.trainer.loader.state_dict()
            for learner in self.trainer.learners:
                if learner.step == self.trainer.step:
                    made = learner.checkpoint(self.task.identity(learner), state)
                    save_checkpoint(self.task.folder(learner) / "checkpoint.pt", made)

    def _write(self, learner: Learner, name: str) -> None:
        """The averaged student as it is now, with a card that says what it is."""
        folder, averaged, last = self.task.folder(learner) / name, learner.average.module, learner.history[-1]
        save_student(folder, averaged, learner.info, learner.history)
        training = Training(
            recipe=learner.recipe,
            origins=self.task.origins,
            run_hash=self.task.shards.shards[0].record.run_hash,
            images=self.task.shards.rows,
            steps=learner.step,
            loss=last["loss"],
            agreement=last["agreement"],
            looks=looks_of(learner.history),
        )
        if learner.name not in self.costs:
            self.costs[learner.name] = cost_of(Classifier(averaged, learner.info))
        card = model_card(Card(learner.info, training, self.costs[learner.name]))
        replace(folder / "README.md", card.encode())

    def result(self, learner: Learner) -> Result:
        """A finished student, written by the leading rank."""
        folder, averaged = self.task.folder(learner), learner.average.module
        if self.task.world.leads:
            self._write(learner, "student")
        self.task.world.wait()
        last, done = learner.history[-1], learner.step - self.starts[learner.name]
        return Result(
            name=learner.name,
            model=averaged,
            student=folder / "student",
            best=folder / "best" if best_step(learner.history) is not None else None,
            steps=learner.step,
            resumed_from=self.starts[learner.name],
            loss=last["loss"],
            agreement=last["agreement"],
            images_per_s=done * learner.recipe.batch_size / max(self.seconds, 1e-9),
            data_wait=self.timing.data_wait,
        )


def _make_directory(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror or error}") from error
