"""A student in training: weights, their average, optimiser, loss and history, at one step of its recipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from prism_fast.config import DistillConfig
from prism_fast.distillation.average import Average
from prism_fast.distillation.checkpoint import Checkpoint
from prism_fast.distillation.losses import DistillationLoss
from prism_fast.distillation.losses.features import Featured
from prism_fast.distillation.optimizer import learning_rate, make_optimizer, restore_optimizer, set_rate
from prism_fast.distillation.outputs import Labels, Outputs
from prism_fast.distillation.parallel import World, without_exchange
from prism_fast.errors import InputError
from prism_fast.models.classifier import ClassifierConfig
from prism_fast.models.resize import resized

_Whole = TypeVar("_Whole", Labels, Outputs)


@dataclass(frozen=True)
class Seen:
    """What a student is shown at a step, and what the teacher says of it."""

    images: Tensor
    labels: Labels
    teacher: Outputs

    def parts(self, count: int) -> Iterator[Seen]:
        """The same in ``count`` equal parts."""
        size = len(self.images) // count
        for start in range(0, size * count, size):
            rows = slice(start, start + size)
            yield Seen(self.images[rows], _rows(self.labels, rows), _rows(self.teacher, rows))


def _rows(whole: _Whole, rows: slice) -> _Whole:
    cut: dict[str, Any] = {}
    for field in fields(whole):
        held = getattr(whole, field.name)
        cut[field.name] = (
            tuple(x[rows] for x in held) if isinstance(held, tuple) else None if held is None else held[rows]
        )
    return replace(whole, **cut)


class _Lesson(nn.Module):
    """Student and loss as one module, so that whatever of it learns is exchanged between ranks."""

    def __init__(self, student: nn.Module, loss: DistillationLoss) -> None:
        super().__init__()
        self.student, self.loss = student, loss

    def forward(
        self, images: Tensor, labels: Labels, teacher: Outputs, half: torch.dtype | None
    ) -> tuple[Tensor, Tensor]:
        """The loss, and the student's logits; the network alone computes in half precision."""
        with torch.autocast(images.device.type, half) if half else nullcontext():
            outputs: Outputs = self.student(images)
        return self.loss(outputs, teacher, labels), outputs.logits


