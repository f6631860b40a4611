"""``gpu-check``: refused at once without a GPU; else what the steps found, as a table or as JSON, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from prism_fast.cli.gpu_check import _Screen
from prism_fast.gpu_check.check import StepResult
from tests.cli.conftest import Command
from tests.gpu_check.stand_ins import step


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a card, whose steps are stand-ins; ``--only`` names those that are taken."""
    monkeypatch.setattr("prism_fast.gpu_check.check.require_gpu", lambda device: None)
    monkeypatch.setattr("prism_fast.gpu_check.check.chosen", lambda only: [step(f"stand:{case}") for case in only])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("json_too", [(), ("--json",)])
def test_without_a_gpu_it_says_so(prism: Command, json_too: tuple[str, ...]) -> None:
    answer = prism("gpu-check", *json_too)
    assert answer.code == 2
    assert answer.error().startswith("gpu-check needs an NVIDIA GPU: torch sees no CUDA GPU")


@pytest.mark.usefixtures("card")
def test_json_is_one_object(prism: Command) -> None:
    answer = prism("gpu-check", "--json", "--only", "pass", "--only", "skip")
    made = json.loads(answer.out)
    assert (answer.code, made["device"], made["driver"], made["passed"]) == (0, "a card", "1.2", True)
    assert [set(one) for one in made["steps"]] == [{"name", "status", "seconds", "found", "remedy"}] * 2
    assert [(one["status"], one["remedy"]) for one in made["steps"]] == [("PASS", ""), ("SKIP", "install it")]
    assert answer.err.splitlines() == ["stand:pass ...", "stand:pass PASS", "stand:skip ...", "stand:skip SKIP"]


@pytest.mark.usefixtures("card")
def test_a_failure_is_exit_code_1_and_stands_in_the_table(prism: Command, tmp_path: Path) -> None:
    answer = prism("gpu-check", "minis-emoji", "--only", "pass", "--only", "fail", "--out", tmp_path / "out")
    assert answer.code == 1
    assert "it is wrong" in answer.out
    assert "mend it" in answer.out
    assert "a card, driver 1.2: not all well" in answer.out
    assert json.loads((tmp_path / "out" / "gpu-check.json").read_text())["passed"] is False


@pytest.mark.usefixtures("card")
def test_a_wrong_configuration_is_refused_before_any_step(prism: Command) -> None:
    answer = prism("gpu-check", "no-such", "--only", "pass")
    assert answer.code == 2
    assert "configuration 'no-such' is neither a file" in answer.error()


def test_a_terminal_shows_each_step_as_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    screen = _Screen(plain=False)
    screen.close()
    assert capsys.readouterr().out == ""  # nothing is drawn for an input that was refused
    screen.began("decode")
    screen.ended(StepResult("decode", "FAIL", 1.5, "it is wrong", "mend it"))
    screen.close()
    shown = capsys.readouterr().out
    assert all(words in shown for words in ("decode", "FAIL", "1.5", "it is wrong", "mend it"))
