"""Build the minis' real pictures: emoji concepts drawn in nine styles, 64×64 RGB on white.

Splits are by concept *family* ("cat", "cat face" and "black cat" are one family), so a test concept is unseen by the
generator, the teacher and the student in every style.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from prism_fast.labels.load import load_label_space
from prism_fast.labels.space import LabelSpace
from prism_fast.minis.sources import NAMES, STYLES, Source, fetch

SIZE = 64
TEST_SHARE, VAL_SHARE = 0.24, 0.10
# fmt: off
_MODIFIERS = frozenset((
    "face", "front-facing", "oncoming", "guide", "service", "black", "baby", "hatching", "small", "passenger",
    "articulated", "two-hump", "half", "waning", "full", "soft", "shaved", "manual", "motorized", "light", "glowing",
    "mountain", "japanese", "department", "office",
))
# fmt: on
_NOT_ALPHANUMERIC = re.compile(r"[^a-z0-9]")


@dataclass(frozen=True)
class Concept:
    """One emoji: its name, class, family and split."""

    name: str
    hexcode: str
    label: int
    split: str


def family(name: str) -> str:
    """Name without the words that only vary a drawing: ``"guide dog"`` -> ``"dog"``."""
    words = [w for w in name.lower().split() if w not in _MODIFIERS]
    words = [re.sub(r"[-\s]?(o’clock|thirty)$", "", w) for w in words]
    return " ".join(w for w in words if w) or name.lower()


def _split_of(families: dict[str, int]) -> dict[str, str]:
    """Deterministic split: families ordered by hash; the first fill test, then val, the rest is train."""
    total = sum(families.values())
    out, seen = {}, 0
    for name in sorted(families, key=lambda f: hashlib.sha256(f"prism-minis/{f}".encode()).hexdigest()):
        share = seen / total
        out[name] = "test" if share < TEST_SHARE else "val" if share < TEST_SHARE + VAL_SHARE else "train"
        seen += families[name]
    return out


def concepts(names_archive: Path, space: LabelSpace) -> list[Concept]:
    """Every emoji that belongs to a class of ``space``, with its split."""
    with tarfile.open(names_archive) as tar:
        member = tar.extractfile("package/data/openmoji.json")
        assert member is not None
        rows = json.load(member)
    found: list[tuple[str, str, int]] = []
    for row in rows:
        if row["skintone"] or row["group"].startswith("extras"):
            continue
        for label, cls in enumerate(space.classes):
            if row["subgroups"] in cls.subgroups and row["annotation"] not in cls.exclude:
                found.append((row["annotation"], row["hexcode"].lower(), label))
    sizes: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for name, _, label in found:
        sizes[label][family(name)] += 1
    splits = {label: _split_of(families) for label, families in sizes.items()}
    return [Concept(name, code, label, splits[label][family(name)]) for name, code, label in found]


def _key(text: str) -> str:
    return _NOT_ALPHANUMERIC.sub("", text.lower().replace("’", ""))


def _bare(code: str) -> str:
    return code.replace("-fe0f", "")


class _Iconify:
    """SVG pictures of an ``@iconify-json`` package, found by code point, else by name."""

    def __init__(self, archive: Path) -> None:
        with tarfile.open(archive) as tar:
            files = {m.name: m for m in tar.getmembers()}
            self.icons = self._read(tar, files["package/icons.json"])
            chars = files.get("package/chars.json")
            self.by_code = {_bare(k): v for k, v in self._read(tar, chars).items()} if chars else {}
        self.by_name = {_key(n): n for n in (*self.icons.get("aliases", {}), *self.icons["icons"])}

    @staticmethod
    def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, Any]:
        stream = tar.extractfile(member)
        assert stream is not None
        data: dict[str, Any] = json.load(stream)
        return data

    def picture(self, concept: Concept) -> Image.Image | None:
        import resvg_py

        name = self.by_code.get(_bare(concept.hexcode)) or self.by_name.get(_key(concept.name))
        if name is None:
            return None
        icon = self.icons["icons"].get(name) or self.icons["icons"].get(self.icons["aliases"][name]["parent"])
        if icon is None:
            return None
        size = {
            k: icon.get(k, self.icons.get(k, d)) for k, d in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
        }
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{size["left"]} {size["top"]} {size["width"]} {size["height"]}">{icon["body"]}</svg>'
        )
        png = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE * 4, height=SIZE * 4)
        return Image.open(io.BytesIO(bytes(png)))


class _Webp:
    """Bitmaps of ``@lobehub/fluent-emoji-3d``, named by code point."""

    def __init__(self, archive: Path) -> None:
        with tarfile.open(archive) as tar:
            self.files = {
                _bare(Path(m.name).stem): stream.read()
                for m in tar.getmembers()
                if m.name.endswith(".webp") and (stream := tar.extractfile(m)) is not None
            }

    def picture(self, concept: Concept) -> Image.Image | None:
        data = self.files.get(_bare(concept.hexcode))
        return None if data is None else Image.open(io.BytesIO(data))


def _on_white(image: Image.Image) -> Image.Image:
    """Flatten on white and reduce to 64×64 with an antialiasing filter."""
    rgba = image.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return flat.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def render_style(source: Source, archive: Path, wanted: list[Concept]) -> list[dict[str, Any]]:
    """Rows (image, label, concept, style, split) of one style; concepts it lacks are left out."""
    reader = _Webp(archive) if source.style == "fluent 3d" else _Iconify(archive)
    rows = []
    for concept in wanted:
        image = reader.picture(concept)
        if image is not None:
            rows.append(
                {
                    "image": _png(_on_white(image)),
                    "label": concept.label,
                    "concept": concept.name,
                    "style": source.style,
                    "split": concept.split,
                    "licence": source.licence,
                    "author": source.author,
                }
            )
    return rows


def build(out: Path, cache: Path, log: Any = print) -> Path:
    """Fetch, render and split every picture into ``out/emoji.parquet``."""
    wanted = concepts(fetch(NAMES, cache), load_label_space("emoji"))
    rows: list[dict[str, Any]] = []
    for source in STYLES:
        drawn = render_style(source, fetch(source, cache), wanted)
        log(f"{source.style}: {len(drawn)} of {len(wanted)} concepts")
        rows += drawn
    out.mkdir(parents=True, exist_ok=True)
    path = out / "emoji.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path
