"""What the teacher says of the senses: ``check.json``."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Literal

from pydantic import BaseModel, ConfigDict

from prism_fast.dataset.sealed import Sealed
from prism_fast.evaluation.accuracy import wilson_interval
from prism_fast.prompt_tools.checking.jobs import Job
from prism_fast.prompt_tools.checking.pictures import JudgedClass, Picture

#: Choices that belong to one class; every other one is an axis of all classes.
OWN = ("sort", "scene", "content")
_CONFUSIONS = 3


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Agreement(_Part):
    """Of ``n`` images the teacher takes ``confirmed`` for their class; share and 95 % interval, none of no image."""

    n: int
    confirmed: int
    agreement: float | None
    low: float | None
    high: float | None


class Seen(_Part):
    """Another class that the teacher saw, in ``n`` of a sense's images."""

    class_name: str
    n: int
    share: float


class SenseVerdict(_Part):
    """One sense of a class; number 0 is the one in use, the others are its alternatives.

    ``probability`` is the class's mean probability; ``saw`` the classes that it was most often taken for.
    """

    class_name: str
    label: int
    number: int
    sense: str
    quarantined: int
    agreed: Agreement
    probability: float | None
    saw: tuple[Seen, ...]

    @property
    def never(self) -> bool:
        """Whether there were images and the teacher confirmed none."""
        return self.agreed.n > 0 and self.agreed.confirmed == 0

    @property
    def rank(self) -> tuple[float, float]:
        """What is compared: agreement, then probability; lowest if there was no image."""
        return (-1.0, 0.0) if self.agreed.agreement is None else (self.agreed.agreement, self.probability or 0.0)


class ChoiceVerdict(_Part):
    """One value of an axis in all classes, or of what is a class's own; all senses count."""

    axis: str
    value: str
    agreed: Agreement


class ClassVerdict(_Part):
    """One class: its senses, and its own choices, lowest first. ``best`` is the number of its best sense."""

    name: str
    label: int
    key: str
    best: int
    senses: tuple[SenseVerdict, ...]
    choices: tuple[ChoiceVerdict, ...]


class Better(_Part):
    """An alternative that beats the sense in use; of the images that both have, how many only one of them got right."""

    class_name: str
    label: int
    sense: SenseVerdict
    alternative: SenseVerdict
    only_sense: int
    only_alternative: int


class Checked(Sealed):
    """What a check found. It holds nothing that depends on when, where or in how many attempts it was made."""

    version: Literal[1] = 1
    name: str
    seed: int
    images_each: int
    models: dict[str, str]
    engines: dict[str, str]
    quarantined: int
    agreed: Agreement
    never: tuple[SenseVerdict, ...]
    better: tuple[Better, ...]
    axes: tuple[ChoiceVerdict, ...]
    classes: tuple[ClassVerdict, ...]

    @property
    def senses(self) -> list[SenseVerdict]:
        """Every sense, worst first."""
        return sorted((s for c in self.classes for s in c.senses), key=lambda s: (*s.rank, s.label, s.number))


def checked(
    name: str,
    seed: int,
    models: Mapping[str, str],
    engines: Mapping[str, str],
    names: Sequence[str],
    judged: Sequence[JudgedClass],
) -> Checked:
    """The verdict on classes.

    Args:
        name: the configuration's.
        seed: of the noise.
        models: hashes of the networks.
        engines: digests of the engines by part.
        names: of all classes, by label.
        judged: at least one class.
    """
    found = [_class(one, names) for one in judged]
    senses = [sense for verdict in found for sense in verdict.senses]
    return Checked(
        name=name,
        seed=seed,
        images_each=judged[0].job.images,
        models=dict(models),
        engines=dict(engines),
        quarantined=sum(sense.quarantined for sense in senses),
        agreed=_agreed(sum(s.agreed.confirmed for s in senses), sum(s.agreed.n for s in senses)),
        never=tuple(sense for sense in senses if sense.never),
        better=tuple(_better(v, one) for v, one in zip(found, judged, strict=True) if v.best > 0),
        axes=_axes((one.job, picture) for one in judged for picture in one.pictures),
        classes=tuple(found),
    )


