"""The parts of a run that engines can run, each with its oracle, its graph and what identifies it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import timm
import torch
import transformers
from prism_engines.backends.base import Backend
from prism_engines.backends.eager import EagerEngine, EagerGradientEngine, EnergyAndCotangent, InChunks
from prism_engines.base import Engine
from prism_engines.graph import Graph, graph_hash, weights_hash
from prism_engines.lowerings import LOWERINGS
from prism_engines.spec import TORCH_DTYPES, EngineKey, EngineSpec, Precision, TensorSpec, inputs_json
from prism_engines.vjp import trace, trace_value_and_gradient
from prism_kernels import view_matrices
from torch import nn

from prism_fast.errors import InputError
from prism_fast.guidance.network import ImageClassifier, StaticLatentClassifier, dtype_of, energy_of
from prism_fast.models.diffusers_blocks import DeepUNet, ShallowUNet, WholeUNet
from prism_fast.models.diffusion import LatentDecoder, LightDecoder
from prism_fast.models.text import TextHidden, TextPenultimate
from prism_fast.sampling.noise import initial_latents
from prism_fast.synthesis.synthesizer import Synthesizer

#: A cotangent below it is as good as none; float32 holds it with all its digits.
SMALLEST_COTANGENT = 1e-30

Inputs = tuple[torch.Tensor, ...]
Trace = Callable[[Precision, Inputs], nn.Module]


@dataclass(frozen=True)
class Part:
    """One computation: its eager oracle, how to trace it, and the hashes of its graph and weights.

    ``graph_in_fp16`` is the hash of its graph in fp16, where that is not the same graph in another type.
    """

    spec: EngineSpec
    oracle: Engine
    trace: Trace
    graph: str
    weights: str
    random: Callable[[int], Inputs]
    graph_in_fp16: str | None = None

    def key(self, backend: Backend, precision: Precision) -> EngineKey:
        """What an engine of this part by ``backend`` is called."""
        return EngineKey(
            part=self.spec.part,
            graph=self.graph_in_fp16 if precision == "fp16" and self.graph_in_fp16 else self.graph,
            weights=self.weights,
            inputs=inputs_json(self.spec),
            precision=precision,
            backend=backend.name,
            backend_version=backend.version(),
            target=backend.target(self.spec.device),
        )

    def at(self, precision: Precision) -> EngineSpec:
        """The spec in another precision."""
        return replace(self.spec, precision=precision)

    def make_graph(self, scratch: Path) -> Graph:
        """The part for backends to build from."""
        inputs = self.random(0)
        return Graph(self.spec, lambda precision: self.trace(precision, inputs), inputs, scratch)


class InPrecision(nn.Module):
    """A module computing in another type; floating inputs and outputs stay float32."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        same = next(module.parameters()).dtype == dtype
        self.module, self.dtype = module if same else copy.deepcopy(module).to(dtype), dtype

    def forward(self, *inputs: torch.Tensor) -> Any:
        """The module's output, float32, a tuple where the module gives one."""
        out = self.module(*(x.to(self.dtype) if x.is_floating_point() else x for x in inputs))
        return tuple(x.float() for x in out) if isinstance(out, tuple) else out.float()


class InTuple(nn.Module):
    """A module that always gives a tuple: backends count outputs, and the rows of a lone tensor look like several."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The module's outputs."""
        out = self.module(*inputs)
        return out if isinstance(out, tuple) else (out,)


