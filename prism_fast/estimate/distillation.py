"""From what a distillation's step computes to how long all steps take, beside the run that they learn from."""

from __future__ import annotations

from dataclasses import dataclass

from prism_fast.config import RunConfig
from prism_fast.estimate.count import LessonCost, PartCost
from prism_fast.estimate.devices import Device
from prism_fast.estimate.roofline import Efficiency, roofline_seconds

_PRECISION = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class Distillation:
    """The students of a run. GMAC are of one forward pass of one picture, of all students and of the teacher.

    ``teacher_images`` are the pictures that the teacher labels for them; without views those of synthesis serve.
    ``hours`` are of all devices together, which share every batch.
    """

    steps: int
    batch_size: int
    students: tuple[str, ...]
    teacher: str
    precision: str
    students_gmac: float
    teacher_gmac: float
    teacher_images: int
    images_per_s_device: float
    hours: float
    gpu_hours: float
    usd: float
    assumptions: tuple[str, ...]


def estimate_distillation(
    config: RunConfig,
    lesson: LessonCost,
    images: int,
    count: int,
    usd_per_hour: float,
    device: Device,
    reached: Efficiency,
) -> Distillation:
    """Estimate the distillation of a run of ``images`` on ``count`` devices.

    Args:
        config: the run; its recipe and its views.
        lesson: what a step computes.
        images: of the run.
        count: devices.
        usd_per_hour: price of one device.
        device: whose roofline gives the time.
        reached: parts of its peaks.
    """
    distill, precision = config.distill, _PRECISION[config.distill.precision]
    labelled = _labelled(config, images)
    steps_s = distill.steps * sum(roofline_seconds(one, device, precision, reached)[0] for one in lesson.students)
    pass_s = roofline_seconds(lesson.teacher, device, precision, reached)[0] if lesson.teacher else 0.0
    device_s = steps_s + pass_s * labelled / distill.batch_size
    hours = device_s / count / 3600
    return Distillation(
        steps=distill.steps,
        batch_size=distill.batch_size,
        students=tuple(one.part for one in lesson.students),
        teacher=distill.teacher,
        precision=precision,
        students_gmac=sum(_gmac(one, distill.batch_size) for one in lesson.students),
        teacher_gmac=_gmac(lesson.teacher, distill.batch_size) if lesson.teacher else 0.0,
        teacher_images=labelled,
        images_per_s_device=distill.steps * distill.batch_size / device_s,
        hours=hours,
        gpu_hours=hours * count,
        usd=hours * count * usd_per_hour,
        assumptions=_assumptions(config, device, precision, reached),
    )


def _gmac(cost: PartCost, batch_size: int) -> float:
    return cost.flops / 2 / batch_size / 1e9


def _labelled(config: RunConfig, images: int) -> int:
    """Pictures that the teacher sees for the students: each one of theirs, or each view once, beforehand."""
    seen = config.distill.steps * config.distill.batch_size
    if config.distill.teacher == "views":
        return images * (config.views.count or -(-seen // images))
    return seen if config.distill.teacher == "live" else 0


def _assumptions(config: RunConfig, device: Device, precision: str, reached: Efficiency) -> tuple[str, ...]:
    views = "as many as there are epochs" if not config.views.count else str(config.views.count)
    heirs = [one.inherit for one in config.distill.each_student() if one.student_from == "teacher"]
    narrowed, shallow = any(one.width < 1 for one in heirs), any(one.depth < 1 for one in heirs)
    return (
        f"rate: the roofline of {device.title}, {device.peak(precision) / 1e12:g} TFLOP/s in {precision}; reached: "
        f"{reached.compute:.0%} of that and {reached.bandwidth:.0%} of {device.bandwidth / 1e12:g} TB/s",
        *(
            ("float32 products are not TF32, which training uses where the device has it",)
            if precision == "fp32"
            else ()
        ),
        "a student's step is three times its forward pass; optimiser, average and loss take no time",
        "loading never waits, and ranks exchange gradients in no time",
        *((f"views of each image, labelled beforehand: {views}",) if config.distill.teacher == "views" else ()),
        *(("channels that pruning takes from a student made from the teacher are counted",) if narrowed else ()),
        *(("residual blocks that such a student leaves out are counted",) if shallow else ()),
    )