def _class(judged: JudgedClass, names: Sequence[str]) -> ClassVerdict:
    job, by_sense = judged.job, defaultdict[int, list[Picture]](list)
    for picture in judged.pictures:
        by_sense[picture.sense].append(picture)
    senses = tuple(_sense(job, number, by_sense[number], names) for number in range(len(job.senses)))
    best = max(senses, key=lambda sense: (*sense.rank, -sense.number))
    return ClassVerdict(
        name=job.name,
        label=job.label,
        key=judged.key,
        best=best.number,
        senses=senses,
        choices=_own(job, judged.pictures),
    )


def _sense(job: Job, number: int, pictures: Sequence[Picture], names: Sequence[str]) -> SenseVerdict:
    n = len(pictures)
    others = Counter(picture.said for picture in pictures if picture.said != job.label)
    most = sorted(others.items(), key=lambda item: (-item[1], item[0]))[:_CONFUSIONS]
    return SenseVerdict(
        class_name=job.name,
        label=job.label,
        number=number,
        sense=job.senses[number],
        quarantined=job.images - n,
        agreed=_agreed(n - others.total(), n),
        probability=round(sum(picture.probability for picture in pictures) / n, 6) if n else None,
        saw=tuple(Seen(class_name=names[said], n=times, share=times / n) for said, times in most),
    )


def _better(verdict: ClassVerdict, judged: JudgedClass) -> Better:
    right = {(p.sense, p.turn): p.said == judged.job.label for p in judged.pictures}
    pairs = [
        (right[0, turn], right[verdict.best, turn])
        for turn in range(judged.job.images)
        if (0, turn) in right and (verdict.best, turn) in right
    ]
    return Better(
        class_name=verdict.name,
        label=verdict.label,
        sense=verdict.senses[0],
        alternative=verdict.senses[verdict.best],
        only_sense=pairs.count((True, False)),
        only_alternative=pairs.count((False, True)),
    )


def _axes(pictures: Iterable[tuple[Job, Picture]]) -> tuple[ChoiceVerdict, ...]:
    """Axes of all classes; a choice that says nothing on an axis has the empty value."""
    said = [
        ({axis: value for axis, value in job.choices[picture.turn].items() if axis not in OWN}, job, picture)
        for job, picture in pictures
    ]
    axes = dict.fromkeys(axis for choices, _, _ in said for axis in choices)
    return _table((axis, choices.get(axis, ""), job, picture) for choices, job, picture in said for axis in axes)


def _own(job: Job, pictures: Sequence[Picture]) -> tuple[ChoiceVerdict, ...]:
    return _table(
        (axis, value, job, picture)
        for picture in pictures
        for axis, value in job.choices[picture.turn].items()
        if axis in OWN
    )


def _table(rows: Iterable[tuple[str, str, Job, Picture]]) -> tuple[ChoiceVerdict, ...]:
    """Lowest agreement first; of equals those of more images."""
    counted: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for axis, value, job, picture in rows:
        tally = counted[axis, value]
        tally[0] += picture.said == job.label
        tally[1] += 1
    ordered = sorted(counted.items(), key=lambda item: (item[1][0] / item[1][1], -item[1][1], item[0]))
    return tuple(ChoiceVerdict(axis=axis, value=value, agreed=_agreed(*tally)) for (axis, value), tally in ordered)


@lru_cache(maxsize=65_536)
def _agreed(confirmed: int, n: int) -> Agreement:
    low, high = wilson_interval(confirmed, n) if n else (None, None)
    return Agreement(n=n, confirmed=confirmed, agreement=confirmed / n if n else None, low=low, high=high)
