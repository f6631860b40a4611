"""How a student in training does on samples that nobody trains on, and on real pictures."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from prism_fast.dataset.shard_set import ShardSet
from prism_fast.distillation.learner import Learner
from prism_fast.distillation.task import Task
from prism_fast.models.classifier import Classifier
from prism_fast.models.resize import resized

_ROWS = 128


class Validation:
    """Held-out samples of a run, kept as bytes at the size that is loaded.

    Args:
        held_out: the samples; the teacher's logits of the whole images are with them.
        task: what is trained.
    """

    def __init__(self, held_out: ShardSet, task: Task) -> None:
        self._device, self._real = task.world.device, task.config.validation.pictures
        pictures, labels, logits = [], [], []
        for sample in held_out.samples():
            small = resized(sample.image[None].float(), task.image_size, task.image_size)
            pictures.append(small.round().clamp(0, 255).to(torch.uint8))
            labels.append(sample.label)
            logits.append(sample.logits)
        self.pictures, self.labels, self.logits = torch.cat(pictures), torch.tensor(labels), torch.stack(logits)

    def look(self, learner: Learner) -> dict[str, float]:
        """What the averaged student does on what is held out; with real pictures also how many of them it knows.

        ``held_out_divergence`` is the mean KL divergence from the teacher's classes to the student's, in nats.
        """
        said = self._said(learner)
        p, q = F.log_softmax(self.logits, 1), F.log_softmax(said, 1)
        found = {
            "held_out_divergence": float(F.kl_div(q, p, reduction="batchmean", log_target=True)),
            "held_out_agreement": float((said.argmax(1) == self.logits.argmax(1)).float().mean()),
            "held_out_accuracy": float((said.argmax(1) == self.labels).float().mean()),
        }
        if self._real is not None:
            found["pictures_top1"] = self._top1(learner, Path(self._real))
        return found

    def _said(self, learner: Learner) -> Tensor:
        student = Classifier(learner.average.module, learner.info)
        return student.logits(self.pictures.to(self._device), _ROWS).cpu()

    @staticmethod
    def _top1(learner: Learner, pictures: Path) -> float:
        from prism_fast.evaluation.scoring import score_pictures

        student = Classifier(learner.average.module, learner.info)
        return score_pictures(learner.name, student, pictures, _ROWS, device=str(learner.world.device)).top1
