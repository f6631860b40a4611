"""How different a plan's prompts are, class by class, measured without a picture."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from prism_fast.config import RunConfig
from prism_fast.dataset.plan import plan_rows
from prism_fast.errors import DataError, InputError
from prism_fast.labels.chosen import chosen_labels
from prism_fast.labels.load import load_label_space
from prism_fast.labels.space import LabelSpace

if TYPE_CHECKING:
    from torch import Tensor

    from prism_fast.synthesis.text_space import TextSpace

#: Rows of a class that are looked at unless a number of images is given.
ROWS_A_CLASS = 64
#: Prompts in memory at once, 50 MB.
_HELD = 262_144

#: (classes measured, classes in all, the Vendi score of the latest; its distinct prompts where nothing is encoded)
Progress = Callable[[int, int, float], None]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TokenCounts(_Frozen):
    """Tokens of the prompts, begin and end included, before anything is cut; how many rows exceed the limit."""

    min: int
    mean: float
    max: int
    too_long: int


class Diversity(_Frozen):
    """``rows`` rows with ``distinct`` prompts among them; None where nothing was encoded.

    ``distance`` is the mean cosine distance of two rows in text space, ``vendi`` how many different ones there are in
    effect.
    """

    rows: int
    distinct: int
    tokens: TokenCounts | None = None
    distance: float | None = None
    vendi: float | None = None


class ClassStats(Diversity):
    """One class. ``distance`` and ``vendi`` are of its first :attr:`PromptStats.compared` rows.

    ``first_repeat`` is the first row of the plan whose prompt the class had before, None if there is none.
    """

    label: int
    name: str
    first_repeat: int | None = None


class Overall(Diversity):
    """All rows together: ``distance`` and ``vendi`` are between all of them, whatever their class.

    ``repeats`` is the number of classes that have a prompt twice. ``shared`` counts prompts that a class before has,
    too. ``class_distance`` and ``class_vendi`` are means over the classes.
    """

    repeats: int
    shared: int
    class_distance: float | None = None
    class_vendi: float | None = None


class PromptStats(_Frozen):
    """What was measured of the first ``images`` rows of a plan of ``planned``, in order of the labels.

    ``limit`` is the text encoder's number of tokens. A Vendi score is bounded by the number of rows and grows with it,
    so the classes' scores are of equally many, ``compared``. ``by_default`` says that nobody asked for so many images,
    and ``picked`` that the run will pick other prompts, ``prompts.select`` being ``coverage``.
    """

    name: str
    images: int
    planned: int
    by_default: bool
    picked: bool
    compared: int
    limit: int | None
    overall: Overall
    classes: tuple[ClassStats, ...]

    def lowest(self, number: int) -> list[ClassStats]:
        """The classes of the lowest Vendi scores, without scores those of the fewest distinct prompts."""
        return sorted(self.classes, key=lambda c: (c.distinct if c.vendi is None else c.vendi, c.label))[:number]


def prompt_stats(
    config: RunConfig,
    *,
    images: int | None = None,
    classes: Sequence[str | int] = (),
    encode: bool = True,
    progress: Progress | None = None,
) -> PromptStats:
    """Count the prompts of a plan and measure how far apart they lie for the model's text encoder.

    Args:
        config: the run; its text encoder is all that is loaded.
        images: the first so many rows of the plan; None means the run's, but no more than 64 of a class.
        classes: these alone, by name or number.
        encode: False counts without any model.
        progress: told after every class.

    Raises:
        InputError: no such class, one without a row, or a device that cannot be used. ConfigError: a template or the
            bank is wrong. DataError: the model's directory is not there or wrong.
    """
    if images is not None and images < 1:
        raise InputError(f"images must be at least 1, got {images}")
    space = load_label_space(config.labels)
    count = min(config.synthesis.images, ROWS_A_CLASS * len(space.classes)) if images is None else images
    labels = _labels(space, classes, count)
    text = _text_space(config) if encode else None
    compared = min(_turns(label, count, space) for label in labels)
    measured = _Measuring(space, text, compared)
    for label, prompts in _by_class(config, space, labels, count):
        measured.add(label, prompts)
        if progress is not None:
            latest = measured.classes[-1]
            progress(len(measured.classes), len(labels), latest.distinct if latest.vendi is None else latest.vendi)
    return PromptStats(
        name=config.name,
        images=count,
        planned=config.synthesis.images,
        by_default=images is None,
        picked=config.prompts.select == "coverage",
        compared=compared,
        limit=text.limit if text else None,
        overall=measured.overall(),
        classes=tuple(measured.classes),
    )


def _labels(space: LabelSpace, classes: Sequence[str | int], images: int) -> list[int]:
    """In order, each once; none means all that have a row."""
    if not classes:
        return list(range(min(images, len(space.classes))))
    found = chosen_labels(space, classes)
    if found[-1] >= images:
        name = space.classes[found[-1]].name
        raise InputError(f"class {name!r} has no row among the first {images} of the plan; give more images")
    return found


def _text_space(config: RunConfig) -> TextSpace:
    from prism_fast.synthesis.text_space import TextSpace

    try:
        return TextSpace.load(config)
    except InputError as error:
        kind = DataError if isinstance(error, DataError) else InputError
        raise kind(f"{error}; or count without a model: --no-encode") from error


def _turns(label: int, images: int, space: LabelSpace) -> int:
    """Rows of a class among the first ``images``."""
    return -(-(images - label) // len(space.classes))


def _by_class(
    config: RunConfig, space: LabelSpace, labels: Sequence[int], images: int
) -> Iterator[tuple[int, list[str]]]:
    """The prompts of each class, of as many classes at once as fit into memory: a call for rows has its price."""
    size = max(1, _HELD // _turns(0, images, space))
    for group in _runs(labels, size):
        held: dict[int, list[str]] = {label: [] for label in group}
        for start in range(0, images, len(space.classes)):
            for row in plan_rows(config, space, start + group[0], min(start + group[-1] + 1, images)):
                held[row.label].append(row.prompt)
        for label in group:
            yield label, held.pop(label)


def _runs(labels: Sequence[int], size: int) -> Iterator[list[int]]:
    """Labels that follow each other, at most ``size`` together."""
    run: list[int] = []
    for label in labels:
        if run and (label != run[-1] + 1 or len(run) == size):
            yield run
            run = []
        run.append(label)
    if run:
        yield run


class _Measuring:
    """What is kept of the classes that were measured: numbers, and of each distinct prompt twelve bytes."""

    def __init__(self, space: LabelSpace, text: TextSpace | None, compared: int) -> None:
        self.space, self.text, self.compared = space, text, compared
        self.classes: list[ClassStats] = []
        self._seen: set[bytes] = set()
        self._moments = _Moments() if text else None

    def add(self, label: int, prompts: list[str]) -> None:
        """Measure one more class."""
        counts = Counter(prompts)
        self._seen.update(hashlib.blake2b(prompt.encode(), digest_size=12).digest() for prompt in counts)
        distance, vendi = _scores(self._vectors(prompts))
        self.classes.append(
            ClassStats(
                rows=len(prompts),
                distinct=len(counts),
                tokens=_tokens(self.text, counts) if self.text else None,
                distance=distance,
                vendi=vendi,
                label=label,
                name=self.space.classes[label].name,
                first_repeat=_first_repeat(prompts, label, len(self.space.classes)),
            )
        )

    def _vectors(self, prompts: list[str]) -> Tensor | None:
        """Of the rows that are compared; those of all are added up."""
        if self.text is None or self._moments is None:
            return None
        found = self.text.vectors(prompts).cpu().double()
        self._moments.add(found)
        return found[: self.compared]

    def overall(self) -> Overall:
        """All classes together."""
        rows, distinct = (sum(getattr(c, key) for c in self.classes) for key in ("rows", "distinct"))
        return Overall(
            rows=rows,
            distinct=len(self._seen),
            tokens=_joined([(c.tokens, c.rows) for c in self.classes if c.tokens]),
            distance=self._moments.distance() if self._moments else None,
            vendi=self._moments.vendi() if self._moments else None,
            repeats=sum(c.first_repeat is not None for c in self.classes),
            shared=distinct - len(self._seen),
            class_distance=_mean([c.distance for c in self.classes]),
            class_vendi=_mean([c.vendi for c in self.classes]),
        )


class _Moments:
    """The Vendi score and the mean distance of rows of length one that are not kept: their d x d matrix is.

    As :mod:`prism_fast.evaluation.vendi`: the eigenvalues of ``V^T V / n``, and ``n / (n - 1) (1 - |mean v|^2)``.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._sum: Tensor | None = None
        self._product: Tensor | None = None

    def add(self, vectors: Tensor) -> None:
        """Shapes: (n, d), float64."""
        vectors = vectors / vectors.norm(dim=1, keepdim=True)
        total, product = vectors.sum(0), vectors.T @ vectors
        self.rows += len(vectors)
        self._sum = total if self._sum is None else self._sum + total
        self._product = product if self._product is None else self._product + product

    def distance(self) -> float | None:
        """None of fewer than two rows."""
        if self._sum is None or self.rows < 2:
            return None
        return max(0.0, self.rows - float(self._sum.square().sum()) / self.rows) / (self.rows - 1)

    def vendi(self) -> float | None:
        """None of no rows."""
        import torch

        if self._product is None:
            return None
        eigenvalues = torch.linalg.eigvalsh(self._product / self.rows).clamp_min(0)
        return min(max(math.exp(float(torch.special.entr(eigenvalues).sum())), 1.0), float(self.rows))


