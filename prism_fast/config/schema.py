"""One document describes a run: frozen pydantic models, unknown keys refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, model_validator

from prism_fast.config.base import (
    LONGEST_LEASE_S,
    MOST_AHEAD,
    MOST_CORES,
    MOST_IMAGES,
    MOST_MINUTES,
    MOST_ROWS,
    MOST_SHARDS,
    MOST_SIDE,
    MOST_STEPS,
    MOST_THREADS,
    SHORTEST_LEASE_S,
    SMALLEST_VIEW,
    Document,
    require_part,
)
from prism_fast.config.distill import DistillConfig
from prism_fast.config.identity import hash_of
from prism_fast.config.views import ViewsConfig
from prism_fast.errors import ConfigError
from prism_fast.labels.bank import bank_identity
from prism_fast.labels.vocabulary import VocabularyName, vocabulary_identity

Objective = Literal["free_energy", "cross_entropy", "joint", "contrastive_energy"]
BackendName = Literal["eager", "auto", "openvino", "inductor", "onnxruntime", "tensorrt", "tensorrt_rtx"]
EnginePart = Literal["text_encoder", "text_encoder_2", "unet", "decoder", "energy_gradient", "teacher"]
SolverName = Literal["ddim", "dpmpp_2m", "euler", "euler_ancestral"]


def _batch_size(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_ROWS):
        return value
    raise ValueError(f"expected a whole number from 1 to {MOST_ROWS}, or auto, got {_short(value)}")


def _short(value: object) -> str:
    shown = repr(value) if not isinstance(value, int) or value.bit_length() < 200 else "a number of many digits"
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


BatchSize = Annotated[int | Literal["auto"], PlainValidator(_batch_size, json_schema_input_type=int | Literal["auto"])]


class ModelsConfig(Document):
    """Which networks a run uses. ``minis`` in place of a path means the bundled models."""

    diffusion: str = Field(description="directory in diffusers' format, or 'minis'")
    teacher: str = Field(description="timm model name, classifier directory (ours, timm's, transformers'), or 'minis'")
    features: str = Field(
        "minis",
        description="network for precision/recall, as teacher; not the one that guides; 'minis': EfficientNet-Lite1",
    )
    light_decoder: str | None = Field(None, description="diffusers AutoencoderTiny directory (TAESD), or 'minis'")


_OF_SELECTION = ("select", "pool")
_OF_BANKS = ("bank", "axes", "photo_share", "avoid_confusions", *_OF_SELECTION)


class PromptsConfig(Document):
    """Diversified Prompt Engineering: what varies between the prompts of one class."""

    bank: str | None = Field(
        None, description="'bundled', or a YAML file: what each class is called, its sorts and scenes; null: templates"
    )
    axes: VocabularyName = Field("pictures", description="with a bank: what varies in every picture")
    photo_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="with a bank: part of the prompts for photographs; null: the vocabulary's",
    )
    avoid_confusions: bool = Field(False, description="with a bank: a class's confusions in its negative prompt")
    select: Literal["stratified", "coverage"] = Field(
        "stratified",
        description="with a bank: the next prompts of its sequence, or those of its next 'pool' that lie farthest from "
        "each other for the text encoder",
    )
    pool: int = Field(4096, ge=2, le=32_768, description="prompts of a class that 'coverage' picks from")
    templates: tuple[str, ...] = Field((), description="without a bank; fields: {style} {content} {name} {sense}")
    styles: tuple[str, ...] = Field(("",), min_length=1)
    contents: tuple[str, ...] = Field(("{sense}",), min_length=1, description="used by classes without concepts")
    negative: str = ""
    blend: bool = Field(False, description="besides each concept, show it joined with the class's next one")
    use_concepts: bool = Field(True, description="take content from the class's concepts when it has any")

    @model_validator(mode="after")
    def _one_source(self) -> PromptsConfig:
        if self.bank is None and not self.templates:
            raise ValueError("templates is empty; give at least one, or name a bank")
        if self.bank is not None and self.templates:
            raise ValueError("bank and templates exclude each other; set templates to [], or bank to null")
        if self.bank is None and self.select == "coverage":
            raise ValueError("select coverage picks from a bank's prompts; name a bank, or set select to stratified")
        return self

    def identity(self, labels: str) -> dict[str, Any]:
        """What of it decides a run: without a bank the keys of before banks, else also what the bank holds.

        Raises:
            InputError: there is no such bank.
        """
        data = self.model_dump(mode="json")
        if self.bank is None:
            return {key: value for key, value in data.items() if key not in _OF_BANKS}
        if self.select == "stratified":
            data = {key: value for key, value in data.items() if key not in _OF_SELECTION}
        return data | {"bank": bank_identity(self.bank, labels), "axes": vocabulary_identity(self.axes)}


class SamplingConfig(Document):
    """Diffusion sampling without guidance by energy."""

    solver: SolverName = "dpmpp_2m"
    steps: int = Field(20, ge=1, le=1000)
    guidance_scale: float = Field(3.0, ge=1.0, description="classifier-free guidance w")
    guidance_interval: tuple[float, float] = Field(
        (0.0, 1.0), description="part of the steps with classifier-free guidance; the others run one branch"
    )
    reuse_every: int = Field(1, ge=1, le=1000, description="the UNet's deep features are computed at every n-th step")
    batch_size: BatchSize = Field(16, description="or auto: what 'prism-fast tune' found on this device")
    height: int = Field(64, ge=8, le=MOST_SIDE, multiple_of=8)
    width: int = Field(64, ge=8, le=MOST_SIDE, multiple_of=8)
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="of the networks under engines.backend eager; engines are made from float32, engines.precision "
        "decides; the teacher is float32",
    )

    @model_validator(mode="after")
    def _ordered(self) -> SamplingConfig:
        require_part("guidance_interval", self.guidance_interval)
        return self

    @property
    def fixed_batch_size(self) -> int:
        """The number of samples of a batch.

        Raises:
            ConfigError: it is ``auto``; whoever holds the engine store resolves that.
        """
        if self.batch_size == "auto":
            raise ConfigError(
                "sampling.batch_size is auto, and nobody here knows what 'prism-fast tune' found; give a number"
            )
        return self.batch_size


class GuidanceConfig(Document):
    """Energy-guided Distribution Alignment. All constants are ours; PRISM's are not public to us."""

    enabled: bool = True
    objective: Objective = "joint"
    mode: Literal["denoised", "latent"] = "denoised"
    temperature: float = Field(1.0, gt=0)
    second_temperature: float = Field(10.0, gt=0, description="contrastive_energy only (EluCD)")
    scale: float = Field(0.3, ge=0, description="guidance RMS relative to the CFG correction's RMS")
    window: tuple[float, float] = Field((0.1, 0.8), description="part of the steps that is guided, [from, to)")
    every: int = Field(1, ge=1, le=1000, description="compute the gradient at every k-th guided step")
    settled_below: float | None = Field(
        None, description="a sample whose objective was below it gets no further gradient; null: all get them"
    )
    margin_quantile: float | None = Field(
        None, ge=0, le=1, description="guide only samples above this quantile of unguided energies; null: all"
    )
    margin_samples: int = Field(64, ge=8, le=1_000_000, description="unguided samples that calibrate the margin")
    view_scale: tuple[float, float] = Field((0.8, 1.0), description="area of the teacher's random crop")
    view_flip: bool = True
    view_size: int | None = Field(
        None, ge=16, le=MOST_SIDE, description="side of the view that the gradient sees; null: teacher's"
    )
    decoder: Literal["full", "light"] = Field("full", description="light: the gradient sees models.light_decoder")
    max_gradient_rms: float = Field(1e4, gt=0, description="a larger gradient RMS is refused for that sample")

    @model_validator(mode="after")
    def _ordered(self) -> GuidanceConfig:
        for name in ("window", "view_scale"):
            require_part(name, getattr(self, name))
        if self.view_scale[0] < SMALLEST_VIEW:
            raise ValueError(f"view_scale must begin at {SMALLEST_VIEW} or more, got {self.view_scale[0]}")
        return self