class Learner:
    """One student, its optimiser and its place in the recipe.

    Attributes:
        net: the student, in training mode; what is saved.
        info: what its pictures look like and how it is built.
        average: the moving average of its weights.
        step: updates so far.
        history: a row a record: step, loss, learning rate and so on.
    """

    def __init__(
        self,
        name: str,
        recipe: DistillConfig,
        net: nn.Module,
        info: ClassifierConfig,
        loss: DistillationLoss,
        world: World,
    ) -> None:
        self.name, self.recipe, self.info, self.world = name, recipe, info, world
        self.net = net.to(world.device).to(memory_format=torch.channels_last).train()
        if recipe.student_from == "teacher" and recipe.inherit.statistics == "teacher":
            hold_statistics(self.net)
        _require_batch(self.net, recipe, world)
        if recipe.checkpoint_activations:
            _checkpoint_activations(self.net, recipe)
        self.loss = loss.to(world.device)
        self.average = Average(self.net, recipe.ema_decay)
        self.optimizer = make_optimizer(self.net, recipe, self.loss.parameters())
        featured: nn.Module = Featured(self.net, self.loss.wants_maps)
        featured = torch.compile(featured) if recipe.compile else featured  # type: ignore[assignment]
        self.lesson = world.share(_Lesson(featured, self.loss), recipe.sync_batch_norm)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=recipe.precision == "float16")
        self.step = 0
        self.history: list[dict[str, float]] = []

    def train_step(self, seen: Seen) -> Tensor:
        """One update; (loss, agreement with the teacher's top-1, gradient norm, targets that are not finite).

        All still on the device, which nobody waits for.
        """
        seen = replace(seen, images=resized(seen.images, self.recipe.image_size, self.recipe.image_size))
        set_rate(self.optimizer, learning_rate(self.step, self.recipe))
        _seed(self.world, self.recipe.seed, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss, logits = self._backward(seen)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_([*self.net.parameters(), *self.loss.parameters()], self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        self.average.update(self.step)
        agreement = (logits.argmax(1) == seen.teacher.logits.argmax(1)).float().mean()
        broken = (~seen.teacher.logits.isfinite().all(1)).sum().float()
        return torch.stack([loss, agreement, norm, broken])

    def _backward(self, seen: Seen) -> tuple[Tensor, Tensor]:
        count, half = self.recipe.accumulate, half_of(self.recipe)
        losses, logits = [], []
        for number, part in enumerate(seen.parts(count), start=1):
            with without_exchange(self.lesson) if number < count else nullcontext():
                loss, found = self.lesson(part.images, part.labels, part.teacher, half)
                self.scaler.scale(loss / count).backward()
            losses.append(loss.detach())
            logits.append(found.detach())
        return torch.stack(losses).mean(), torch.cat(logits)

    def checkpoint(self, identity: dict[str, Any], loader: dict[str, Any]) -> Checkpoint:
        """The state after the current step."""
        return Checkpoint(
            step=self.step,
            identity=identity,
            model=self.net.state_dict(),
            ema=self.average.module.state_dict(),
            optimizer=self.optimizer.state_dict(),
            loss=self.loss.state_dict(),
            scaler=self.scaler.state_dict(),
            loader=loader,
            history=self.history,
        )

    def restore(self, saved: Checkpoint) -> None:
        """Continue from a checkpoint.

        Raises:
            RuntimeError, ValueError: it is another student's.
        """
        self.net.load_state_dict(saved.model)
        self.average.module.load_state_dict(saved.ema)
        self.loss.load_state_dict(saved.loss)
        restore_optimizer(self.optimizer, saved.optimizer)
        self.scaler.load_state_dict(saved.scaler)
        self.step, self.history = saved.step, list(saved.history)


def hold_statistics(net: nn.Module) -> None:
    """Batch norms that were the teacher's go on normalising by what they know; what was put between its parts does not.

    Their scales and shifts learn.
    """
    for path, module in net.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not path.startswith("projection."):
            module.eval()


def half_of(recipe: DistillConfig) -> torch.dtype | None:
    """What networks compute in under autocast; None: float32, without."""
    return None if recipe.precision == "float32" else getattr(torch, recipe.precision)


def _seed(world: World, seed: int, step: int) -> None:
    """What layers such as dropout draw is a function of seed, step and rank: no state to save, none to restore."""
    word = int(np.random.SeedSequence([seed, step, world.rank]).generate_state(1, np.uint64)[0])
    torch.default_generator.manual_seed(word % 2**63)
    if world.device.type == "cuda" and torch.cuda.is_available():
        torch.cuda.default_generators[world.device.index or 0].manual_seed(word % 2**63)


def _require_batch(model: nn.Module, recipe: DistillConfig, world: World) -> None:
    rows = recipe.batch_size // world.ranks
    if rows % recipe.accumulate or not rows:
        raise InputError(
            f"a rank's batch of {rows} cannot be cut into distill.accumulate = {recipe.accumulate} equal parts"
        )
    norms = any(isinstance(one, nn.modules.batchnorm._BatchNorm) and one.training for one in model.modules())
    if rows // recipe.accumulate == 1 and norms:
        raise InputError(
            f"distill.batch_size is {recipe.batch_size}, a single picture at a time, but {recipe.student} normalises "
            "over the batch; raise distill.batch_size, or choose a student without batch normalisation"
        )


def _checkpoint_activations(model: nn.Module, recipe: DistillConfig) -> None:
    switch = getattr(model, "set_grad_checkpointing", None)
    try:
        if switch is None:
            raise AttributeError
        switch(True)
    except (AttributeError, AssertionError) as error:
        raise InputError(f"distill.checkpoint_activations: {recipe.student} cannot; set it to false") from error
