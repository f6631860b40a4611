"""A live teacher sees the student's view at its own size."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from prism_fast.distillation.teacher import LiveTeacher
from prism_fast.models.classifier import load_classifier
from tests.tiny import make_teacher


def test_pictures_are_resized_to_the_teachers_size(tmp_path: Path) -> None:
    classifier = load_classifier(str(make_teacher(tmp_path / "teacher")))
    live, side = LiveTeacher(classifier), classifier.config.image_size
    small = torch.randn(3, 3, side // 2, side // 2)
    large = F.interpolate(small, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    assert torch.equal(live(small).logits, classifier.net(large))
    assert torch.equal(live(large).logits, classifier.net(large))
