"""One self-contained HTML page about a run."""

from prism_fast.evaluation.report.model import (
    ClassAccuracy,
    ClassSpread,
    Confusion,
    Curve,
    CurveChart,
    Diversity,
    Fact,
    GuidancePair,
    Headline,
    ImageGrid,
    NumberRow,
    Picture,
    Report,
    Score,
)
from prism_fast.evaluation.report.render import build_report, render_html

__all__ = [
    "ClassAccuracy",
    "ClassSpread",
    "Confusion",
    "Curve",
    "CurveChart",
    "Diversity",
    "Fact",
    "GuidancePair",
    "Headline",
    "ImageGrid",
    "NumberRow",
    "Picture",
    "Report",
    "Score",
    "build_report",
    "render_html",
]
