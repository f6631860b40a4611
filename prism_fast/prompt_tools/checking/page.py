"""``check.html``: one page that needs nothing else, of a thousand classes too."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prism_fast.labels.space import LabelSpace
from prism_fast.prompt_tools.checking.pictures import JudgedClass
from prism_fast.prompt_tools.checking.verdict import Checked, ChoiceVerdict, ClassVerdict, SenseVerdict
from prism_fast.storage.files import building, writing

#: Of so few classes the pictures are shown at once, of more behind their names.
_OPEN = 24
#: Lines of the table of classes' own choices.
_LOWEST = 60


@dataclass(frozen=True)
class _Cell:
    """One picture: ``saw`` is empty when the teacher saw the class."""

    source: str
    saw: str
    probability: float
    prompt: str


@dataclass(frozen=True)
class _Row:
    """One sense and its pictures by turn; None: quarantined."""

    sense: SenseVerdict
    cells: tuple[_Cell | None, ...]


@dataclass(frozen=True)
class _Block:
    verdict: ClassVerdict
    rows: tuple[_Row, ...]


def write_page(result: Checked, judged: Sequence[JudgedClass], space: LabelSpace, path: Path) -> None:
    """Write the page; readers see the old file or the whole new one.

    Raises:
        RunError: the disk refused.
    """
    with writing(path), building(path) as staged, staged.open("w", encoding="utf-8") as file:
        file.writelines(_pieces(result, judged, space))


def _pieces(result: Checked, judged: Sequence[JudgedClass], space: LabelSpace) -> Iterator[str]:
    """The page piece by piece: its pictures are encoded when their turn comes."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("prism_fast.prompt_tools.checking", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    pairs = sorted(zip(result.classes, judged, strict=True), key=lambda pair: (pair[0].senses[0].rank, pair[0].label))
    return environment.get_template("check.html.j2").generate(
        r=result,
        axes=_by_axis(result.axes),
        own=_lowest(result.classes),
        blocks=(_block(verdict, one, space) for verdict, one in pairs),
        opened=len(pairs) <= _OPEN,
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.0f} %"


def _by_axis(axes: Sequence[ChoiceVerdict]) -> dict[str, list[ChoiceVerdict]]:
    return {axis: [one for one in axes if one.axis == axis] for axis in sorted({one.axis for one in axes})}


def _lowest(classes: Sequence[ClassVerdict]) -> list[tuple[ClassVerdict, ChoiceVerdict]]:
    """What the teacher confirms least often, of choices that it does not always confirm."""
    found = [(verdict, one) for verdict in classes for one in verdict.choices if one.agreed.confirmed < one.agreed.n]
    found.sort(key=lambda pair: (pair[1].agreed.agreement or 0.0, -pair[1].agreed.n, pair[0].label))
    return found[:_LOWEST]


def _block(verdict: ClassVerdict, judged: JudgedClass, space: LabelSpace) -> _Block:
    job, cells = judged.job, dict[int, _Cell]()
    for picture in judged.pictures:
        place = picture.sense * job.images + picture.turn
        saw = "" if picture.said == job.label else space.classes[picture.said].name
        source = f"data:image/webp;base64,{base64.b64encode(picture.thumbnail).decode('ascii')}"
        cells[place] = _Cell(source, saw, picture.probability, job.rows[place].prompt)
    rows = (
        _Row(sense, tuple(cells.get(sense.number * job.images + turn) for turn in range(job.images)))
        for sense in verdict.senses
    )
    return _Block(verdict, tuple(rows))
