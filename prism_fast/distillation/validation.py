"""How a student in training does on samples that nobody trains on, and on real pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from prism_fast.config import DistillConfig
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.distillation.learner import Learner
from prism_fast.distillation.teacher import resized
from prism_fast.models.classifier import Classifier

_ROWS = 128


class Validation:
    """Held-out samples of a run, kept as bytes at the size that students see.

    Args:
        held_out: the samples; the teacher's logits of the whole images are with them.
        config: the recipe.
        mean: of the students' pictures.
        std: of the students' pictures.
        device: where the students are.
    """

    def __init__(
        self,
        held_out: ShardSet,
        config: DistillConfig,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
    ) -> None:
        self._config, self._device = config, device
        pictures, labels, logits = [], [], []
        for sample in held_out.samples():
            small = resized(sample.image[None].float(), config.image_size)
            pictures.append(small.round().clamp(0, 255).to(torch.uint8))
            labels.append(sample.label)
            logits.append(sample.logits)
        self.pictures, self.labels, self.logits = torch.cat(pictures), torch.tensor(labels), torch.stack(logits)
        self._mean, self._std = (torch.tensor(x, device=device).view(3, 1, 1) for x in (mean, std))

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
        if self._config.validation.pictures is not None:
            found["pictures_top1"] = self._top1(learner, Path(self._config.validation.pictures))
        return found

    @torch.no_grad()
    def _said(self, learner: Learner) -> Tensor:
        parts = []
        for pixels in self.pictures.split(_ROWS):
            images = (pixels.to(self._device).float() / 255 - self._mean) / self._std
            parts.append(learner.average.module(resized(images, learner.recipe.image_size)).float().cpu())
        return torch.cat(parts)

    @staticmethod
    def _top1(learner: Learner, pictures: Path) -> float:
        from prism_fast.evaluation.scoring import score_pictures

        student = Classifier(learner.average.module, learner.info)
        return score_pictures(learner.name, student, pictures, _ROWS, device=str(learner.world.device)).top1
