"""Where the answer goes: a full disk, a reader that has gone, a terminal of another encoding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FULL = Path("/dev/full")
FAILED = 1


def command(*arguments: object, **changes: str) -> subprocess.Popen[str]:
    program = [sys.executable, "-m", "prism_fast", *map(str, arguments)]
    return subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **changes}
    )


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
@pytest.mark.parametrize(
    "arguments", [("configs",), ("--help",), ("prompts", "minis-emoji", "--images", "2", "--json")]
)
def test_a_full_disk_is_one_line(arguments: tuple[str, ...]) -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "prism_fast", *arguments], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
    assert done.returncode == FAILED
    assert done.stderr.splitlines() == [
        "error: standard output cannot be written: No space left on device; make room or send it elsewhere"
    ]


def test_a_reader_that_has_gone_is_no_error() -> None:
    process = command("prompts", "minis-emoji", "--images", "20000")
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.wait() == FAILED


def test_closed_streams_end_quietly() -> None:
    done = subprocess.run([f"{sys.executable} -m prism_fast configs >&-"], shell=True, capture_output=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_ascii_locale_reads_and_shows_other_letters(tmp_path: Path) -> None:
    (tmp_path / "labels.yaml").write_text("name: l\nclasses:\n  - name: chat\n    sense: été\n", encoding="utf-8")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}
    process = command(
        "prompts", "minis-emoji", "--images", "1", "--set", f"labels={tmp_path / 'labels.yaml'}",
        "--set", "prompts.templates=['{sense} {name}']", "--set", "prompts.styles=[x]", **ascii_only,
    )  # fmt: skip
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "chat" in out


def test_prompts_that_the_encoder_cuts_are_told(tmp_path: Path) -> None:
    """Else classes that differ only behind the cut give the same pictures, and nobody knows."""
    settings = [
        "engines.backend=eager", "sampling.steps=1", "sampling.batch_size=1", "synthesis.shard_size=1",
        f"prompts.templates=['{'very ' * 30}{{content}}']",
    ]  # fmt: skip
    given = [word for setting in settings for word in ("--set", setting)]
    process = command("synthesize", "minis-emoji", "--images", "1", "--out", tmp_path / "run", *given)
    _, said = process.communicate()
    assert process.returncode == 0
    assert "1 of the prompts are cut to the text encoder's 24 tokens, the first has" in said
