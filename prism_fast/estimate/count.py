"""Count what each part of a run computes and moves: torch's FlopCounterMode on the meta device.

Everything is counted in float32 and scaled to other precisions afterwards.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from prism_fast.compile.parts import Parts
from prism_fast.config import DistillConfig
from prism_fast.distillation.inherit.make import outlined
from prism_fast.distillation.student import create_student
from prism_fast.guidance.network import ImageClassifier, StaticLatentClassifier
from prism_fast.models.classifier import Classifier
from prism_fast.models.diffusers_blocks import DeepUNet, ShallowUNet, WholeUNet
from prism_fast.models.text import TextHidden, TextPenultimate
from prism_fast.synthesis.synthesizer import Synthesizer

Call = Callable[[], Any]


@dataclass(frozen=True)
class PartCost:
    """One part. ``calls`` are those of a batch; the other numbers are of one call, bytes as if float32.

    ``moved_bytes``: what matrix products, convolutions and attention read and write; everything between them is taken
    for fused into them. ``activation_bytes``: the most that is alive at once, without any fusion.
    """

    part: str
    calls: int
    flops: int
    moved_bytes: int
    weight_bytes: int
    activation_bytes: int


@dataclass(frozen=True)
class LessonCost:
    """A step of a distillation: each student's three passes, of which the backward one is two, and a teacher's one.

    ``teacher`` is None where the teacher sees no view: its stored logits are the targets.
    """

    students: tuple[PartCost, ...]
    teacher: PartCost | None


@dataclass(frozen=True)
class RunCost:
    """All parts of a run; ``weight_bytes`` counts weights that parts share once, as if float32."""

    batch_size: int
    classes: int
    parts: tuple[PartCost, ...]
    weight_bytes: int
    lesson: LessonCost | None = None


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, torch.Tensor)]


def _size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


class _Traffic(TorchDispatchMode):
    """Bytes of the operators that FLOPs are counted of, and the peak of what is alive."""

    def __init__(self, kept: list[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.moved = self.live = self.peak = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in kept}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = _tensors(out)
        if func.overloadpacket in flop_registry:
            self.moved += sum(_size(tensor) for tensor in (*_tensors((args, kwargs)), *made))
        for tensor in made:
            self._hold(tensor.untyped_storage())
        return out

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


class _FlashAttention(TorchFunctionMode):
    """On the meta device attention would be two products around a matrix of all scores, which no GPU stores."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            fused = _flash(*args, **(kwargs or {}))
            if fused is not None:
                return fused
        return func(*args, **(kwargs or {}))


def _flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    if attn_mask is not None or enable_gqa:
        return None
    return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, scale=scale)[0]


def count_call(name: str, calls: int, module: nn.Module, call: Call) -> PartCost:
    """Count one call of a part."""
    weights = [*module.parameters(), *module.buffers()]
    with _FlashAttention(), FlopCounterMode(display=False) as flops, _Traffic(weights) as traffic:
        call()
    size = sum(_size(weight) for weight in weights)
    return PartCost(name, calls, flops.get_total_flops(), traffic.moved, size, traffic.peak)


class _Shapes:
    """Inputs of every part, as :class:`Parts` shapes them."""

    def __init__(self, synthesizer: Synthesizer) -> None:
        self.synthesizer, self.parts = synthesizer, Parts(synthesizer)

    @staticmethod
    def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device="meta")

    def tokens(self) -> tuple[torch.Tensor, ...]:
        ids = self.zeros(self.parts.batch, self.parts.tokens, dtype=torch.int64)
        return ids, torch.ones_like(ids)

    def unet(self) -> tuple[torch.Tensor, ...]:
        rows, model = self.parts.unet_rows, self.synthesizer.model
        unet: Any = model.unet
        text = self.zeros(rows, self.parts.tokens, unet.config.cross_attention_dim)
        more: tuple[torch.Tensor, ...] = ()
        if model.text_encoder_2 is not None:
            second: Any = model.text_encoder_2
            more = (self.zeros(rows, second.config.projection_dim), self.zeros(rows, 6))
        return self.zeros(rows, *self.parts.latent), self.zeros(rows, dtype=torch.int64), text, *more

    def latents(self, rows: int) -> torch.Tensor:
        return self.zeros(rows, *self.parts.latent)

    def images(self) -> torch.Tensor:
        return self.zeros(self.parts.batch, 3, *self.synthesizer.config.stored_size)

    def views(self) -> tuple[torch.Tensor, torch.Tensor]:
        (height, width), size = self.synthesizer.sampler.image_size, self.synthesizer.view_size
        rows = self.parts.gradient_batch
        return self.zeros(rows, 1, size, height), self.zeros(rows, 1, size, width)


