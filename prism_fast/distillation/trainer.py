"""Distillation: a fixed number of steps, interruptible at any of them.

``train_student`` called again on the same directory continues after the last checkpoint. On the CPU the weights are
then bit-equal to those of an undisturbed run.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prism_fast.config import DistillConfig
from prism_fast.data.batch import Batch
from prism_fast.data.loader import Loader, open_loader
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.distillation.average import Average
from prism_fast.distillation.checkpoint import (
    Checkpoint,
    checked,
    load_checkpoint,
    require_shapes,
    rng_state,
    save_checkpoint,
    set_rng_state,
)
from prism_fast.distillation.losses import distillation_loss
from prism_fast.distillation.speed import for_training
from prism_fast.distillation.student import create_student, save_student
from prism_fast.errors import DataError, InputError, RunError
from prism_fast.models.classifier import ClassifierConfig

_log = logging.getLogger(__name__)

LOG_EVERY = 10
# Measured on a toy set with resnet10t and T = 3: norms of 2-3, so that the limit catches outliers only.
CLIP_NORM = 5.0
_SGD_MOMENTUM = 0.9

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Result:
    """A finished distillation. ``model`` is the averaged student (the last one if averaging is off), in eval mode."""

    model: nn.Module
    student: Path
    steps: int
    resumed_from: int
    loss: float
    agreement: float
    images_per_s: float


def learning_rate(step: int, config: DistillConfig) -> float:
    """Rate of the 0-based step: linear warm-up, then half a cosine down to zero.

    Reference: Loshchilov and Hutter 2017, SGDR, equation 5 without restarts; warm-up after Goyal et al. 2017.
    """
    warmup = min(config.warmup_steps, config.steps - 1)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (config.steps - warmup)))


def make_optimizer(model: nn.Module, config: DistillConfig) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov momentum 0.9; norms and biases are not decayed."""
    from timm.optim import param_groups_weight_decay

    plain, decayed = param_groups_weight_decay(model, config.weight_decay)
    groups = [decayed, plain]  # checkpoints know parameters by their place
    fused = True if next(model.parameters()).is_cuda else None
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, fused=fused)
    return torch.optim.SGD(groups, lr=config.lr, momentum=_SGD_MOMENTUM, nesterov=True, fused=fused)


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state that may have been saved on another kind of device; whether it is fused is decided here."""
    pairs = zip(state["param_groups"], optimizer.param_groups, strict=True)
    groups = [{**saved, "fused": own["fused"]} for saved, own in pairs]
    optimizer.load_state_dict({**state, "param_groups": groups})


class Trainer:
    """Model, optimiser and stream at one step of a distillation."""

    def __init__(self, config: DistillConfig, loader: Loader, classes: int, device: torch.device) -> None:
        self.config, self.loader, self.device = config, loader, device
        # On the CPU channels_last is 1.7-2 times faster for grouped and depthwise students and no slower for ResNets.
        model = create_student(config.student, classes, config.image_size).to(device)
        _require_batch(model, config)
        self.model = model.to(memory_format=torch.channels_last).train()
        self.ema = Average(self.model, config.ema_decay)
        self.optimizer = make_optimizer(self.model, config)
        self.step = 0
        self.history: list[dict[str, float]] = []

    def train_step(self, teacher: nn.Module | None) -> Tensor:
        """One update; (loss, agreement with the teacher's top-1, gradient norm, targets that are not finite).

        All still on the device, which nobody waits for.
        """
        batch = next(self.loader)
        rate = learning_rate(self.step, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        images = batch.images.contiguous(memory_format=torch.channels_last)
        half = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16) if half else nullcontext():
            target = _targets(batch, images, teacher)
            logits = self.model(images)
        loss = distillation_loss(logits, target, batch.labels, self.config)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        self.optimizer.step()
        self.step += 1
        self.ema.update(self.step)
        agreement = (logits.argmax(1) == target.argmax(1)).float().mean()
        broken = (~target.isfinite().all(1)).sum().float()
        return torch.stack([loss.detach(), agreement, norm, broken])

    def checkpoint(self, identity: dict[str, Any]) -> Checkpoint:
        """The state after the current step."""
        return Checkpoint(
            step=self.step,
            identity=identity,
            model=self.model.state_dict(),
            ema=self.ema.module.state_dict(),
            optimizer=self.optimizer.state_dict(),
            loader=self.loader.state_dict(),
            rng=rng_state(self.device),
            history=self.history,
        )

    def restore(self, saved: Checkpoint) -> None:
        """Continue from a checkpoint."""
        self.model.load_state_dict(saved.model)
        self.ema.module.load_state_dict(saved.ema)
        restore_optimizer(self.optimizer, saved.optimizer)
        require_shapes(self.optimizer)
        self.loader.load_state_dict(saved.loader)
        set_rng_state(saved.rng, self.device)
        self.step, self.history = saved.step, list(saved.history)


def _require_batch(model: nn.Module, config: DistillConfig) -> None:
    norms = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    if config.batch_size == 1 and norms:
        raise InputError(
            f"distill.batch_size is 1, but {config.student} normalises over the batch; set distill.batch_size to at "
            "least 2, or choose a student without batch normalisation"
        )


def _targets(batch: Batch, images: Tensor, teacher: nn.Module | None) -> Tensor:
    if teacher is None:
        return batch.logits
    with torch.no_grad():
        target: Tensor = teacher(images)
    if target.shape != batch.logits.shape:
        raise DataError(f"the live teacher gives {[*target.shape]} logits, the shards hold {[*batch.logits.shape]}")
    return target


def _identity(config: DistillConfig, shards: ShardSet, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    # What was selected is a part of the digest.
    recipe = config.model_dump(mode="json", exclude={"checkpoint_every", "selection"})
    return {**recipe, "mean": list(mean), "std": list(std), "shards": shards.digest()}


def _resume(trainer: Trainer, path: Path, identity: dict[str, Any]) -> None:
    if not path.exists():
        return
    saved = load_checkpoint(path)
    differing = [key for key in identity if saved.identity.get(key) != identity[key]]
    if differing:
        key = differing[0]
        raise InputError(
            f"{path} was written with {key} = {saved.identity.get(key)!r}, this run has {identity[key]!r}; "
            "use another directory or delete it"
        )
    with checked(path):
        trainer.restore(saved)
    _log.info("resumed %s at step %d", path.parent, trainer.step)


def train_student(
    config: DistillConfig,
    shards: ShardSet,
    out: Path,
    *,
    teacher: nn.Module | None = None,
    mean: Sequence[float],
    std: Sequence[float],
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
    label_names: tuple[str, ...] | None = None,
) -> Result:
    """Train a student on the shards, or continue where an earlier call stopped.

    Writes ``checkpoint.pt``, ``tensorboard/``, and at the end ``student/config.json``, ``student/model.safetensors``
    and ``student/history.json`` under ``out``. ``teacher`` is needed for ``config.teacher == "live"`` only; it gets the
    student's augmented pictures, normalised by ``mean`` and ``std``, and is used as it is: on ``device``, in eval mode.
    ``progress(step, steps, loss)`` is called every few steps. ``label_names`` are written beside the student, in order
    of their labels. The global random state of torch is left as found.

    Raises:
        InputError: unknown student, or one that does not take such pictures or batches; a loader that cannot run, no
            live teacher, a checkpoint of another recipe.
        DataError: shards or a checkpoint that cannot be read, or a teacher of another class count.
        RunError: the loss is not finite, or the disk refused.
    """
    if (config.teacher == "live") != (teacher is not None):
        given = "none was given" if teacher is None else "one was given"
        raise InputError(f"distill.teacher is {config.teacher!r} and a teacher network: {given}")
    target = torch.device(device)
    _make_directory(out)
    loader = open_loader(shards, config, target, mean, std)
    try:
        with for_training(target), torch.random.fork_rng(devices=[target] if target.type == "cuda" else []):
            torch.manual_seed(config.seed)
            trainer = Trainer(config, loader, shards.classes, target)
            identity = _identity(config, shards, mean, std)
            _resume(trainer, out / "checkpoint.pt", identity)
            start, began = trainer.step, time.perf_counter()
            _run(trainer, teacher, out, identity, progress or (lambda step, steps, loss: None))
    finally:
        loader.close()
    seconds = max(time.perf_counter() - began, 1e-9)
    info = ClassifierConfig(
        architecture=config.student,
        num_classes=shards.classes,
        image_size=config.image_size,
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        label_names=label_names,
    )
    averaged = trainer.ema.module
    save_student(out / "student", averaged, info, trainer.history)
    last = trainer.history[-1]
    return Result(
        model=averaged,
        student=out / "student",
        steps=trainer.step,
        resumed_from=start,
        loss=last["loss"],
        agreement=last["agreement"],
        images_per_s=(trainer.step - start) * config.batch_size / seconds,
    )


def _make_directory(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror or error}") from error


def _run(trainer: Trainer, teacher: nn.Module | None, out: Path, identity: dict[str, Any], progress: Progress) -> None:
    config = trainer.config
    writer = _scalar_writer(out / "tensorboard", trainer.step)
    window: list[Tensor] = []
    try:
        while trainer.step < config.steps:
            window.append(trainer.train_step(teacher))
            step = trainer.step
            saving = step % config.checkpoint_every == 0 or step == config.steps
            if saving or step % LOG_EVERY == 0:
                _record(trainer, window, writer)
                window.clear()
                progress(step, config.steps, trainer.history[-1]["loss"])
            if saving:
                save_checkpoint(out / "checkpoint.pt", trainer.checkpoint(identity))
    finally:
        writer.close()


def _record(trainer: Trainer, window: list[Tensor], writer: Any) -> None:
    """Means since the last record, to the history and to TensorBoard; the only place that waits for the device."""
    loss, agreement, norm, broken = torch.stack(window).mean(0).tolist()
    if not math.isfinite(loss + norm):
        raise RunError(_why_not_finite(trainer, len(window), loss, norm, round(broken * len(window))))
    row = {"loss": loss, "lr": learning_rate(trainer.step - 1, trainer.config), "agreement": agreement, "norm": norm}
    trainer.history.append({"step": trainer.step, **row})
    for name, value in row.items():
        writer.add_scalar(f"distill/{name}", value, trainer.step)


def _why_not_finite(trainer: Trainer, steps: int, loss: float, norm: float, broken: int) -> str:
    config, where = trainer.config, f"steps {trainer.step - steps + 1}-{trainer.step}"
    if broken:
        found = f"{broken} of {steps * config.batch_size} targets in {where}"
        if config.teacher == "live":
            return f"the live teacher gives logits that are not finite: {found}; look at its weights and its precision"
        return (
            f"the shards hold logits that are not finite: {found}; their teacher was not finite on these images: make "
            "the run again with one that is, in float32"
        )
    # Seen: oneDNN's bfloat16 weight gradient of a 3x3 convolution over a 1x1 map reads uninitialised memory.
    hint = " or set distill.precision=float32" if config.precision == "bfloat16" else ""
    return f"loss is {loss}, gradient norm {norm} in {where}; lower distill.lr (now {config.lr}){hint}"


def _scalar_writer(directory: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(f"TensorBoard is not installed (pip install tensorboard): {error}") from error
    return SummaryWriter(str(directory), purge_step=step + 1 if step else None)
