"""Pages of the site that lie elsewhere in the repository, and links that mean the same there and here.

The README is the home page, and every design record is in the navigation. A link that a reader of the repository can
follow leads to the page, if there is one, and becomes plain text if it leads to a file that is none.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
#: File of the repository -> page of the site.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/RESULTS.md": "benchmarks.md",
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_config(config: Any) -> Any:
    """Every design record is in the navigation, under its own heading."""
    (records,) = (part["Design records"] for part in config.nav if "Design records" in part)
    for file in sorted((ROOT / "docs" / "design").glob("0*.md")):
        title = file.read_text().splitlines()[0].removeprefix("# ")
        records.append({title: f"design/{file.name}"})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add what lies outside of ``docs``."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links from where the file lies to where its page is."""
    here: str = page.file.src_uri
    source = {made: given for given, made in PAGES.items()}.get(here, f"docs/{here}")

    def moved(link: re.Match[str]) -> str:
        image, text, target, anchor = link.groups()
        return _link(image, text, target, anchor or "", posixpath.dirname(source), posixpath.dirname(here))

    parts = _FENCE.split(markdown)  # every second one is a block of code
    return "".join(part if i % 2 else _LINK.sub(moved, part) for i, part in enumerate(parts))


def _link(image: str, text: str, target: str, anchor: str, source: str, here: str) -> str:
    file = posixpath.normpath(posixpath.join(source, target))
    if file in PAGES:
        page = PAGES[file]
    elif file.startswith("docs/"):
        page = file.removeprefix("docs/") + ("/README.md" if (ROOT / file).is_dir() else "")
    elif (ROOT / file).exists():
        return text
    else:
        page = target  # mkdocs says that it is not there
    return f"{image}[{text}]({posixpath.relpath(page, here or '.')}{anchor})"
