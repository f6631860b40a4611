"""The terms of a distillation loss, each with its own constants: those of its paper unless said."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from prism_fast.config.base import Document

Positive = Annotated[float, Field(gt=0)]


class _Term(Document):
    weight: Positive = 1.0


class KL(_Term):
    """Hinton et al. 2015, T ours; ``standardise``: logits are z-scored first (Sun et al. 2024, T 2 and weight 9)."""

    name: Literal["kl"] = "kl"
    temperature: Positive = 3.0
    standardise: bool = False


class HardLabel(_Term):
    """Cross-entropy with the class that the sample was made for."""

    name: Literal["hard_label"] = "hard_label"
    smoothing: float = Field(0.0, ge=0, lt=1)


class MultiTemperature(_Term):
    """The mean of KL at several temperatures."""

    name: Literal["multi_temperature"] = "multi_temperature"
    temperatures: tuple[Positive, ...] = Field((2.0, 3.0, 4.0, 5.0, 6.0), min_length=1)


class DKD(_Term):
    """Decoupled knowledge distillation (Zhao et al. 2022, CIFAR-100; on ImageNet T 1, beta 0.5)."""

    name: Literal["dkd"] = "dkd"
    temperature: Positive = 4.0
    alpha: float = Field(1.0, ge=0)
    beta: float = Field(8.0, ge=0)


class DIST(_Term):
    """Correlation of predictions between and within classes (Huang et al. 2022, defaults of its code)."""

    name: Literal["dist"] = "dist"
    temperature: Positive = 1.0
    beta: float = Field(1.0, ge=0)
    gamma: float = Field(1.0, ge=0)


class NKD(_Term):
    """Normalised knowledge distillation (Yang et al. 2023)."""

    name: Literal["nkd"] = "nkd"
    temperature: Positive = 1.0
    gamma: float = Field(1.5, ge=0)


class MLKD(_Term):
    """Multi-level logit distillation: instances, batch and classes at several temperatures (Jin et al. 2023)."""

    name: Literal["mlkd"] = "mlkd"
    temperatures: tuple[Positive, ...] = Field((2.0, 3.0, 4.0, 5.0, 6.0), min_length=1)


class FitNet(_Term):
    """Regression of an intermediate feature map (Romero et al. 2015); layers count from the last, 0."""

    name: Literal["fitnet"] = "fitnet"
    layer: int = Field(1, ge=0)


class AttentionTransfer(_Term):
    """Maps of activation (Zagoruyko and Komodakis 2017, weight 1000); of the last ``layers`` feature maps."""

    name: Literal["attention"] = "attention"
    layers: int = Field(3, ge=1)


class RKD(_Term):
    """Relations between the samples of a batch (Park et al. 2019)."""

    name: Literal["rkd"] = "rkd"
    distance: float = Field(25.0, ge=0)
    angle: float = Field(50.0, ge=0)


class CRD(_Term):
    """Contrastive representation distillation (Tian et al. 2020), 16,384 negatives; ours from a queue."""

    name: Literal["crd"] = "crd"
    dimensions: int = Field(128, ge=2)
    negatives: int = Field(4096, ge=1)
    temperature: Positive = 0.07


class SimKD(_Term):
    """Features before the classifier; the student ends in the teacher's own classifier (Chen et al. 2022)."""

    name: Literal["simkd"] = "simkd"
    features: Literal["map", "vector"] = Field(
        "map", description="compared before the pooling, as published, or after it, so that objects may lie elsewhere"
    )


FEATURE_LOSSES = frozenset({"fitnet", "attention", "rkd", "crd", "simkd"})
#: Compare the samples of a batch, so that accumulation and ranks change what they compute.
BATCH_LOSSES = frozenset({"dist", "mlkd", "rkd", "crd"})
_TERMS = (KL, HardLabel, MultiTemperature, DKD, DIST, NKD, MLKD, FitNet, AttentionTransfer, RKD, CRD, SimKD)
LOSSES = tuple(str(term.model_fields["name"].default) for term in _TERMS)


def _name(value: Any) -> str | None:
    """Which term a document means; of none of ours None, which pydantic refuses."""
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return name if name in LOSSES else None


Loss = Annotated[
    Annotated[KL, Tag("kl")]
    | Annotated[HardLabel, Tag("hard_label")]
    | Annotated[MultiTemperature, Tag("multi_temperature")]
    | Annotated[DKD, Tag("dkd")]
    | Annotated[DIST, Tag("dist")]
    | Annotated[NKD, Tag("nkd")]
    | Annotated[MLKD, Tag("mlkd")]
    | Annotated[FitNet, Tag("fitnet")]
    | Annotated[AttentionTransfer, Tag("attention")]
    | Annotated[RKD, Tag("rkd")]
    | Annotated[CRD, Tag("crd")]
    | Annotated[SimKD, Tag("simkd")],
    Discriminator(
        _name,
        custom_error_type="unknown_loss",
        custom_error_message=f"expected a mapping with a name of {', '.join(LOSSES)}",
    ),
]