class EnginesConfig(Document):
    """What computes a run. Compiled engines give the same samples within the gate's tolerance, not the same bytes."""

    backend: BackendName = Field("eager", description="auto: the fastest here that passes the gate")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="auto: the lowest that passes")
    attention: Literal["sdpa", "xformers"] = Field("sdpa", description="of engines that torch runs: eager, inductor")
    gradient_batch: int | None = Field(
        None,
        ge=1,
        le=MOST_ROWS,
        description="rows of an energy gradient at once, compiled, or eager on a GPU or in half precision; null: "
        "sampling.batch_size",
    )
    decoder_batch: int | None = Field(
        None,
        ge=1,
        le=MOST_ROWS,
        description="rows that the decoder of the images takes at once, compiled, or eager on a GPU or in half "
        "precision; null: sampling.batch_size",
    )
    fused_norms: bool = Field(False, description="eager only: group norm and SiLU of the decoder in one operator")
    parts: tuple[EnginePart, ...] = Field(
        ("text_encoder", "unet", "decoder", "energy_gradient", "teacher"),
        min_length=1,
        description="unet: with sampling.reuse_every above 1, its deep and its shallow half",
    )


class SynthesisConfig(Document):
    """How many samples, and how they are stored."""

    images: int = Field(640, ge=1, le=MOST_IMAGES)
    shard_size: int = Field(64, ge=1, le=MOST_IMAGES)
    image_format: Literal["png", "jpg", "webp"] = "png"
    quality: int = Field(95, ge=1, le=100, description="jpg and webp only")
    store_size: int | None = Field(
        None, ge=8, le=MOST_SIDE, description="shorter side of a stored image; null: as it was sampled"
    )

    @model_validator(mode="after")
    def _numbered(self) -> SynthesisConfig:
        if (shards := -(-self.images // self.shard_size)) > MOST_SHARDS:
            raise ValueError(
                f"{shards} shards are more than the {MOST_SHARDS} that six digits number; raise shard_size"
            )
        return self


class SlurmConfig(Document):
    """What each worker asks of Slurm; what is null is left to the cluster's defaults."""

    partition: str | None = None
    time_min: int = Field(240, ge=1, le=MOST_MINUTES, description="after that the worker is requeued")
    ranks_per_node: int = Field(8, ge=1, le=MOST_CORES, description="of a distillation: ranks, and GPUs, of a node")


class LaunchConfig(Document):
    """How a run is carried out; nothing here changes a byte of what it makes."""

    pipeline_depth: int = Field(
        0, ge=0, le=MOST_AHEAD, description="batches denoised ahead of decoding and writing; 0: one by one"
    )
    streams: int = Field(
        1, ge=1, le=MOST_THREADS, description="batches denoised at once, each on its share of the threads"
    )
    lease_s: float = Field(
        60.0,
        ge=SHORTEST_LEASE_S,
        le=LONGEST_LEASE_S,
        description="a worker that is silent for so long has lost its shard",
    )
    hold_s: float | None = Field(
        None, gt=0, description="a shard in hand for longer, as a hung worker's is, is anybody's; null: never"
    )
    restarts: int = Field(
        3, ge=0, le=MOST_STEPS, description="how often a killed worker is started again, by local and ray"
    )
    cpus_per_worker: int = Field(
        1, ge=1, le=MOST_CORES, description="cores of a worker under ray and slurm; local shares ours evenly"
    )
    slurm: SlurmConfig = SlurmConfig()


class EvaluateConfig(Document):
    """Measurements on real held-out pictures."""

    batch_size: int = Field(128, ge=1, le=MOST_ROWS)
    neighbours: int = Field(5, ge=1, description="k of precision/recall/density/coverage")


class RunConfig(Document):
    """Everything that decides what a run makes."""

    name: str
    seed: int = Field(0, ge=0, lt=2**64, description="key of the counter-based generator, one 64-bit word")
    labels: str = Field(description="bundled label space or YAML file")
    models: ModelsConfig
    prompts: PromptsConfig
    sampling: SamplingConfig = SamplingConfig()
    guidance: GuidanceConfig = GuidanceConfig()
    engines: EnginesConfig = EnginesConfig()
    synthesis: SynthesisConfig = SynthesisConfig()
    views: ViewsConfig = ViewsConfig()
    launch: LaunchConfig = LaunchConfig()
    distill: DistillConfig = DistillConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @model_validator(mode="after")
    def _differentiable(self) -> RunConfig:
        if self.engines.fused_norms and self.engines.backend != "eager":
            raise ValueError("engines.fused_norms is for engines.backend eager; compiled engines fuse by themselves")
        if not self.guidance.enabled or self.guidance.mode == "denoised":
            return self
        if self.engines.backend != "eager":
            raise ValueError(
                "guidance.mode latent differentiates the UNet, which only engines.backend eager does; choose denoised"
            )
        if self.sampling.reuse_every > 1:
            raise ValueError("guidance.mode latent differentiates the whole UNet; set sampling.reuse_every to 1")
        if self.guidance.settled_below is not None:
            raise ValueError("guidance.mode latent differentiates whole batches; set guidance.settled_below to null")
        return self

    @model_validator(mode="after")
    def _corrected(self) -> RunConfig:
        first, begin = self.guidance.window[0], self.sampling.guidance_interval[0]
        if self.guidance.enabled and first < begin:
            raise ValueError(
                f"guidance.window begins at {first}, before sampling.guidance_interval at {begin}: the energy step is "
                "measured by the CFG correction; begin the window later or the interval earlier"
            )
        if self.guidance.enabled and self.guidance.decoder == "light" and self.models.light_decoder is None:
            raise ValueError("guidance.decoder is light, but models.light_decoder names none; give its directory")
        return self

    @model_validator(mode="after")
    def _stored(self) -> RunConfig:
        shorter = min(self.sampling.height, self.sampling.width)
        if self.synthesis.store_size and self.synthesis.store_size > shorter:
            raise ValueError(
                f"synthesis.store_size {self.synthesis.store_size} is larger than the images, whose shorter side is "
                f"{shorter}; lower it, or leave it out"
            )
        return self

    @property
    def stored_size(self) -> tuple[int, int]:
        """Height and width of a stored image: what the teacher labels and a student is cut from."""
        height, width = self.sampling.height, self.sampling.width
        if (side := self.synthesis.store_size) is None:
            return height, width
        shorter = min(height, width)
        return round(height * side / shorter), round(width * side / shorter)

    def run_hash(self) -> str:
        """SHA-256 of what decides the samples' bytes; device, paths, launch and distillation are left out.

        So is the number of images: sample i is the same in a longer run, and a run can be extended. A key that came
        later is left out while it has its default, so that runs that were begun without it go on.

        Raises:
            ConfigError: ``sampling.batch_size`` is still ``auto``.
        """
        _ = self.sampling.fixed_batch_size
        sections = {"seed", "prompts", "guidance", "sampling", "synthesis", "labels", "engines"}
        if self.views.count:
            sections.add("views")
        data = self.model_dump(mode="json", include=sections)
        del data["sampling"]["device"], data["synthesis"]["images"]
        data["prompts"] = self.prompts.identity(self.labels)
        if data["engines"]["decoder_batch"] is None:
            del data["engines"]["decoder_batch"]
        if data["synthesis"]["store_size"] is None:
            del data["synthesis"]["store_size"]
        return hash_of(data)
