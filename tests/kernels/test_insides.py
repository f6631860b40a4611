"""Triton's insides have no promise to stay: one file may know them, so that a new Triton is mended in one place."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
# ``triton.runtime`` holds the interpreter, which is patched. Compiling without a GPU patches nothing: it calls
# ``triton.compile``, ``triton.compiler.ASTSource`` and ``triton.backends``, as Triton's own tool for that does.
INSIDES = re.compile(r"\btriton\s*\.\s*runtime\b|\bfrom\s+triton\s+import\b[^\n]*\bruntime\b")


def test_one_file_reaches_into_tritons_runtime() -> None:
    sources = [path for folder in ("prism_fast", "engines", "kernels") for path in (ROOT / folder).rglob("*.py")]
    found = {path.relative_to(ROOT).as_posix() for path in sources if INSIDES.search(path.read_text("utf-8"))}
    assert found == {"kernels/prism_kernels/_triton/_run.py"}