class Parts:
    """Every part of a loaded run, made on demand.

    Raises:
        InputError: the run's weights are not float32.
    """

    def __init__(self, synthesizer: Synthesizer, lowerings: Any = LOWERINGS) -> None:
        self.synthesizer, self.lowerings = synthesizer, lowerings
        config, model = synthesizer.config, synthesizer.model
        if dtype_of(model.unet) != torch.float32:
            raise InputError(
                f"the run's weights are {str(dtype_of(model.unet)).removeprefix('torch.')}, but engines are made from, "
                "and judged by, float32; load the run with engines.backend or sampling.dtype float32"
            )
        self.batch, self.latent = config.sampling.fixed_batch_size, synthesizer.sampler.latent_shape
        self.gradient_batch = config.engines.gradient_batch or self.batch
        self.decoder_batch = min(config.engines.decoder_batch or self.batch, self.batch)
        self.tokens = model.tokenizer.model_max_length
        # With classifier-free guidance at every step its branches share a batch; else they are two runs of one engine,
        # and a step without it is one.
        always = all(step.both for step in synthesizer.sampler.savings)
        self.unet_rows = 2 * self.batch if always else self.batch
        self._made: dict[str, Part] = {}

    def names(self) -> tuple[str, ...]:
        """Parts in the order in which a sample meets them."""
        return tuple(self._makers())

    def get(self, name: str) -> Part:
        """The part called ``name``."""
        if name not in self._made:  # hashing the weights of a large UNet takes seconds
            self._made[name] = self._makers()[name]()
        return self._made[name]

    def _makers(self) -> dict[str, Callable[[], Part]]:
        second = {"text_encoder_2": self._text_encoder_2} if self.synthesizer.engines.text_encoder_2 else {}
        return {
            "text_encoder": self._text_encoder,
            **second,
            "unet": lambda: self._unet("unet", WholeUNet(self.synthesizer.model.unet), ("prediction",)),
            "unet_deep": lambda: self._unet(
                "unet_deep", DeepUNet(self.synthesizer.model.unet), ("prediction", "feature")
            ),
            "unet_shallow": self._unet_shallow,
            "decoder": self._decoder,
            "energy_gradient": self._energy_gradient,
            "teacher": self._teacher,
        }

    def wanted(self) -> tuple[str, ...]:
        """The parts that the configuration names, as far as the run computes them.

        Raises:
            InputError: it names one that the model does not have.
        """
        config = self.synthesizer.config
        if unknown := [p for p in config.engines.parts if p not in self.names()]:
            raise InputError(f"engines.parts names {unknown[0]}, which this model does not have; leave it out")
        halves = ("unet_deep", "unet_shallow") if config.sampling.reuse_every > 1 else ("unet",)
        named = (part for p in config.engines.parts for part in (halves if p == "unet" else (p,)))
        return tuple(p for p in named if p != "energy_gradient" or config.guidance.enabled)

    def calls(self, name: str) -> int:
        """How often a run computes a part for a batch of samples, at most: prompts repeat, and samples may settle."""
        steps = self.synthesizer.sampler.savings
        if name == "energy_gradient":
            return sum(step.gradient == "fresh" for step in steps) * -(-self.batch // self.gradient_batch)
        if name == "decoder":
            return -(-self.batch // self.decoder_batch)
        if not name.startswith("unet"):
            return 1
        own = [step for step in steps if step.network == (name.removeprefix("unet_") if "_" in name else "whole")]
        return sum(2 if step.both and self.unet_rows == self.batch else 1 for step in own)

    def _forward_part(
        self,
        name: str,
        module: nn.Module,
        inputs: Inputs,
        names: tuple[str, ...],
        outputs: tuple[str, ...],
        settings: str,
        random: Callable[[int], Inputs] | None = None,
    ) -> Part:
        module = module.eval().requires_grad_(False)

        def in_precision(precision: Precision, _: Inputs) -> nn.Module:
            return InTuple(InPrecision(module, TORCH_DTYPES[precision]))

        return Part(
            spec=_spec(name, inputs, names, outputs),
            oracle=EagerEngine(module, name),
            trace=in_precision,
            graph=graph_hash(module, settings, *_VERSIONS),
            weights=weights_hash(module),
            random=random or (lambda seed: _like(inputs, seed)),
        )

    def _unet_inputs(self) -> Inputs:
        rows = self.unet_rows
        conditions = self.synthesizer.conditions([""] * rows)
        z = torch.zeros(rows, *self.latent, device=self.synthesizer.device)
        return z, torch.zeros(rows, dtype=torch.int64, device=z.device), *(x.contiguous() for x in conditions)

    def _random_unet(self, like: Inputs) -> Callable[[int], Inputs]:
        def random(seed: int) -> Inputs:
            z, t, *rest = _like(like, seed)
            generator = torch.Generator().manual_seed(seed)
            return z, torch.randint(1, 1000, t.shape, generator=generator).to(t.device), *rest

        return random

    def _unet_names(self, inputs: Inputs) -> tuple[str, ...]:
        return ("z", "t", "text", "pooled", "time_ids")[: len(inputs)]

    def _unet(self, name: str, module: nn.Module, outputs: tuple[str, ...]) -> Part:
        inputs = self._unet_inputs()
        names, settings = self._unet_names(inputs), _settings(self.synthesizer.model.unet)
        return self._forward_part(name, module, inputs, names, outputs, settings, self._random_unet(inputs))

    def _unet_shallow(self) -> Part:
        unet, inputs = self.synthesizer.model.unet, self._unet_inputs()
        with torch.no_grad():
            feature = DeepUNet(unet)(*(x[:1] for x in inputs))[1]
        names = (*self._unet_names(inputs), "feature")
        inputs = (*inputs, feature.new_zeros(len(inputs[0]), *feature.shape[1:]))
        module, random = ShallowUNet(unet), self._random_unet(inputs)
        return self._forward_part("unet_shallow", module, inputs, names, ("prediction",), _settings(unet), random)

    def _text_encoder(self) -> Part:
        second = self.synthesizer.engines.text_encoder_2 is not None
        encoder = self.synthesizer.model.text_encoder
        return self._text("text_encoder", TextPenultimate(encoder) if second else TextHidden(encoder), second)

    def _text_encoder_2(self) -> Part:
        assert self.synthesizer.model.text_encoder_2 is not None
        return self._text("text_encoder_2", TextPenultimate(self.synthesizer.model.text_encoder_2), True)

    def _text(self, name: str, module: nn.Module, pooled: bool) -> Part:
        shape, device = (self.batch, self.tokens), self.synthesizer.device
        zeros = torch.zeros(shape, dtype=torch.int64, device=device)
        encoder: Any = module.encoder
        inputs, words = (zeros, torch.ones_like(zeros)), int(encoder.config.vocab_size)

        def random(seed: int) -> Inputs:
            generator = torch.Generator().manual_seed(seed)
            return torch.randint(0, words, shape, generator=generator).to(device), inputs[1]

        outputs = ("hidden", "pooled") if pooled else ("hidden",)
        return self._forward_part(name, module, inputs, ("tokens", "mask"), outputs, _settings(encoder), random)

    def _decoder(self) -> Part:
        inputs = (torch.zeros(self.decoder_batch, *self.latent, device=self.synthesizer.device),)
        decoder = self.synthesizer.decoder
        part = self._forward_part("decoder", decoder, inputs, ("latents",), ("images",), _decoding(decoder))
        return replace(part, oracle=InChunks(part.oracle, self.decoder_batch))  # the gate's real inputs are a batch

    def _teacher(self) -> Part:
        size, teacher = self.synthesizer.config.stored_size, self.synthesizer.teacher
        module = ImageClassifier(teacher, size)
        shape, device = (self.batch, 3, *size), self.synthesizer.device

        def random(seed: int) -> Inputs:
            return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)).to(device),)

        settings = teacher.config.model_dump_json()
        return self._forward_part("teacher", module, random(0), ("images",), ("logits",), settings, random)

    def _gradient_inputs(self, seed: int) -> Inputs:
        indices = tuple(range(seed * self.gradient_batch, (seed + 1) * self.gradient_batch))
        latents = initial_latents(seed, indices, self.latent).to(self.synthesizer.device)
        labels = torch.arange(len(indices), device=latents.device) % self.synthesizer.teacher.config.num_classes
        return latents, labels, *self.matrices(self.synthesizer.sampler.boxes(indices, 0))

    def matrices(self, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Views as the traced gradient takes them."""
        rows, columns = view_matrices(
            boxes.to(self.synthesizer.device), self.synthesizer.sampler.image_size, self.synthesizer.view_size
        )
        return rows, columns

    def _energy_gradient(self) -> Part:
        config, teacher = self.synthesizer.config.guidance, self.synthesizer.teacher.config
        decoder = self.synthesizer.gradient_decoder
        module = StaticLatentClassifier(decoder, self.synthesizer.teacher).eval().requires_grad_(False)
        energy = energy_of(config)

        def traced(precision: Precision, inputs: Inputs) -> nn.Module:
            logits = InPrecision(module, TORCH_DTYPES[precision])
            make = trace_rescaled_gradient if precision == "fp16" else trace_value_and_gradient
            return make(logits, energy, inputs, self.lowerings)

        inputs = self._gradient_inputs(0)
        names, outputs = ("latents", "labels", "rows", "columns"), ("energy", "gradient", "logits")
        objective = f"{config.objective} {config.temperature} {config.second_temperature}"
        hashed = (objective, _decoding(decoder), teacher.model_dump_json(), *_VERSIONS)
        return Part(
            spec=_spec("energy_gradient", inputs, names, outputs),
            oracle=InChunks(EagerGradientEngine(module, energy), self.gradient_batch),
            trace=traced,
            graph=graph_hash(module, *hashed),
            weights=weights_hash(module),
            random=self._gradient_inputs,
            graph_in_fp16=graph_hash(module, *hashed, "rescaled"),
        )


def trace_rescaled_gradient(
    module: nn.Module, energy: EnergyAndCotangent, inputs: Inputs, lowerings: Any
) -> torch.fx.GraphModule:
    """:func:`trace_value_and_gradient` for fp16: what goes back is brought to size one first, sample by sample.

    A teacher that is sure of a sample has a cotangent below what float16 can tell from zero.
    """

    def value_and_gradient(x: torch.Tensor, labels: torch.Tensor, *views: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pair: Any = torch.func.vjp(lambda z: module(z, *views), x)
        logits, pull_back = pair
        value, cotangent = energy(logits, labels)
        size = cotangent.abs().amax(1, keepdim=True).clamp_min(SMALLEST_COTANGENT)
        (gradient,) = pull_back((cotangent / size).to(logits.dtype))
        return value, gradient * size.view(-1, 1, 1, 1), logits

    return trace(value_and_gradient, module, inputs, lowerings)


_VERSIONS = (diffusers.__version__, timm.__version__, transformers.__version__)


def _spec(name: str, inputs: Inputs, names: tuple[str, ...], outputs: tuple[str, ...]) -> EngineSpec:
    tensors = (
        TensorSpec(n, tuple(x.shape), str(x.dtype).removeprefix("torch.")) for n, x in zip(names, inputs, strict=True)
    )
    return EngineSpec(name, tuple(tensors), outputs, device=str(inputs[0].device))


def _like(inputs: Inputs, seed: int) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(x.shape, generator=generator).to(x) for x in inputs)


def _decoding(decoder: LatentDecoder | LightDecoder) -> str:
    """What a decoder computes besides its weights."""
    scaled = f" {decoder.scale} {decoder.shift}" if isinstance(decoder, LatentDecoder) else ""
    return f"{_settings(decoder.vae)}{scaled}"


def _settings(module: Any) -> str:
    """A network's configuration without where it lay and who wrote it: much of it (heads, flips) is in no repr."""
    config = module.config if isinstance(module.config, dict) else module.config.to_dict()
    kept = {k: v for k, v in config.items() if not k.startswith("_") and k != "transformers_version"}
    return json.dumps(kept, sort_keys=True, default=str)
