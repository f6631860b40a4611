"""What is kept and shown of a training: rows of numbers, in memory, in TensorBoard, and to whoever watches."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prism_fast.config import DistillConfig
from prism_fast.distillation.learner import Learner
from prism_fast.distillation.optimizer import learning_rate
from prism_fast.errors import InputError, RunError

#: Pictures shown of a batch.
_SHOWN = 16


class Board:
    """One student's TensorBoard directory, of which what comes after ``step`` is dropped.

    Raises:
        InputError: TensorBoard is not installed.
    """

    def __init__(self, directory: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(f"TensorBoard is not installed (pip install tensorboard): {error}") from error
        self._writer: Any = SummaryWriter(str(directory), purge_step=step + 1 if step else None)

    def numbers(self, row: dict[str, float]) -> None:
        """A row of the history."""
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(f"distill/{name}", value, int(row["step"]))

    def pictures(self, images: Tensor, step: int) -> None:
        """Some pictures in [0, 1] as the student sees them, (n, 3, s, s)."""
        self._writer.add_images("distill/pictures", images[:_SHOWN].float().clamp(0, 1).cpu(), step)

    def close(self) -> None:
        """Write what is not yet written."""
        self._writer.close()


def record(learner: Learner, window: list[Tensor]) -> dict[str, float]:
    """Means of a window of steps over all ranks, appended to the history: the only place that waits for the device.

    Raises:
        RunError: the loss or the gradient is not finite.
    """
    found = learner.world.mean(torch.stack(window).mean(0)).tolist()
    loss, agreement, norm, broken = found
    overflowing = learner.scaler.is_enabled()  # a step of infinite norm was left out, the next has a smaller scale
    if not math.isfinite(loss) or not (math.isfinite(norm) or overflowing):
        raise RunError(_why_not_finite(learner, len(window), loss, norm, round(broken * len(window))))
    row = {
        "step": learner.step,
        "loss": loss,
        "lr": learning_rate(learner.step - 1, learner.recipe),
        "agreement": agreement,
        "norm": norm if math.isfinite(norm) else 0.0,
    }
    learner.history.append(row)
    return row


def _why_not_finite(learner: Learner, steps: int, loss: float, norm: float, broken: int) -> str:
    config, where = learner.recipe, f"steps {learner.step - steps + 1}-{learner.step}"
    if broken:
        found = f"{broken} of {steps * config.batch_size // learner.world.ranks} targets in {where}"
        if config.teacher == "live":
            return f"the live teacher gives logits that are not finite: {found}; look at its weights and its precision"
        return (
            f"the shards hold logits that are not finite: {found}; their teacher was not finite on these images: make "
            "the run again with one that is, in float32"
        )
    # Seen: oneDNN's bfloat16 weight gradient of a 3x3 convolution over a 1x1 map reads uninitialised memory.
    hint = "" if config.precision == "float32" else " or set distill.precision=float32"
    return f"loss is {loss}, gradient norm {norm} in {where}; lower distill.lr (now {config.lr}){hint}"


def best_step(history: list[dict[str, float]]) -> int | None:
    """The step whose student was nearest to the teacher on what is held out; None before the first look."""
    looked = [row for row in history if "held_out_divergence" in row]
    return int(min(looked, key=lambda row: row["held_out_divergence"])["step"]) if looked else None


def exhausted(history: list[dict[str, float]], config: DistillConfig) -> bool:
    """Whether as many looks as ``validation.patience`` found nothing better than before."""
    looked = [int(row["step"]) for row in history if "held_out_divergence" in row]
    patience, best = config.validation.patience, best_step(history)
    return patience is not None and best is not None and len([step for step in looked if step > best]) >= patience
