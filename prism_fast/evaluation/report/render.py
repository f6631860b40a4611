"""Report -> one HTML file that needs nothing else: images, styles and charts are inside it."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from prism_fast.errors import InputError, RunError
from prism_fast.evaluation.report.charts import color_index, confusion_svg, curves_svg, histogram_svg, short, vendi_svg
from prism_fast.evaluation.report.model import ClassAccuracy, ClassSpread, Confusion, Diversity, Picture, Report
from prism_fast.storage.files import building

# A confusion matrix, or a bar a class, of a thousand classes is no picture any more.
_MAX_MATRIX = 32
_MAX_BARS = 40
_MAX_CONFUSIONS = 8
_MAX_SPREADS, _LOWEST_SPREADS = 100, 50
_HERO_PICTURES = 24


def build_report(report: Report, path: Path) -> Path:
    """Write the page; readers see the old file or the whole new one, never a part.

    Raises:
        InputError: there can be no such file. RunError: it cannot be written, a full disk for example.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with building(path) as staged, staged.open("w", encoding="utf-8") as file:
            file.writelines(_pieces(report))
    except OSError as error:
        if isinstance(error, (NotADirectoryError, FileExistsError, IsADirectoryError, PermissionError)):
            raise InputError(f"cannot write the report {path}: {error.strerror}; choose another --out") from error
        raise RunError(f"cannot write the report {path}: {error.strerror or error}; check the disk's space") from error
    return path


def render_html(report: Report) -> str:
    """The page as text."""
    return "".join(_pieces(report))


def _pieces(report: Report) -> Iterator[str]:
    """The page piece by piece: as a whole, its pictures would be in memory several times."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("prism_fast.evaluation.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=_percent, number=_number, energy=_energy, short=short, source=_source, width=_width, series=color_index
    )
    template = environment.get_template("report.html.j2")
    return template.generate(
        r=report,
        h=report.headline,
        hero=_hero(report),
        histogram=histogram_svg(report.energies) if report.energies else None,
        charts=[(chart, svg) for chart in report.charts if (svg := curves_svg(chart)) is not None],
        classes=_shown_classes(report.classes),
        matrix=_matrix(report.confusion),
        confused=_confusions(report.confusion),
        spreads=(spreads := _spreads(report.diversity)),
        profile=_profile(report.diversity),
        most_vendi=max((v for c in spreads for v in c.vendi if v is not None), default=1.0),
        summary=_embedded_json(report.summary),
    )


def _source(picture: Picture) -> str:
    return f"data:{picture.mime};base64,{base64.b64encode(picture.data).decode('ascii')}"


def _percent(fraction: float, digits: int = 1) -> str:
    return f"{fraction * 100:.{digits}f}"


def _width(fraction: float) -> str:
    """A CSS length; clamped, as a bar cannot leave its track."""
    return f"{min(1.0, max(0.0, fraction)) * 100:.2f}%"


def _number(value: float | int | str) -> str:
    """For tables: thousands separated, four digits of a float, a true minus."""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if not math.isfinite(value):
        return "not finite"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return text.replace("-", "−")


def _energy(value: float) -> str:
    """Two decimals, always: energies stand under each other."""
    return f"{value:.2f}".replace("-", "−")


def _hero(report: Report) -> list[Picture]:
    """A strip of samples: the first of every class, then the second, until there are enough."""
    longest = max((len(grid.pictures) for grid in report.grids), default=0)
    rounds = [grid.pictures[i] for i in range(longest) for grid in report.grids if i < len(grid.pictures)]
    return rounds[:_HERO_PICTURES]


def _shown_classes(classes: tuple[ClassAccuracy, ...]) -> list[ClassAccuracy]:
    """All classes, or the worst and the best of many; best first, those without pictures last."""
    ranked = sorted(classes, key=lambda c: -1.0 if c.top1 is None else c.top1, reverse=True)
    if len(ranked) <= _MAX_BARS:
        return ranked
    measured = [c for c in ranked if c.top1 is not None]
    return measured[: _MAX_BARS // 2] + measured[-_MAX_BARS // 2 :]


def _matrix(confusion: Confusion | None) -> Markup | None:
    if confusion is None or len(confusion.class_names) > _MAX_MATRIX:
        return None
    return confusion_svg(confusion)


def _confusions(confusion: Confusion | None) -> list[tuple[str, str, int, float]]:
    """The most frequent mistakes: (true class, said, count, share of the true class)."""
    if confusion is None:
        return []
    names = confusion.class_names
    found = [
        (names[i], names[j], count, count / sum(row))
        for i, row in enumerate(confusion.counts)
        for j, count in enumerate(row)
        if i != j and count
    ]
    return sorted(found, key=lambda f: (-f[2], -f[3]))[:_MAX_CONFUSIONS]


def _spreads(diversity: Diversity | None) -> tuple[ClassSpread, ...]:
    """All classes, or of very many those of least diversity, lowest first."""
    if diversity is None:
        return ()
    ranked = diversity.ranked()
    return ranked if len(ranked) <= _MAX_SPREADS else ranked[:_LOWEST_SPREADS]


def _profile(diversity: Diversity | None) -> Markup | None:
    """A chart of all classes, where the table has no room for them."""
    return vendi_svg(diversity) if diversity and len(diversity.classes) > _MAX_SPREADS else None


def _finite(value: Any) -> Any:
    """JSON has no NaN: such numbers become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value


def _embedded_json(summary: Mapping[str, Any]) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(_finite(summary), indent=1, allow_nan=False, ensure_ascii=True)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e"))  # no markup is left in it
