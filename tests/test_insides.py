"""What we touch inside of libraries is in one file for each: a new version of theirs changes one file of ours."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Names of diffusers that are no interface: its blocks, and the parts of its networks.
DIFFUSERS = re.compile(
    r"diffusers\.models\.(?!attention_processor)"
    r"|\.(down_blocks|up_blocks|mid_block|time_embedding|time_emb_proj|get_aug_embed|get_time_embed|conv_norm_out)\b"
)


def files_that_say(pattern: re.Pattern[str]) -> list[str]:
    sources = [path for package in ("prism_fast", "engines", "kernels") for path in (ROOT / package).rglob("*.py")]
    return sorted(str(path.relative_to(ROOT)) for path in sources if pattern.search(path.read_text()))


def test_one_file_reaches_into_diffusers() -> None:
    assert files_that_say(DIFFUSERS) == ["prism_fast/models/diffusers_blocks.py"]


def test_libraries_whose_insides_are_touched_have_an_upper_bound() -> None:
    """Triton's file is named by tests/kernels/test_insides.py."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for library in ("diffusers", "triton"):
        (wanted,) = (line for line in project["dependencies"] if re.match(rf"{library}\b", line))
        assert re.search(r">=[\d.]+,<[\d.]+", wanted), wanted
