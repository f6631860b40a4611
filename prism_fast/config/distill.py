"""The distillation recipe."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from prism_fast.config.augment import AugmentConfig
from prism_fast.config.base import MOST_ROWS, MOST_SIDE, MOST_STEPS, Document, require_area
from prism_fast.config.losses import FEATURE_LOSSES, KL, HardLabel, Loss
from prism_fast.config.recipes import with_recipe

Optimizer = Literal["adamw", "sgd", "lamb", "lion", "muon", "adan", "nadamw"]


class ValidationConfig(Document):
    """How a student in training is watched. What is held out is trained on by nobody."""

    share: float = Field(0.0, ge=0, le=0.5, description="part of the samples that is held out; 0: none")
    most: int = Field(2048, ge=1, description="samples held out at most")
    every: int = Field(200, ge=1, le=MOST_STEPS, description="steps between two looks")
    patience: int | None = Field(None, ge=1, description="looks without a better one until training stops; null: never")
    pictures: str | None = Field(None, description="folder of real pictures looked at too; they decide nothing")


class InheritConfig(Document):
    """A student cut out of the teacher (``distill.student_from: teacher``)."""

    blocks: int | None = Field(None, ge=1, description="block groups of the teacher that are kept; null: all")
    depth: float = Field(
        1.0, ge=0, le=1, description="part of the residual blocks that stay; those go that the teacher misses least"
    )
    width: float = Field(1.0, gt=0, le=1, description="part of the channels that structured pruning keeps")
    criterion: Literal["gradient", "batch_norm", "magnitude"] = Field(
        "gradient", description="what says which channels go"
    )
    head: Literal["simkd", "linear"] = Field(
        "simkd", description="after fewer blocks: a projection into the teacher's own classifier, or a new classifier"
    )
    statistics: Literal["batch", "teacher"] = Field(
        "batch", description="what the teacher's batch norms normalise by: each batch, or what the teacher knows"
    )


class StudentConfig(Document):
    """One of several students of the same batches; what is null is the recipe's."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="its folder in --out")
    student: str | None = None
    image_size: int | None = Field(None, ge=16, le=MOST_SIDE)
    student_from: Literal["scratch", "teacher"] | None = None
    inherit: InheritConfig | None = None
    losses: tuple[Loss, ...] | None = None
    optimizer: Optimizer | None = None
    lr: float | None = Field(None, gt=0)
    weight_decay: float | None = Field(None, ge=0)


class DistillConfig(Document):
    """The distillation recipe; the same for every student of a comparison."""

    recipe: str | None = Field(
        None, description="a3-like, fast, finetune, inherit or patient; holds where nothing else is said"
    )
    student: str = Field("resnet10t", description="timm model name")
    student_from: Literal["scratch", "teacher"] = Field(
        "scratch", description="fresh weights of 'student', or the teacher's own as 'inherit' says"
    )
    inherit: InheritConfig = InheritConfig()
    student_init: str | None = Field(None, description="directory of a classifier whose weights a student begins with")
    students: tuple[StudentConfig, ...] = Field((), description="several students of the same batches; none: one")
    image_size: int = Field(64, ge=16, le=MOST_SIDE)
    steps: int = Field(800, ge=1, le=MOST_STEPS)
    batch_size: int = Field(64, ge=1, le=MOST_ROWS, description="of a step, over all ranks")
    accumulate: int = Field(1, ge=1, le=1024, description="parts that a rank's batch is computed in, one after another")
    optimizer: Optimizer = "adamw"
    lr: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    layer_decay: float | None = Field(None, gt=0, le=1, description="factor on the rate a layer nearer to the input")
    schedule: Literal["cosine", "wsd"] = Field("cosine", description="half a cosine; or warm-up, stable, linear decay")
    decay_share: float = Field(0.2, gt=0, le=1, description="of wsd: part of the steps in which the rate falls to zero")
    warmup_steps: int = Field(50, ge=0, le=MOST_STEPS)
    clip_norm: float = Field(5.0, gt=0, description="largest norm of a step's gradient")
    losses: tuple[Loss, ...] = Field((), description="terms of the loss; none: temperature and label_weight say it")
    temperature: float = Field(3.0, gt=0, description="of the KL term (Hinton et al. 2015)")
    label_weight: float = Field(0.0, ge=0, le=1, description="weight of hard-label cross-entropy; KL gets the rest")
    teacher: Literal["stored", "views", "live"] = Field(
        "stored", description="logits of the whole image, of the view that the student sees, or a teacher pass"
    )
    ema_decay: float = Field(0.99, ge=0, lt=1, description="0 turns the weight average off")
    crop_scale: tuple[float, float] = Field(
        (0.5, 1.0), description="area of the random crop that a student sees; with teacher views, the views' own"
    )
    flip: bool = True
    views_per_decode: int = Field(1, ge=1, le=64, description="crops of a picture in a batch, from one decode")
    augment: AugmentConfig = AugmentConfig()
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    compile: bool = Field(False, description="students by torch.compile")
    checkpoint_activations: bool = Field(False, description="compute activations again in the backward pass")
    sync_batch_norm: bool = Field(False, description="on several GPUs: batch statistics over all ranks")
    loader: Literal["dali", "torch"] = "dali"
    shuffle_bytes: int = Field(2 << 30, ge=1 << 20, description="encoded samples that are shuffled among each other")
    selection: bool = Field(False, description="leave out what 'prism-fast select' rejected")
    validation: ValidationConfig = ValidationConfig()
    checkpoint_every: int = Field(200, ge=1, le=MOST_STEPS)
    seed: int = Field(0, ge=0, lt=2**63)

    @model_validator(mode="before")
    @classmethod
    def _from_recipe(cls, data: Any) -> Any:
        return with_recipe(data) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _ordered(self) -> DistillConfig:
        require_area("crop_scale", self.crop_scale)
        names = [one.name for one in self.students]
        if len(set(names)) != len(names):
            raise ValueError(f"students must have names of their own, got {', '.join(names)}")
        if self.batch_size % self.views_per_decode:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of views_per_decode {self.views_per_decode}")
        pair = 2 * self.views_per_decode
        if self.augment.mixes and self.batch_size % pair:
            raise ValueError(
                f"mixup and cutmix mix pairs; batch_size must be a multiple of {pair}, got {self.batch_size}"
            )
        return self

    @model_validator(mode="after")
    def _features(self) -> DistillConfig:
        for one in self.each_student():
            terms = [term.name for term in one.terms() if term.name in FEATURE_LOSSES]
            if terms and self.teacher != "live":
                raise ValueError(f"{terms[0]} compares features, which only a teacher pass gives; set teacher to live")
        return self

    def terms(self) -> tuple[Loss, ...]:
        """The terms of the loss; without ``losses`` what ``temperature`` and ``label_weight`` say."""
        if self.losses:
            return self.losses
        soft = KL(weight=1 - self.label_weight, temperature=self.temperature) if self.label_weight < 1 else None
        hard = HardLabel(weight=self.label_weight) if self.label_weight > 0 else None
        return tuple(term for term in (soft, hard) if term)

    def each_student(self) -> tuple[DistillConfig, ...]:
        """The recipe of each student, in order; of one, without ``students``, its own."""
        if not self.students:
            return (self,)
        return tuple(self._of(one) for one in self.students)

    def _of(self, one: StudentConfig) -> DistillConfig:
        own: dict[str, Any] = {k: v for k, v in dict(one).items() if k != "name" and v is not None}
        return self.model_copy(update={**own, "students": ()})
