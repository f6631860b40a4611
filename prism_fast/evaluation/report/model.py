"""What a report shows. Plain frozen data; every part but the title may be left out, and is then not shown."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from prism_fast.errors import InputError
from prism_fast.evaluation.energies import EnergyHistogram

_SIGNATURES = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"))


@dataclass(frozen=True)
class Fact:
    """One fact of the run, for example ("teacher", "efficientnet_lite0")."""

    name: str
    value: str


@dataclass(frozen=True)
class Score:
    """Top-1 of one network on one test set, a fraction; low and high are an interval or a spread over seeds."""

    name: str
    top1: float
    low: float | None = None
    high: float | None = None
    role: Literal["student", "teacher", "baseline"] = "baseline"
    test_set: str = ""

    def __post_init__(self) -> None:
        for value in (self.top1, self.low, self.high):
            if value is not None and not 0 <= value <= 1:
                raise InputError(f"score {self.name!r}: accuracies are fractions in 0..1, got {value}")


@dataclass(frozen=True)
class Headline:
    """The numbers of the tiles at the top; None leaves a number out.

    The first score with the role ``student`` is the main one; the teacher on the same test set is its yardstick.
    """

    scores: tuple[Score, ...] = ()
    images: int | None = None
    images_per_s: float | None = None
    energy_guided: float | None = None
    energy_unguided: float | None = None
    energy_real: float | None = None
    precision: float | None = None
    recall: float | None = None
    precision_unguided: float | None = None
    recall_unguided: float | None = None

    def main(self) -> Score | None:
        """The score of the page: the first student's."""
        return next((s for s in self.scores if s.role == "student"), None)

    def of_teacher(self) -> float | None:
        """The main score as a fraction of the teacher's on the same test set."""
        main = self.main()
        teachers = [s.top1 for s in self.scores if s.role == "teacher" and main and s.test_set == main.test_set]
        return main.top1 / teachers[0] if main and teachers and teachers[0] > 0 else None

    def test_sets(self) -> dict[str, list[Score]]:
        """Scores by test set, in the order given."""
        groups: dict[str, list[Score]] = {}
        for score in self.scores:
            groups.setdefault(score.test_set, []).append(score)
        return groups


@dataclass(frozen=True)
class NumberRow:
    """One row of the table of numbers. ``value`` is shown as it is: give percents as 0..100 with unit "%"."""

    name: str
    value: float | int | str
    spread: float | None = None
    unit: str = ""
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """An encoded image (PNG, JPEG or WebP) and what to say about it."""

    data: bytes
    caption: str = ""

    def __post_init__(self) -> None:
        _ = self.mime

    @property
    def mime(self) -> str:
        """Media type, read from the bytes.

        Raises:
            InputError: neither PNG, JPEG nor WebP.
        """
        if self.data[:4] == b"RIFF" and self.data[8:12] == b"WEBP":
            return "image/webp"
        for signature, mime in _SIGNATURES:
            if self.data.startswith(signature):
                return mime
        raise InputError(f"a picture must be PNG, JPEG or WebP, got bytes that begin with {self.data[:8]!r}")

    @classmethod
    def of(cls, image: bytes | NDArray[np.uint8] | Tensor, caption: str = "") -> Picture:
        """From encoded bytes (kept as they are), or from pixels, stored as PNG.

        Shapes:
            array (h, w, 3) uint8, or tensor (3, h, w) uint8.

        Raises:
            InputError: another shape or dtype.
        """
        if isinstance(image, bytes):
            return cls(image, caption)
        if isinstance(image, Tensor):
            image = image.detach().cpu().permute(1, 2, 0).numpy() if image.ndim == 3 else image.numpy()
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InputError(f"pixels must be uint8 (h, w, 3) or a (3, h, w) tensor, got {image.dtype} {image.shape}")
        return cls(_png(image), caption)


@dataclass(frozen=True)
class ImageGrid:
    """Samples of one class."""

    class_name: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class GuidancePair:
    """The same noise and prompt without and with guidance, and the teacher's energy of each."""

    unguided: Picture
    guided: Picture
    caption: str
    energy_before: float
    energy_after: float


@dataclass(frozen=True)
class Curve:
    """A line of a chart; points that are not finite interrupt it."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise InputError(f"curve {self.name!r}: {len(self.x)} x but {len(self.y)} y")


@dataclass(frozen=True)
class CurveChart:
    """Lines over common axes."""

    title: str
    curves: tuple[Curve, ...]
    x_label: str = "step"
    y_label: str = ""


@dataclass(frozen=True)
class Confusion:
    """``counts[i][j]``: pictures of class i that the student called j."""

    class_names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    title: str = "Student"

    def __post_init__(self) -> None:
        sizes = {len(self.class_names), len(self.counts), *(len(row) for row in self.counts)}
        if len(sizes) != 1 or not self.class_names:
            raise InputError(f"a confusion matrix needs one name, row and column a class, got sizes {sorted(sizes)}")


@dataclass(frozen=True)
class ClassAccuracy:
    """Top-1 of one class, a fraction, with the teacher's as a mark beside it; None where there was no picture."""

    class_name: str
    top1: float | None
    n: int
    teacher_top1: float | None = None


@dataclass(frozen=True)
class ClassSpread:
    """Diversity of one class, a value a set; agreement and coverage are fractions, None where nothing was measured."""

    class_name: str
    images: tuple[int, ...]
    vendi: tuple[float | None, ...]
    agreement: tuple[float | None, ...]
    coverage: tuple[float | None, ...]
    real: int = 0


@dataclass(frozen=True)
class Diversity:
    """Diversity by class; the classes go by the first set. ``images``: of how many images a class each score is."""

    sets: tuple[str, ...]
    classes: tuple[ClassSpread, ...]
    images: int | None = None
    features: str = ""

    def __post_init__(self) -> None:
        for c in self.classes:
            sizes = {len(values) for values in (c.images, c.vendi, c.agreement, c.coverage)}
            if sizes != {len(self.sets)}:
                raise InputError(f"class {c.class_name!r} needs a value for each of {len(self.sets)} sets, got {sizes}")

    def ranked(self) -> tuple[ClassSpread, ...]:
        """The classes of least diversity first: those without a score, having one image or none, before all others."""
        return tuple(sorted(self.classes, key=lambda c: (c.vendi[0] or 0.0, c.class_name)))


@dataclass(frozen=True)
class Report:
    """Everything on the page, from top to bottom. ``summary`` is embedded as JSON for machines."""

    title: str
    subtitle: str = ""
    headline: Headline = field(default_factory=Headline)
    pairs: tuple[GuidancePair, ...] = ()
    grids: tuple[ImageGrid, ...] = ()
    energies: EnergyHistogram | None = None
    charts: tuple[CurveChart, ...] = ()
    classes: tuple[ClassAccuracy, ...] = ()
    confusion: Confusion | None = None
    diversity: Diversity | None = None
    numbers: tuple[NumberRow, ...] = ()
    facts: tuple[Fact, ...] = ()
    notes: tuple[str, ...] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="png", optimize=True)
    return buffer.getvalue()
