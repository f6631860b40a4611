"""Students at one step of a distillation, the batches they share, and what the teacher says of these."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from prism_fast.data.augment import Augment
from prism_fast.data.batch import Batch
from prism_fast.data.loader import Loader
from prism_fast.distillation.learner import Learner, Seen, half_of
from prism_fast.distillation.outputs import Labels, Outputs
from prism_fast.distillation.parallel import World
from prism_fast.distillation.teacher import LiveTeacher, require_logits


class Trainer:
    """Students at one step of a distillation, the batches they share, and what the teacher says of these."""

    def __init__(
        self, loader: Loader, learners: Sequence[Learner], teacher: LiveTeacher | None, augment: Augment, world: World
    ) -> None:
        self.loader, self.learners, self.teacher, self.augment, self.world = loader, learners, teacher, augment, world
        self.waited_s = 0.0
        self.last: Batch | None = None

    @property
    def step(self) -> int:
        """Steps that every student has done."""
        return min(learner.step for learner in self.learners)

    def train_step(self) -> dict[str, Tensor]:
        """A step of every student that is not ahead; see :meth:`Learner.train_step`."""
        began, step = time.perf_counter(), self.step
        batch = next(self.loader)
        self.waited_s += time.perf_counter() - began
        self.last = batch = self.augment(batch)
        labels = Labels(batch.labels, batch.other_labels, batch.share)
        seen = Seen(batch.images, labels, self._targets(batch))
        return {one.name: one.train_step(seen) for one in self.learners if one.step == step}

    def _targets(self, batch: Batch) -> Outputs:
        if self.teacher is None:
            return Outputs(batch.logits)
        half = half_of(self.learners[0].recipe)
        with torch.autocast(self.world.device.type, half) if half else nullcontext():
            found: Outputs = self.teacher(batch.images)
        require_logits(found.logits, batch.logits)
        return found
