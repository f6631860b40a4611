"""The report as text: parts shown and left out, escaping, atomic writing."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prism_fast.errors import InputError, RunError
from prism_fast.evaluation.report import (
    ClassAccuracy,
    Confusion,
    Curve,
    CurveChart,
    Fact,
    Headline,
    ImageGrid,
    Picture,
    Report,
    Score,
    build_report,
    render_html,
)
from prism_fast.evaluation.report.charts import curves_svg, short, ticks
from prism_fast.evaluation.report.render import _pieces
from tests.evaluation.sample_report import CLASSES, sample_report


class _Page(HTMLParser):
    """Ids, tags and outside references of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images_without_alt = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if found.get("id"):
            self.ids.append(str(found["id"]))
        self.links += [str(found[key]) for key in ("src", "href") if found.get(key)]
        self.images_without_alt += tag == "img" and "alt" not in found


def test_full_page_is_complete_and_self_contained() -> None:
    html = render_html(sample_report())
    page = _Page(html)
    sections = {"pairs", "samples", "curves", "energies", "classes", "diversity", "numbers", "facts"}
    assert sections | {"summary", "tile-accuracy", "tile-speed", "tile-energy", "tile-prdc"} == set(page.ids)
    assert all(link.startswith("data:") for link in page.links)
    assert "url(" not in html
    assert page.images_without_alt == 0
    assert "61.7" in html
    assert "83 %" in html  # 0.617 / 0.741
    for name in CLASSES:
        assert name in html


def test_minimal_page_leaves_parts_out() -> None:
    page = _Page(render_html(Report(title="empty run")))
    assert page.ids == ["summary"]


def test_text_is_escaped() -> None:
    nasty = "<script>alert(1)</script>"
    report = Report(
        title=nasty,
        facts=(Fact(nasty, nasty),),
        charts=(CurveChart(nasty, (Curve(nasty, (0.0, 1.0), (1.0, 2.0)),), nasty, nasty),),
        confusion=Confusion((nasty, "b"), ((1, 2), (0, 3)), nasty),
        summary={nasty: nasty},
    )
    assert "<script>alert" not in render_html(report)


def test_summary_is_json_for_machines() -> None:
    html = render_html(sample_report())
    found = re.search(r'<script type="application/json" id="summary">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    assert json.loads(found[1]) == {
        "student_top1": 0.617, "note": "</script><b>", "bad": None, "versions": {"torch": "2"},
    }  # fmt: skip


def test_many_classes_are_cut_down() -> None:
    names = tuple(f"class {i}" for i in range(1000))
    counts = tuple(tuple(int(i == j) * 3 + int(j == (i + 1) % 1000) for j in range(1000)) for i in range(1000))
    classes = tuple(ClassAccuracy(name, 0.75 if i else None, 4) for i, name in enumerate(names))
    html = render_html(Report(title="imagenet", classes=classes, confusion=Confusion(names, counts)))
    assert "confusion matrix" not in html
    assert html.count('class="bar student"') == 40
    assert "best and the worst of 1000" in html
    assert len(html) < 100_000


def test_a_page_is_written_picture_by_picture(tmp_path: Path) -> None:
    """Neither the page nor one of its grids is ever in memory as a whole."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 60, 60, 3), np.uint8)
    large = Report(title="large", grids=(ImageGrid("one", tuple(map(Picture.of, noise))),) * 16)
    pieces = list(_pieces(large))
    assert max(map(len, pieces)) < 20_000
    assert len("".join(pieces)) > 64 * 14_000
    assert build_report(large, tmp_path / "report.html").read_text() == render_html(large) == "".join(pieces)


def test_build_is_atomic(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.html"
    assert build_report(Report(title="one"), path) == path
    build_report(Report(title="two"), path)
    assert "<h1>two</h1>" in path.read_text()
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    (tmp_path / "folder").mkdir()
    for bad in (path / "below-a-file.html", path / "far" / "below.html", tmp_path / "folder"):
        with pytest.raises(InputError, match=r"cannot write the report .*; choose another --out"):
            build_report(Report(title="three"), bad)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "folder"]


def test_a_full_disk_keeps_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = build_report(Report(title="one"), tmp_path / "report.html")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"cannot write the report .*: No space left on device"):
        build_report(Report(title="two"), path)
    assert "<h1>one</h1>" in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


def test_pictures() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    from_array, from_tensor = Picture.of(pixels), Picture.of(torch.from_numpy(pixels).permute(2, 0, 1))
    assert from_array == from_tensor
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(from_array.data))), pixels)
    for form, mime in (("webp", "image/webp"), ("jpeg", "image/jpeg")):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format=form)
        assert Picture.of(buffer.getvalue()).mime == mime
    with pytest.raises(InputError, match="PNG, JPEG or WebP"):
        Picture(b"GIF89a")
    with pytest.raises(InputError, match="uint8"):
        Picture.of(torch.zeros(3, 4, 4))


def test_headline_compares_within_a_test_set() -> None:
    other = Score("Teacher", 0.9, role="teacher", test_set="other")
    student = Score("Student", 0.6, role="student", test_set="known")
    assert Headline(scores=(other, student)).of_teacher() is None
    same = Score("Teacher", 0.8, role="teacher", test_set="known")
    assert Headline(scores=(other, student, same)).of_teacher() == pytest.approx(0.75)
    with pytest.raises(InputError, match="fractions"):
        Score("Student", 61.7)


def test_charts_survive_odd_data() -> None:
    assert curves_svg(CurveChart("none", (Curve("a", (0.0,), (math.nan,)),))) is None
    assert curves_svg(CurveChart("none", ())) is None
    broken = curves_svg(CurveChart("gap", (Curve("a", (0.0, 1.0, 2.0, 3.0), (1.0, math.inf, 1.0, 1.0)),)))
    assert broken is not None
    assert broken.count("M") == 2
    assert "nan" not in broken
    long = curves_svg(CurveChart("long", (Curve("a", tuple(map(float, range(9999))), (1.0,) * 9999),)))
    assert long is not None
    assert len(long) < 20_000
    with pytest.raises(InputError, match="2 x but 1 y"):
        Curve("a", (0.0, 1.0), (0.0,))
    with pytest.raises(InputError, match="confusion"):
        Confusion(("a", "b"), ((1, 2),))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-13, -1), (0, 1e6), (0.1, 0.1003), (-1e-9, 1e-9)])
def test_ticks_are_inside_and_few(low: float, high: float) -> None:
    found = ticks(low, high)
    margin = (high - low) * 1e-6
    assert 2 <= len(found) <= 9
    assert all(low - margin <= t <= high + margin for t in found)


def test_short_numbers() -> None:
    assert [short(v) for v in (-7.812, 12345.0, 1234.0, 2.5e6, 0.0)] == ["−7.81", "12.3k", "1234", "2.5M", "0"]
