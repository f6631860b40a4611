"""The table of ``docs/engines.md``: parts by backends, from what was built and what was refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prism_fast.compile.build import Built, Refused
from prism_fast.errors import InputError

BEGIN, END = "<!-- engines: begin -->", "<!-- engines: end -->"


def as_markdown(built: Sequence[Built], refused: Sequence[Refused]) -> str:
    """One row an engine, and one a refusal with its reason."""
    head = "| part | backend | precision | MB | build s | error | cosine | × eager | gated through |"
    rows = [head, "|---|---|---|---|---|---|---|---|---|"]
    for b in built:
        speed = "cannot run here" if b.speedup_vs_eager is None else f"{b.speedup_vs_eager:.2f}"
        numbers = f"{b.size_bytes / 1e6:.1f} | {b.build_s:.1f} | {b.rel_error:.1e} | {b.cosine:.5f}"
        rows.append(f"| {b.part} | {b.backend} | {b.precision} | {numbers} | {speed} | {b.gated_through} |")
    rows += [f"| {r.part} | {r.backend} | – | – | – | – | – | no: {r.reason} | – |" for r in refused]
    return "\n".join(rows) + "\n"


def write_table(page: Path, table: str) -> None:
    """Put ``table`` between the page's two markers.

    Raises:
        InputError: the page does not exist, or lacks a marker.
    """
    text = page.read_text() if page.is_file() else ""
    if BEGIN not in text or END not in text:
        raise InputError(f"{page} must be a page that holds the lines {BEGIN!r} and {END!r}")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n{table}{END}{after}")
