"""All steps together: the table, what is chosen of it, and the answer."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest
import torch
from prism_kernels._registry import OPS

from prism_fast.config import RunConfig, load_config
from prism_fast.config.schema import BackendName, SamplingConfig
from prism_fast.errors import InputError
from prism_fast.gpu_check.check import StepResult, check_all, chosen, require_gpu
from prism_fast.gpu_check.table import BACKENDS, DTYPES, OPERATORS, STEPS
from tests.gpu_check.stand_ins import step


def test_the_table_has_every_operator_type_and_backend() -> None:
    assert set(OPERATORS) == set(OPS)
    assert set(BACKENDS) == set(get_args(BackendName)) - {"eager", "auto"}
    assert set(DTYPES) == set(get_args(SamplingConfig.model_fields["dtype"].annotation))
    assert len({one.name for one in STEPS}) == len(STEPS)
    assert all(callable(import_module(one.module).check) for one in STEPS)


def test_what_is_chosen() -> None:
    assert chosen(()) == list(STEPS)
    assert [one.name for one in chosen(["decode", "guided"])] == ["driver", *(f"guided:{d}" for d in DTYPES), "decode"]
    assert [one.name for one in chosen(["operators:view"])] == ["driver", "operators:view"]
    with pytest.raises(
        InputError, match="--only nothing is no step, expected some of: driver, operators:counter_noise"
    ):
        chosen(["decode", "nothing"])


def test_none_ends_the_others(tmp_path: Path) -> None:
    steps = [step(f"stand:{case}") for case in ("pass", "raise", "SIGKILL", "skip")]
    seen: list[str | StepResult] = []
    made = check_all(steps, "cpu", None, tmp_path / "out", seen.append, seen.append)
    assert [(one.name, one.status) for one in made.steps] == [
        ("stand:pass", "PASS"),
        ("stand:raise", "FAIL"),
        ("stand:SIGKILL", "FAIL"),
        ("stand:skip", "SKIP"),
    ]
    assert seen == [x for one in made.steps for x in (one.name, one)]
    assert (made.device, made.driver, made.passed) == ("a card", "1.2", False)
    assert json.loads((tmp_path / "out" / "gpu-check.json").read_text()) == {
        **asdict(made),
        "steps": [asdict(one) for one in made.steps],
    }
    logs = [f"stand-{case}.log" for case in ("SIGKILL", "pass", "raise", "skip")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["gpu-check.json", *logs]
    assert made.steps[1].remedy == f"messages: {tmp_path / 'out' / 'stand-raise.log'}"


def test_without_a_failure_it_passes_and_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    made = check_all([step("stand:skip")], "cpu")
    assert (made.device, made.driver, made.passed) == ("cpu", "unknown", True)
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_a_failure_says_how_to_keep_its_messages() -> None:
    (one,) = check_all([step("stand:fail")], "cpu").steps
    assert one.remedy == "mend it; for its messages: --only stand:fail --out DIR"


def test_the_configuration_reaches_the_steps(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[RunConfig] = []

    def run_step(one: object, options: object, messages: Path) -> tuple[object, float]:
        from prism_fast.gpu_check.finding import Options, passed

        assert isinstance(options, Options)
        assert options.config is not None
        seen.append(load_config(options.config))
        return passed("read"), 0.0

    monkeypatch.setattr("prism_fast.gpu_check.check.run_step", run_step)
    check_all([step("stand:pass")], "cpu", config)
    assert seen == [config]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose another --out"):
        check_all([step("stand:pass")], "cpu", None, tmp_path / "file")


@pytest.mark.parametrize(
    ("device", "words"),
    [("cpu", "checks a GPU, got --device cpu"), ("card", "--device card is unknown"), ("cuda:2", "the last of 2 GPUs")],
)
def test_a_device_that_is_no_gpu_here_is_refused(device: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    require_gpu("cuda")
    require_gpu("cuda:1")
    with pytest.raises(InputError, match=words):
        require_gpu(device)


def test_without_a_gpu_it_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="gpu-check needs an NVIDIA GPU: torch sees no CUDA GPU"):
        require_gpu("cuda:0")
