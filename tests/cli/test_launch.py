from __future__ import annotations

from pathlib import Path

import pytest

from prism_fast.operations.verify import verify
from tests.cli.conftest import Command

INPUT = 2


@pytest.mark.parametrize("text", ["3", "0/2", "3/2"])
def test_a_worker_is_i_of_n(prism: Command, tiny: Path, tmp_path: Path, text: str) -> None:
    answer = prism("synthesize", tiny, "--out", tmp_path / "run", "--worker", text)
    assert answer.code == INPUT
    assert answer.error() == f"--worker {text} is not i/N with 1 <= i <= N, for example 2/8"


def test_a_worker_does_not_launch(prism: Command, tiny: Path, tmp_path: Path) -> None:
    answer = prism("synthesize", tiny, "--out", tmp_path / "run", "--worker", "1/2", "--launch", "local")
    assert answer.code == INPUT
    assert answer.error().startswith("--worker is one worker by itself and --launch starts workers")


def test_an_unknown_launcher_names_the_known_ones(prism: Command, tiny: Path, tmp_path: Path) -> None:
    answer = prism("synthesize", tiny, "--out", tmp_path / "run", "--launch", "cloud")
    assert answer.code == INPUT
    for name in ("local", "ray", "torchrun", "slurm"):
        assert name in answer.err


def test_one_worker_of_many_makes_what_the_others_do_not(prism: Command, tiny: Path, tmp_path: Path) -> None:
    assert prism("synthesize", tiny, "--out", tmp_path / "run", "--worker", "2/64").code == 0
    assert verify(tmp_path / "run").problems == ()
