"""Everything a worker needs to turn plan rows into samples: models loaded once, prompts embedded once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from prism_engines.attention import use_attention
from prism_engines.backends.eager import EagerEngine, InChunks
from prism_engines.base import Engine
from prism_kernels import energy
from torch import nn

from prism_fast.config import RunConfig, assign
from prism_fast.dataset.sample import Sample
from prism_fast.dataset.view_labels import labelling_of
from prism_fast.errors import InputError
from prism_fast.guidance.network import ImageClassifier, dtype_of, energy_gradient_engine, in_float32
from prism_fast.labels.load import load_label_space
from prism_fast.models.bundled import resolve
from prism_fast.models.classifier import Classifier, load_classifier, require_input_size
from prism_fast.models.content_hash import content_hash
from prism_fast.models.device import require_device
from prism_fast.models.diffusers_blocks import DeepUNet, ShallowUNet, WholeUNet, fuse_norms
from prism_fast.models.diffusion import DiffusionModel, LatentDecoder, LightDecoder, load_diffusion, load_light_decoder
from prism_fast.models.label_space import for_label_space
from prism_fast.models.resize import resized
from prism_fast.models.text import Embedding, TextHidden, TextPenultimate, encode_prompts
from prism_fast.prompts.row import PlanRow
from prism_fast.sampling.loop import Engines, GuidedSampler, Sampled, SamplingBatch
from prism_fast.sampling.noise_schedule import make_noise_schedule
from prism_fast.sampling.transfer import to_device, to_host
from prism_fast.synthesis.memory import enough_memory
from prism_fast.synthesis.streams import Streams, streams_of
from prism_fast.synthesis.views import ViewLabeller, as_stored, eager_teacher

#: Embeddings kept: 242 MB at Stable Diffusion 1.5's 77 tokens of 768 numbers; a million prompts would take 242 GB.
REMEMBERED_PROMPTS = 1024


@dataclass(frozen=True)
class Made:
    """Samples of one call, and the indices that were quarantined: they did not stay finite, or would not in a shard."""

    samples: tuple[Sample, ...]
    quarantined: tuple[int, ...]

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """One after the other."""
        return cls(
            tuple(sample for part in parts for sample in part.samples),
            tuple(index for part in parts for index in part.quarantined),
        )


def weights_dtype(config: RunConfig) -> torch.dtype:
    """The type that a run's networks are loaded in; the teacher's is always float32.

    Engines are made from float32 weights and judged by them, and ``engines.precision`` says what they compute in. So
    ``sampling.dtype`` is for ``engines.backend`` eager alone.
    """
    dtype: torch.dtype = getattr(torch, config.sampling.dtype if config.engines.backend == "eager" else "float32")
    return dtype


class Synthesizer:
    """Loads a run's models and makes its samples."""

    def __init__(
        self,
        config: RunConfig,
        model: DiffusionModel,
        teacher: Classifier,
        hashes: dict[str, str],
        engines: Engines | None = None,
        light_decoder: LightDecoder | None = None,
        streams: Streams | None = None,
    ) -> None:
        self.config, self.model, self.teacher, self.hashes = config, model, teacher, hashes
        self.light_decoder = light_decoder
        self.device = torch.device(config.sampling.device)
        self.streams = streams or streams_of(self.device, config.launch)
        self.decoder = LatentDecoder(model)
        self.margins: dict[int, float] = {}
        self._embeddings: dict[str, Embedding] = {}
        self._embedding = threading.Lock()
        self._time_ids = self._make_time_ids()
        self.engines = engines or self._eager()
        self.sampler = self._make_sampler()
        self.labeller = self._make_labeller()

    def _eager(self) -> Engines:
        model, engines = self.model, self.config.engines
        gradient = energy_gradient_engine(self.gradient_decoder, self.teacher, self.config.guidance)
        second = model.text_encoder_2
        first = TextPenultimate(model.text_encoder) if second else TextHidden(model.text_encoder)
        return Engines(
            text_encoder=EagerEngine(first, "text_encoder"),
            unet=EagerEngine(WholeUNet(model.unet), "unet"),
            unet_deep=EagerEngine(DeepUNet(model.unet), "unet_deep"),
            unet_shallow=EagerEngine(ShallowUNet(model.unet), "unet_shallow"),
            decoder=self._bounded(
                EagerEngine(in_float32(self.decoder), "decoder"), engines.decoder_batch, self.decoder
            ),
            energy_gradient=self._bounded(gradient, engines.gradient_batch, self.gradient_decoder),
            teacher=EagerEngine(ImageClassifier(self.teacher, self.config.stored_size), "teacher"),
            text_encoder_2=EagerEngine(TextPenultimate(second), "text_encoder_2") if second else None,
        )

    def _bounded(self, engine: Engine, rows: int | None, decoder: nn.Module) -> Engine:
        """An engine that decodes with ``decoder``, given at most ``rows`` rows at once; None: as many as there are."""
        # Float32 on a CPU takes the whole batch, as it always did: in chunks it rounds otherwise, and runs go on.
        whole = self.device.type == "cpu" and dtype_of(decoder) == torch.float32
        return engine if rows is None or whole else InChunks(engine, rows)

    @property
    def classes(self) -> int:
        """How many classes the teacher tells apart."""
        return self.teacher.config.num_classes

    @property
    def view_size(self) -> int:
        """Side of the view that the energy gradient sees."""
        return self.config.guidance.view_size or self.teacher.config.image_size

    @property
    def gradient_decoder(self) -> LatentDecoder | LightDecoder:
        """What the energy gradient decodes with."""
        return self.light_decoder or self.decoder

    def with_engines(self, engines: Engines) -> Self:
        """The same run computed by other engines."""
        other = type(self)(
            self.config, self.model, self.teacher, self.hashes, engines, self.light_decoder, self.streams
        )
        other.margins = self.margins
        return other

    def unguided(self) -> Self:
        """The same run, engines and noise, without energy guidance."""
        config = assign(self.config, {"guidance.enabled": False, "views.count": 0})
        return type(self)(config, self.model, self.teacher, self.hashes, self.engines, streams=self.streams)

    @classmethod
    def load(cls, config: RunConfig) -> Self:
        """Load the configured models.

        Raises:
            EngineInputError: the attention kernels that were asked for cannot run here.
            DataError: a model directory is wrong. InputError: models and label space or image size do not fit.
        """
        require_device(config.sampling.device)
        light = config.guidance.enabled and config.guidance.decoder == "light"
        parts = ("diffusion", "teacher", *(("light_decoder",) if light else ()))
        paths = {p: resolve(getattr(config.models, p), p) for p in parts}
        dtype = weights_dtype(config)
        model = load_diffusion(Path(paths["diffusion"]), config.sampling.device, dtype)
        if config.engines.attention != "sdpa":  # what diffusers chooses itself
            use_attention(model.unet, config.engines.attention)
        if config.engines.fused_norms:
            fuse_norms(model.vae)
        teacher = for_label_space(load_classifier(paths["teacher"]), load_label_space(config.labels))
        teacher.net.to(config.sampling.device)
        if config.guidance.enabled and config.guidance.view_size:
            require_input_size(teacher, config.guidance.view_size, "guidance.view_size")
        hashes = {k: content_hash(Path(p)) if Path(p).exists() else p for k, p in paths.items()}
        small = (
            load_light_decoder(Path(paths["light_decoder"]), model, config.sampling.device, dtype) if light else None
        )
        return cls(config, model, teacher, hashes, None, small)

    def _make_sampler(self) -> GuidedSampler:
        sampling, factor = self.config.sampling, self.model.vae_factor
        if sampling.height % factor or sampling.width % factor:
            raise InputError(f"sampling.height and width must be multiples of {factor} for this model")
        shape = (self.model.latent_channels, sampling.height // factor, sampling.width // factor)
        return GuidedSampler(
            self.engines,
            make_noise_schedule(self.model.scheduler, sampling.steps, sampling.solver),
            self.model.prediction_type,
            shape,
            self.config.seed,
            sampling,
            self.config.guidance,
            (sampling.height, sampling.width),
        )

    @property
    def views_by_engine(self) -> bool:
        """Whether views are as large as stored images, so that the engine of the whole image labels them too."""
        side = self.config.views.image_size or self.teacher.config.image_size
        return self.config.stored_size == (side, side)

    def _make_labeller(self) -> ViewLabeller | None:
        views = self.config.views
        if not views.count:
            return None
        side = views.image_size or self.teacher.config.image_size
        labelling = labelling_of(views, self.config.seed, self.classes, self.hashes.get("teacher", ""))
        engine = self.engines.teacher if self.views_by_engine else eager_teacher(self.teacher, side)
        return ViewLabeller(labelling, side, engine)

    def embed(self, prompts: Sequence[str]) -> Embedding:
        """Each prompt's embedding; a prompt is encoded once, as long as it is among the latest few thousand."""
        with self._embedding:  # batches of several streams share what is remembered
            with self.streams.on("encode"):
                made = self._embed(prompts)
                ready = self.streams.mark()
            self.streams.take(ready, made.tensors())
        return made

    def _embed(self, prompts: Sequence[str]) -> Embedding:
        new = [p for p in dict.fromkeys(prompts) if p not in self._embeddings]
        if new:
            made = encode_prompts(new, self._encoders(), self.device)
            self._embeddings.update(zip(new, made.rows(), strict=True))
            if self.model.zero_empty_prompt and "" in new:
                empty = self._embeddings[""]
                pooled = None if empty.pooled is None else torch.zeros_like(empty.pooled)
                self._embeddings[""] = Embedding(torch.zeros_like(empty.text), pooled)
        joined = Embedding.join([self._embeddings[p] for p in prompts])
        for oldest in list(self._embeddings)[: max(0, len(self._embeddings) - REMEMBERED_PROMPTS)]:
            if oldest not in prompts:
                del self._embeddings[oldest]
        return joined

    def _encoders(self) -> list[tuple[Any, Engine]]:
        encoders = [(self.model.tokenizer, self.engines.text_encoder)]
        if self.engines.text_encoder_2:
            encoders.append((self.model.tokenizer_2, self.engines.text_encoder_2))
        return encoders

    def conditions(self, prompts: Sequence[str]) -> tuple[torch.Tensor, ...]:
        """What the UNet takes after ``z`` and ``t``: the text and, for SDXL, pooled text and time ids (n, 6).

        Time ids are original height and width, top and left of the crop, target height and width.
        """
        embedding = self.embed(prompts)
        if embedding.pooled is None:
            return (embedding.text,)
        return embedding.text, embedding.pooled, self._time_ids.expand(len(prompts), 6)

    def _make_time_ids(self) -> torch.Tensor:
        size = (float(self.config.sampling.height), float(self.config.sampling.width))
        return to_device([torch.tensor([*size, 0.0, 0.0, *size])], self.device)[0]

    def batch(self, rows: Sequence[PlanRow]) -> SamplingBatch:
        """The sampler's batch of some plan rows; labels and margins still lie on the host."""
        labels = [row.label for row in rows]
        margins = [self.margins.get(label, float("-inf")) for label in labels]
        prompts = [*(row.negative_prompt for row in rows), *(row.prompt for row in rows)]
        return SamplingBatch(
            indices=tuple(row.index for row in rows),
            labels=torch.tensor(labels),
            conditions=self.conditions(prompts),
            margins=torch.tensor(margins),
        )

    def parts(self, rows: Sequence[PlanRow]) -> list[Sequence[PlanRow]]:
        """Plan rows as batches of at most ``sampling.batch_size``."""
        size = self.config.sampling.fixed_batch_size
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def make(self, rows: Sequence[PlanRow]) -> Made:
        """Samples of the given plan rows, ``sampling.batch_size`` at a time."""
        return Made.join([self.finish(part, self.denoise(part)) for part in self.parts(rows)])

    def denoise(self, rows: Sequence[PlanRow]) -> Sampled:
        """Final latents of one batch.

        Raises:
            RunError: the device's memory does not suffice.
        """
        with enough_memory(), self.streams.on("denoise"):
            sampled = self.sampler.sample(self.batch(rows), self.device)
            return replace(sampled, ready=self.streams.mark())

    @torch.no_grad()
    def finish(self, rows: Sequence[PlanRow], sampled: Sampled) -> Made:
        """Decode one batch's latents, label its images and their views; the device is waited for once.

        With views of images that are not stored as they are (JPEG, WebP) it is waited for once more.

        Raises:
            RunError: the device's memory does not suffice.
        """
        with enough_memory(), self.streams.on("finish"):
            self.streams.take(sampled.ready, sampled.tensors())
            images = self.at_stored_size(self.engines.decoder.run(sampled.latents)[0].float())
            finite = sampled.finite & torch.isfinite(images).flatten(1).all(1)
            pixels = (images.nan_to_num() * 255).round().to(torch.uint8)
            logits = self.engines.teacher.run(pixels.float() / 255)[0].float()
            finite &= torch.isfinite(logits.half()).all(1)  # as a shard stores them: what is above 65,504 is not
            packed, encoded = self._label_views(rows, pixels)
            if self.labeller:
                finite &= self.labeller.finite(packed)
            found = (pixels, logits, sampled.energy_before, sampled.guided, sampled.refused, finite)
            host = to_host((*found, *packed))
            views = self.labeller.stored(host[len(found) :]) if self.labeller else [None] * len(rows)
            return self._samples(rows, views, encoded, *host[: len(found)])

    def at_stored_size(self, images: torch.Tensor) -> torch.Tensor:
        """Decoded images (n, 3, h, w) at the size that they are stored in, antialiased bilinear."""
        return resized(images, *self.config.stored_size)

    def _label_views(
        self, rows: Sequence[PlanRow], pixels: torch.Tensor
    ) -> tuple[tuple[torch.Tensor, ...], Sequence[bytes | None]]:
        """The packed logits of every image's views, if there are any, and the images that were encoded for them."""
        if not self.labeller:
            return (), [None] * len(rows)
        seen, encoded = as_stored(pixels, self.config.synthesis)
        turns = range(self.config.views.count)
        return self.labeller.label([row.index for row in rows], seen, turns), encoded or [None] * len(rows)

    def _samples(
        self,
        rows: Sequence[PlanRow],
        views: Sequence[bytes | None],
        encoded: Sequence[bytes | None],
        pixels: torch.Tensor,
        logits: torch.Tensor,
        before: torch.Tensor,
        guided: torch.Tensor,
        refused: torch.Tensor,
        finite: torch.Tensor,
    ) -> Made:
        """Samples from what was computed of them, all of it on the host."""
        free, _ = energy(logits, torch.tensor([row.label for row in rows]), 0.0, -1.0, 1.0)
        samples, quarantined = [], []
        for i, row in enumerate(rows):
            if not finite[i]:
                quarantined.append(row.index)
                continue
            meta = {
                "index": row.index,
                "label": row.label,
                "class_name": row.class_name,
                "prompt": row.prompt,
                "style": row.style,
                "content": row.content,
                "seed": self.config.seed,
                "objective_before": round(float(before[i]), 4) if before[i].isfinite() else None,
                "energy_after": round(float(free[i]), 4),
                "guided_steps": int(guided[i]),
                "refused_gradients": int(refused[i]),
                "teacher_top1": int(logits[i].argmax()),
            }
            samples.append(Sample(row.index, pixels[i], row.label, logits[i], meta, views[i], encoded[i]))
        return Made(tuple(samples), tuple(quarantined))
