"""What a distillation takes: counts against sums by hand, hours from numbers small enough to check by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from prism_fast.config import RunConfig, load_config
from prism_fast.errors import InputError
from prism_fast.estimate.count import LessonCost, PartCost, count_lesson
from prism_fast.estimate.devices import Device
from prism_fast.estimate.distillation import Distillation, estimate_distillation
from prism_fast.estimate.estimate import Request, make_estimate
from prism_fast.estimate.roofline import Efficiency
from prism_fast.models.classifier import Classifier, ClassifierConfig
from tests.estimate.test_estimate import COST

DEVICE = Device("toy", "Toy", half_flops=200.0, fp32_flops=100.0, bandwidth=50.0, memory_bytes=1000.0, usd_per_hour=2.0)
#: A batch of 4: a student's forward pass is 100 operations and 10 bytes, the teacher's 50 operations and 400 bytes.
STUDENT, TEACHER = PartCost("small", 3, 100, 10, 0, 0), PartCost("teacher", 1, 50, 400, 0, 0)


def config(*settings: str) -> RunConfig:
    return load_config("minis-emoji", ("distill.batch_size=4", "distill.steps=10", *settings))


def plan(settings: RunConfig, lesson: LessonCost, images: int = 8, count: int = 1) -> Distillation:
    return estimate_distillation(settings, lesson, images, count, 2.0, DEVICE, Efficiency(0.5, 0.5))


def test_stored_targets_cost_three_passes_of_the_student() -> None:
    """300 operations at 100 / 2 a second: 6 s a step."""
    made = plan(config(), LessonCost((STUDENT,), None))
    assert made.hours == pytest.approx(10 * 6 / 3600)
    assert made.gpu_hours == made.hours
    assert made.usd == pytest.approx(2 * made.hours)
    assert made.images_per_s_device == pytest.approx(4 / 6)
    assert made.students_gmac == pytest.approx(100 / 2 / 4 / 1e9)
    assert made.teacher_gmac == 0
    assert (made.students, made.teacher, made.teacher_images) == (("small",), "stored", 0)


def test_a_live_teacher_sees_every_picture() -> None:
    """400 bytes at 50 / 2 a second: 16 s a step more, and more with every step."""
    made = plan(config("distill.teacher=live"), LessonCost((STUDENT,), TEACHER))
    assert made.hours == pytest.approx(10 * (6 + 16) / 3600)
    assert made.teacher_images == 40
    assert made.teacher_gmac == pytest.approx(50 / 2 / 4 / 1e9)
    longer = plan(config("distill.teacher=live", "distill.steps=20"), LessonCost((STUDENT,), TEACHER))
    assert longer.hours == pytest.approx(2 * made.hours)


def test_views_are_labelled_once() -> None:
    """8 images of 2 views are 4 batches of the teacher, however long the students train."""
    stored = ("distill.teacher=views", "views.count=2")
    made, longer = (
        plan(config(*stored, *more), LessonCost((STUDENT,), TEACHER)) for more in ((), ("distill.steps=20",))
    )
    assert made.teacher_images == longer.teacher_images == 16
    assert made.hours == pytest.approx((10 * 6 + 4 * 16) / 3600)
    assert longer.hours == pytest.approx((20 * 6 + 4 * 16) / 3600)
    assert "views of each image, labelled beforehand: 2" in made.assumptions
    unsaid = plan(config("distill.teacher=views"), LessonCost((STUDENT,), TEACHER))
    assert unsaid.teacher_images == 8 * 5  # 40 pictures are five epochs


def test_devices_share_the_batches_and_half_precision_is_faster() -> None:
    lesson = LessonCost((STUDENT,), None)
    one, four = plan(config(), lesson), plan(config(), lesson, count=4)
    assert four.hours == pytest.approx(one.hours / 4)
    assert four.gpu_hours == pytest.approx(one.gpu_hours)
    assert four.usd == pytest.approx(one.usd)
    half = plan(config("distill.precision=bfloat16"), lesson)
    assert half.hours == pytest.approx(one.hours / 2)
    assert any("TF32" in line for line in one.assumptions)
    assert not any("TF32" in line for line in half.assumptions)


def test_several_students_share_the_teacher() -> None:
    one, two = (plan(config("distill.teacher=live"), LessonCost((STUDENT,) * n, TEACHER)) for n in (1, 2))
    assert two.hours - one.hours == pytest.approx(10 * 6 / 3600)
    assert two.students_gmac == 2 * one.students_gmac


def test_a_run_is_estimated_with_its_students() -> None:
    settings = config()

    request = Request(64, 2, 2.0, Efficiency(0.5, 0.5))
    made = make_estimate(settings, replace(COST, lesson=LessonCost((STUDENT,), None)), request, DEVICE)
    assert made.distillation is not None
    assert made.distillation.hours == pytest.approx(settings.distill.steps * 6 / 2 / 3600)
    alone = make_estimate(settings, COST, request, DEVICE)
    assert alone.distillation is None
    assert (alone.hours, alone.usd) == (made.hours, made.usd)  # beside, not within


def teacher(classes: int = 5) -> Classifier:
    described = ClassifierConfig(
        architecture="test_vit", num_classes=classes, image_size=32, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    with torch.device("meta"):
        net: nn.Module = timm.create_model("test_vit", num_classes=classes, img_size=32)
    return Classifier(net.eval(), described)


def forward_flops(name: str, rows: int, side: int, **more: Any) -> int:
    net = timm.create_model(name, num_classes=5, **more).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(rows, 3, side, side))
    return int(counter.get_total_flops())


def test_a_lesson_counts_what_the_real_networks_compute() -> None:
    several = "distill.students=[{name: a}, {name: b, student: test_efficientnet, image_size: 48}]"
    settings = config("distill.student=test_resnet", "distill.image_size=32", several, "distill.teacher=live")
    found = count_lesson(settings.distill, teacher())
    assert [(one.part, one.calls) for one in found.students] == [("test_resnet", 3), ("test_efficientnet", 3)]
    wanted = [forward_flops("test_resnet", 4, 32), forward_flops("test_efficientnet", 4, 48)]
    assert [one.flops for one in found.students] == wanted
    assert found.teacher is not None
    assert (found.teacher.calls, found.teacher.flops > 0) == (1, True)


def test_a_teacher_that_labels_nothing_is_not_counted() -> None:
    settings = config("distill.student=test_resnet", "distill.image_size=32")
    assert count_lesson(settings.distill, teacher()).teacher is None


def test_a_student_made_from_the_teacher_is_counted_as_it_is_cut() -> None:
    whole, cut = (
        config("distill.student_from=teacher", "distill.image_size=32", f"distill.inherit={{blocks: {blocks}}}")
        for blocks in ("null", 2)
    )
    found = count_lesson(whole.distill, teacher())
    assert found.students[0].flops >= forward_flops("test_vit", 4, 32, img_size=32)
    assert count_lesson(cut.distill, teacher()).students[0].flops < found.students[0].flops
    heir = config("distill.student_from=teacher", "distill.image_size=32", "distill.inherit={width: 0.5}")
    assert (
        "channels that pruning takes from a student made from the teacher are counted" in plan(heir, found).assumptions
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("distill.student=resnet1800",), "student 'resnet1800' is not a timm model"),
        (("distill.student=test_vit", "distill.image_size=40"), "40"),
    ],
)
def test_a_student_that_cannot_be_counted_is_one_line(settings: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        count_lesson(config(*settings).distill, teacher())
