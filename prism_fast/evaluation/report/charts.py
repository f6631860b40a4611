"""Charts as inline SVG. Colours are CSS variables, so that one picture serves light and dark pages.

Every chart is drawn in a box about as wide as a telephone: it is shown near its own size everywhere, and its text
stays readable.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby

from markupsafe import Markup, escape

from prism_fast.evaluation.energies import EnergyHistogram
from prism_fast.evaluation.report.model import Confusion, Curve, CurveChart, Diversity

WIDTH, HEIGHT = 420, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 10, 12, 44
_MAX_POINTS = 400
_FIXED = {"guided": 1, "unguided": 2, "real": 3}


def color_index(name: str, position: int) -> int:
    """Number of the CSS colour of a series: guided, unguided and real look the same on the whole page."""
    return _FIXED.get(name.lower(), position % 6 + 1)


def ticks(low: float, high: float, count: int = 7) -> list[float]:
    """About ``count`` round numbers within [low, high]: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A number for an axis or a tile: thousands as k, a true minus, at most three digits."""
    if abs(value) >= 10000:
        text = f"{value / 1000:.3g}k" if abs(value) < 1e6 else f"{value / 1e6:.3g}M"
    else:
        text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return text.replace("-", "−")


class _Axes:
    """Maps data to the box and draws the frame."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.x0, self.x1 = x if x[1] > x[0] else (x[0] - 0.5, x[0] + 0.5)
        self.y0, self.y1 = y if y[1] > y[0] else (y[0] - 0.5, y[0] + 0.5)

    def px(self, x: float) -> float:
        return _LEFT + (x - self.x0) / (self.x1 - self.x0) * (WIDTH - _LEFT - _RIGHT)

    def py(self, y: float) -> float:
        return HEIGHT - _BOTTOM - (y - self.y0) / (self.y1 - self.y0) * (HEIGHT - _TOP - _BOTTOM)

    def path(self, points: Iterable[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{self.px(x):.1f} {self.py(y):.1f}" for x, y in points)

    def frame(self, x_label: str, y_label: str) -> str:
        parts = []
        for y in ticks(self.y0, self.y1, 4):
            at = self.py(y)
            parts.append(f'<line class="rule" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
            parts.append(f'<text x="{_LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">{short(y)}</text>')
        for x in ticks(self.x0, self.x1):
            parts.append(
                f'<text x="{self.px(x):.1f}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">{short(x)}</text>'
            )
        middle_x, middle_y = (_LEFT + WIDTH - _RIGHT) / 2, (_TOP + HEIGHT - _BOTTOM) / 2
        parts.append(f'<text x="{middle_x}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
        turn = f'transform="translate(12 {middle_y}) rotate(-90)"'
        parts.append(f'<text {turn} text-anchor="middle">{escape(y_label)}</text>')
        return "".join(parts)


def _svg(title: str, body: str, width: float = WIDTH, height: float = HEIGHT) -> Markup:
    label = escape(title)
    head = f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}"><title>{label}</title>'
    return Markup(head + body + "</svg>")  # every text in body went through escape()


def histogram_svg(histogram: EnergyHistogram) -> Markup:
    """Overlaid outlines, each set in percent of its own size, its median as a dashed line."""
    edges = histogram.edges
    shares = [[100 * count / s.n for count in s.counts] for s in histogram.sets]
    top = max(max(row) for row in shares) * 1.06
    axes = _Axes((edges[0], edges[-1]), (0.0, top))
    body = axes.frame("energy", "% of images")
    for position, (one, row) in enumerate(zip(histogram.sets, shares, strict=True)):
        outline = [(edges[0], 0.0)]
        for i, share in enumerate(row):
            outline += [(edges[i], share), (edges[i + 1], share)]
        shape = axes.path([*outline, (edges[-1], 0.0)])
        at = axes.px(one.median)
        color = color_index(one.name, position)
        body += f'<path class="area line c{color}" d="{shape}"/>'
        body += f'<line class="median c{color}" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>'
    medians = ", ".join(f"{s.name} {short(s.median)}" for s in histogram.sets)
    return _svg(f"Histogram of the teacher's energies; medians: {medians}", body)


def curves_svg(chart: CurveChart) -> Markup | None:
    """Lines; long ones are thinned. None when no point is finite."""
    lines = [_finite_runs(c.x, c.y) for c in chart.curves]
    points = [p for runs in lines for run in runs for p in run]
    if not points:
        return None
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    margin = (max(ys) - min(ys)) * 0.05
    axes = _Axes((min(xs), max(xs)), (min(ys) - margin, max(ys) + margin))
    body = axes.frame(chart.x_label, chart.y_label)
    for position, (curve, runs) in enumerate(zip(chart.curves, lines, strict=True)):
        path = "".join(axes.path(run if len(run) > 1 else run * 2) for run in runs)
        body += f'<path class="line c{color_index(curve.name, position)}" d="{path}"/>'
    names = ", ".join(c.name for c in chart.curves)
    return _svg(f"{chart.title}: {chart.y_label or 'value'} over {chart.x_label} for {names}", body)


def vendi_svg(diversity: Diversity) -> Markup | None:
    """Every class's score as one line a set, each in its own order. None when there is no score."""
    curves = []
    for position, name in enumerate(diversity.sets):
        scores = sorted(v for c in diversity.classes if (v := c.vendi[position]) is not None)
        curves.append(Curve(name, tuple(map(float, range(1, len(scores) + 1))), tuple(scores)))
    return curves_svg(CurveChart("Vendi scores", tuple(curves), "classes, least diverse first", "Vendi score"))


def _finite_runs(x: Sequence[float], y: Sequence[float]) -> list[list[tuple[float, float]]]:
    stride = max(1, math.ceil(len(x) / _MAX_POINTS))
    # Thinned from the end, so that the last value, which people look for, is always there.
    pairs = list(zip(x, y, strict=True))[::-1][::stride][::-1]
    groups = groupby(pairs, key=lambda p: math.isfinite(p[0]) and math.isfinite(p[1]))
    return [list(run) for finite, run in groups if finite]


def confusion_svg(confusion: Confusion) -> Markup:
    """Rows are true classes, columns what the student said; shade is the share of the row, numbers are counts."""
    names, cell = confusion.class_names, 26
    longest = min(18, max(len(n) for n in names))
    left, top, right = 16 + 7 * longest, 16 + 6 * longest, 12 + 4 * longest
    size = cell * len(names)
    parts = []
    for i, row in enumerate(confusion.counts):
        y = top + i * cell
        parts.append(f'<text x="{left - 8}" y="{y + 18}" text-anchor="end">{escape(_clip(names[i]))}</text>')
        turn = f"translate({left + i * cell + 17} {top - 7}) rotate(-55)"
        parts.append(f'<text transform="{turn}">{escape(_clip(names[i]))}</text>')
        total = sum(row) or 1
        for j, count in enumerate(row):
            parts.append(_cell(left + j * cell, y, cell, count, count / total, i == j))
    return _svg(f"{confusion.title}: confusion matrix", "".join(parts), left + size + right, top + size + 4)


def _cell(x: int, y: int, cell: int, count: int, share: float, right: bool) -> str:
    kind = "hit" if right else "miss"
    box = f'<rect class="empty" x="{x + 1}" y="{y + 1}" width="{cell - 2}" height="{cell - 2}" rx="4"/>'
    if not count:
        return box
    # The root of the share keeps a single mistake in thirty visible.
    opacity = f"{0.12 + 0.88 * math.sqrt(share):.2f}"
    shade = box.replace('class="empty"', f'class="{kind}" fill-opacity="{opacity}"')
    ink = "on" if float(opacity) > 0.66 else "off"
    number = f'<text class="{ink}" x="{x + cell / 2}" y="{y + 17.5}" text-anchor="middle">{count}</text>'
    return box + shade + number


def _clip(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "…"
