"""The doctor names every reason, and never dies of what it finds."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import save_file
from typer.testing import CliRunner

from prism_fast import doctor
from prism_fast.cli.doctor import doctor as command
from prism_fast.doctor import Answer, Check


@pytest.fixture(scope="module")
def checks() -> list[Check]:
    return doctor.examine()


def test_every_probe_answers_once(checks: list[Check]) -> None:
    assert [(c.group, c.name) for c in checks] == [(group, name) for group, name, _ in doctor.PROBES]
    assert len({(c.group, c.name) for c in checks}) == len(checks)


def test_ok_means_no_reasons(checks: list[Check]) -> None:
    assert [c for c in checks if c.ok != (not c.reasons)] == []


def test_reasons_are_one_line_and_say_what_to_do(checks: list[Check]) -> None:
    reasons = [reason for c in checks for reason in c.reasons]
    assert [r for r in reasons if "\n" in r or ";" not in r] == []


def test_what_the_base_install_needs_runs(checks: list[Check]) -> None:
    found = {(c.group, c.name): c for c in checks}
    for key in [("torch", "cpu"), ("loaders", "torch"), ("engines", "eager"), ("attention", "sdpa")]:
        assert found[key].ok, found[key]
        assert found[key].version.partition("+")[0] == torch.__version__.partition("+")[0]


def test_gpu_rows_agree_with_torch(checks: list[Check]) -> None:
    cuda = next(c for c in checks if (c.group, c.name) == ("torch", "cuda"))
    assert cuda.ok == torch.cuda.is_available()


def test_triton_interpreter_runs_on_the_cpu() -> None:
    pytest.importorskip("triton")
    assert doctor.run_probe("kernels", "triton interpreter", doctor._triton_interpreter).reasons == ()


def test_gpu_probe_without_library_and_gpu_gives_both_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check = doctor.run_probe("loaders", "dali gpu", {(g, n): p for g, n, p in doctor.PROBES}["loaders", "dali gpu"])
    assert not check.ok
    assert len(check.reasons) == 2
    assert "pip install 'prism-fast[dali]'" in check.reasons[0]
    assert "GPU" in check.reasons[1]


def test_a_probe_that_raises_becomes_a_reason() -> None:
    def probe() -> Answer:
        raise RuntimeError("first\nsecond")

    check = doctor.run_probe("engines", "fake", probe)
    assert not check.ok
    assert "RuntimeError: first)" in check.reasons[0]


def test_a_probe_cannot_spoil_stdout_warnings_or_logging(capsys: pytest.CaptureFixture[str]) -> None:
    def probe() -> Answer:
        print("chatter")
        warnings.warn("noise", stacklevel=1)
        return Answer("1")

    assert doctor.run_probe("engines", "fake", probe) == Check("fake", "engines", ok=True, version="1")
    assert capsys.readouterr().out == ""
    assert logging.root.manager.disable == logging.NOTSET


def test_weights_missing_whole_and_truncated(tmp_path: Path) -> None:
    assert "holds no *.safetensors" in str(doctor.weights_reason(tmp_path))
    path = tmp_path / "model.safetensors"
    save_file({"w": torch.zeros(64)}, path)
    assert doctor.weights_reason(tmp_path) is None
    path.write_bytes(path.read_bytes()[:-8])
    assert "cannot be read" in str(doctor.weights_reason(tmp_path))


def test_program_that_fails_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "not on the path; get it" in doctor._program(("tool",), "get it").reasons[0]
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho no display >&2\nexit 3\n")
    tool.chmod(0o755)
    assert "does not start (no display); get it" in doctor._program(("tool",), "get it").reasons[0]
    tool.write_text("#!/bin/sh\necho 1.2.3\n")
    assert doctor._program(("tool",), "get it") == Answer("1.2.3")


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    fakes = [
        Check("eager", "engines", ok=True, version="2.0"),
        Check("openvino", "engines", ok=False, reasons=("not installed; run: pip install 'prism-fast[cpu]'", "old; x")),
    ]
    monkeypatch.setattr(doctor, "examine", lambda: fakes)
    application = typer.Typer()
    application.command()(command)
    return application


def test_json_is_a_list_of_objects(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["--json"])
    assert result.exit_code == 0
    first, second = json.loads(result.stdout)
    assert first == {"name": "eager", "group": "engines", "ok": True, "reasons": [], "version": "2.0"}
    assert len(second["reasons"]) == 2


def test_table_shows_every_reason_and_exits_zero(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, [], env={"COLUMNS": "120"})
    assert result.exit_code == 0
    # extras in brackets must not be eaten as rich markup
    assert "pip install 'prism-fast[cpu]'" in result.stdout
    assert "old; x" in result.stdout
