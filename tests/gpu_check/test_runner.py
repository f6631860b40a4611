"""A step in a process of its own: whatever it does, there is a finding, and nothing of it is left."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from prism_fast.gpu_check import runner
from prism_fast.gpu_check.finding import Finding, Options
from prism_fast.gpu_check.runner import Step, run_step
from tests.gpu_check.stand_ins import step


def found(case: str, tmp_path: Path, limit_s: float = 60) -> tuple[Finding, str]:
    """The finding, and the step's messages."""
    messages = tmp_path / "messages.log"
    finding, seconds = run_step(step(f"stand:{case}", limit_s), Options("cpu", str(tmp_path)), messages)
    assert seconds > 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "child") == ["messages.log"]
    return finding, messages.read_text()


def test_what_it_answers_is_the_finding_and_what_it_prints_is_not(tmp_path: Path) -> None:
    finding, messages = found("pass", tmp_path)
    assert finding == Finding("PASS", "on cpu", facts={"device": "a card", "driver": "1.2"})
    assert "noise of a library in C" in messages


@pytest.mark.parametrize(
    ("case", "wanted"),
    [
        ("fail", Finding("FAIL", "it is wrong", "mend it")),
        ("skip", Finding("SKIP", "no library", "install it")),
        ("exit", Finding("FAIL", "its process ended with exit code 3: last words")),
        ("nothing", Finding("FAIL", "its process ended with exit code 0: no message")),
    ],
)
def test_an_answer_and_a_process_without_one(case: str, wanted: Finding, tmp_path: Path) -> None:
    assert found(case, tmp_path)[0] == wanted


@pytest.mark.parametrize(
    ("case", "start", "remedy"),
    [
        ("raise", "ValueError: two lines (", ""),
        ("ours", "the disk refused; make room (", ""),
        ("memory", "MemoryError:", "free the GPU's memory"),
    ],
)
def test_an_error_is_a_finding_in_one_line(case: str, start: str, remedy: str, tmp_path: Path) -> None:
    finding, messages = found(case, tmp_path)
    assert finding.status == "FAIL"
    assert finding.found.startswith(start)
    assert "\n" not in finding.found
    assert finding.remedy.startswith(remedy)
    assert "Traceback" in messages


@pytest.mark.parametrize(("name", "why"), [("SIGKILL", "host memory"), ("SIGSEGV", "a library crashed")])
def test_a_signal_is_named(name: str, why: str, tmp_path: Path) -> None:
    finding, _ = found(name, tmp_path)
    assert (finding.status, finding.found) == ("FAIL", f"its process was ended by {name}")
    assert why in finding.remedy


def test_a_crash_says_where_it_was(tmp_path: Path) -> None:
    assert "stand_ins.py" in found("SIGSEGV", tmp_path)[1]


def test_what_passes_and_then_crashes_fails(tmp_path: Path) -> None:
    finding, _ = found("late", tmp_path)
    assert (finding.status, finding.found) == ("FAIL", "all well; but then its process was ended by SIGSEGV")


def test_a_step_that_hangs_says_where_and_is_ended(tmp_path: Path) -> None:
    began = time.monotonic()
    finding, messages = found("hang", tmp_path, limit_s=2)
    assert time.monotonic() - began < 60
    assert (finding.status, finding.found) == ("FAIL", "it took more than 2 s and was ended")
    assert "stand_ins.py" in messages


def test_a_process_that_does_not_end_itself_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "GRACE_S", 0.5)
    finding, _ = found("SIGSTOP", tmp_path, limit_s=2)
    assert (finding.status, finding.found) == ("FAIL", "it took more than 2 s and was ended")


def test_what_a_step_started_goes_with_it(tmp_path: Path) -> None:
    assert found("leave", tmp_path)[0].found == "its process was ended by SIGABRT"
    child = Path(f"/proc/{(tmp_path / 'child').read_text()}/stat")
    until = time.monotonic() + 30  # it was killed; that takes a moment on a busy machine
    while not gone(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert gone(child)


def gone(status: Path) -> bool:
    """Whether a process has ended, read or not."""
    try:
        return status.read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_step_has_another_limit_with_a_configuration() -> None:
    one = Step("shards", "module", 10, 100)
    assert one.limit(Options("cpu", "")) == 10
    assert one.limit(Options("cpu", "", config="own.yaml")) == 100
    assert Step("training", "module", 10).limit(Options("cpu", "", config="own.yaml")) == 10
