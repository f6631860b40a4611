"""The report's section of diversity by class."""

from __future__ import annotations

import re

import pytest

from prism_fast.errors import InputError
from prism_fast.evaluation.report import ClassSpread, Diversity, Report, render_html
from tests.evaluation.sample_report import CLASSES, sample_report


def _rows(html: str) -> list[list[str]]:
    """Cells of the section's table as text, without its header."""
    section = re.search(r'<section id="diversity">(.*?)</section>', html, re.DOTALL)
    assert section is not None
    rows = re.findall(r"<tr>(.*?)</tr>", section[1].split("<tbody>")[1], re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [[" ".join(re.sub("<[^>]*>", "", cell).split()) for cell in row] for row in cells]


def _spread(name: str, vendi: float | None, coverage: float | None = None) -> ClassSpread:
    return ClassSpread(name, (5,), (vendi,), (0.5,), (coverage,))


def test_the_table_goes_from_the_least_diverse_class_on() -> None:
    html = render_html(sample_report())
    rows = _rows(html)
    assert len(rows) == len(CLASSES)
    assert rows[0] == [f"{CLASSES[0]} 40 / 39", "", "– / 12.3", "93 / 70", "50 / 100"]
    shown = [float(row[2].split(" / ")[0]) for row in rows[1:]]
    assert shown == sorted(shown)
    bird = next(row for row in rows if row[0].startswith(CLASSES[3]))
    assert bird[4] == "– / –"
    assert "the first 39 images of each class" in html
    assert "Values: guided / unguided. Features: EfficientNet-Lite1, 128 px." in html


def test_bars_are_a_share_of_the_highest_score() -> None:
    html = render_html(Report(title="run", diversity=Diversity(("guided",), (_spread("a", 2.0), _spread("b", 8.0)))))
    assert re.findall(r'class="track c1"><span class="fill" style="width:([\d.]+)%', html) == ["25.00", "100.00"]


def test_of_many_classes_the_lowest_fifty_and_a_chart_of_all() -> None:
    for classes, shown in ((100, 100), (101, 50), (1000, 50)):
        spreads = tuple(_spread(f"class {i}", 2.0 + (i * 7 % classes)) for i in range(classes))
        html = render_html(Report(title="run", diversity=Diversity(("guided",), spreads, 2000)))
        rows = _rows(html)
        assert [float(row[2]) for row in rows] == [2.0 + i for i in range(shown)]
        assert (f"the lowest 50 of {classes:,}" in html) == (classes > 100)
        assert html.count("<svg") == (classes > 100)
        assert len(html) < 100_000


def test_without_real_pictures_there_is_no_column_of_coverage() -> None:
    html = render_html(Report(title="run", diversity=Diversity(("guided",), (_spread("a", 2.0), _spread("b", None)))))
    assert "overage" not in html
    assert _rows(html) == [["b 5", "", "–", "50"], ["a 5", "", "2", "50"]]
    assert "Diversity" not in render_html(Report(title="run", diversity=Diversity((), ())))


def test_each_class_has_a_value_for_each_set() -> None:
    with pytest.raises(InputError, match=r"class 'a' needs a value for each of 2 sets, got \{1\}"):
        Diversity(("guided", "unguided"), (_spread("a", 1.0),))


def test_names_are_escaped() -> None:
    nasty = "<script>alert(1)</script>"
    spreads = tuple(_spread(f"{nasty}{i}", 2.0, 0.5) for i in range(101))
    html = render_html(Report(title="run", diversity=Diversity((nasty,), spreads, 3, nasty)))
    assert "<script>alert" not in html