def _scores(vectors: Tensor | None) -> tuple[float | None, float | None]:
    """Mean distance and Vendi score; without vectors no library is loaded."""
    if vectors is None:
        return None, None
    from prism_fast.evaluation.vendi import mean_pairwise_distance, vendi_score

    return mean_pairwise_distance(vectors) if len(vectors) > 1 else None, vendi_score(vectors)


def _tokens(text: TextSpace, counts: Counter[str]) -> TokenCounts:
    """Of each distinct prompt once, as often as it comes."""
    found = list(zip(text.tokens(list(counts)), counts.values(), strict=True))
    lengths = [length for length, _ in found]
    return TokenCounts(
        min=min(lengths),
        mean=sum(length * times for length, times in found) / counts.total(),
        max=max(lengths),
        too_long=sum(times for length, times in found if length > text.limit),
    )


def _joined(parts: Sequence[tuple[TokenCounts, int]]) -> TokenCounts | None:
    """Of several classes, each with its number of rows."""
    if not parts:
        return None
    return TokenCounts(
        min=min(tokens.min for tokens, _ in parts),
        mean=sum(tokens.mean * rows for tokens, rows in parts) / sum(rows for _, rows in parts),
        max=max(tokens.max for tokens, _ in parts),
        too_long=sum(tokens.too_long for tokens, _ in parts),
    )


def _first_repeat(prompts: Sequence[str], label: int, classes: int) -> int | None:
    """The row of the plan; the class's t-th prompt is row ``label + t · classes``."""
    seen: set[str] = set()
    for turn, prompt in enumerate(prompts):
        if prompt in seen:
            return label + turn * classes
        seen.add(prompt)
    return None


def _mean(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else None