def _text(synthesizer: Synthesizer, shapes: _Shapes) -> dict[str, tuple[nn.Module, Call]]:
    model, tokens = synthesizer.model, shapes.tokens()
    first = TextPenultimate(model.text_encoder) if model.text_encoder_2 else TextHidden(model.text_encoder)
    first.masked = False  # a mask's values are looked at, and the meta device has none; it costs nothing
    found: dict[str, tuple[nn.Module, Call]] = {"text_encoder": (first, lambda: first(*tokens))}
    if model.text_encoder_2 is not None:
        second = TextPenultimate(model.text_encoder_2)
        found["text_encoder_2"] = (second, lambda: second(*tokens))
    return found


def _unets(synthesizer: Synthesizer, shapes: _Shapes) -> dict[str, tuple[nn.Module, Call]]:
    inputs = shapes.unet()
    whole, deep, shallow = (
        WholeUNet(synthesizer.model.unet),
        DeepUNet(synthesizer.model.unet),
        ShallowUNet(synthesizer.model.unet),
    )
    if synthesizer.config.sampling.reuse_every == 1:
        return {"unet": (whole, lambda: whole(*inputs))}
    with torch.no_grad():
        feature = deep(*inputs)[1]
    return {
        "unet_deep": (deep, lambda: deep(*inputs)),
        "unet_shallow": (shallow, lambda: shallow(*inputs, feature)),
    }


def _gradient(synthesizer: Synthesizer, shapes: _Shapes) -> tuple[nn.Module, Call]:
    module = StaticLatentClassifier(synthesizer.gradient_decoder, synthesizer.teacher).eval().requires_grad_(False)
    views = shapes.views()

    def gradient() -> None:
        latents = shapes.latents(shapes.parts.gradient_batch).requires_grad_()
        with torch.enable_grad():
            module(latents, *views).sum().backward()  # FlopCounterMode's hooks do not stand autograd.grad

    return module, gradient


def _modules(synthesizer: Synthesizer, shapes: _Shapes) -> dict[str, tuple[nn.Module, Call]]:
    decoder, teacher = synthesizer.decoder, ImageClassifier(synthesizer.teacher, synthesizer.config.stored_size)
    guided = {"energy_gradient": _gradient(synthesizer, shapes)} if synthesizer.config.guidance.enabled else {}
    return {
        **_text(synthesizer, shapes),
        **_unets(synthesizer, shapes),
        **guided,
        "decoder": (decoder, lambda: decoder(shapes.latents(shapes.parts.decoder_batch))),
        "teacher": (teacher, lambda: teacher(shapes.images())),
    }


def count_lesson(config: DistillConfig, teacher: Classifier) -> LessonCost:
    """Count a distillation's students, and what a teacher on the meta device does for them.

    A student that inherits is counted at its own depth and size, but with all of the teacher's channels.

    Raises:
        InputError: timm knows no such student, or it does not take such pictures.
    """

    def passes(name: str, calls: int, net: nn.Module, size: int) -> PartCost:
        images = torch.zeros(config.batch_size, 3, size, size, device="meta")
        return count_call(name, calls, net, lambda: net(images))

    students, classes = list[PartCost](), teacher.config.num_classes
    with torch.no_grad():
        for recipe in config.each_student():
            if recipe.student_from == "teacher":
                cut = outlined(recipe, teacher).eval()
                students.append(passes("student made from the teacher", 3, cut, recipe.image_size))
                continue
            with torch.device("meta"):
                net = create_student(recipe.student, classes, recipe.image_size)
            students.append(passes(recipe.student, 3, net.eval(), recipe.image_size))
        own = passes("teacher", 1, teacher.net, teacher.config.image_size) if config.teacher != "stored" else None
    return LessonCost(tuple(students), own)


def count_run(synthesizer: Synthesizer) -> RunCost:
    """Count every part of a run that :func:`prism_fast.estimate.outline.outline_run` gave."""
    shapes = _Shapes(synthesizer)
    modules = _modules(synthesizer, shapes)
    with torch.no_grad():
        parts = tuple(count_call(name, shapes.parts.calls(name), *pair) for name, pair in modules.items())
    weights = {id(w): _size(w) for module, _ in modules.values() for w in (*module.parameters(), *module.buffers())}
    return RunCost(
        synthesizer.config.sampling.fixed_batch_size,
        synthesizer.teacher.config.num_classes,
        parts,
        sum(weights.values()),
        count_lesson(synthesizer.config.distill, synthesizer.teacher),
    )
