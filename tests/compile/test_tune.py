"""The batch size that pays, found in child processes and remembered for the device."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from prism_fast.compile import tune as tuning
from prism_fast.compile.trial import OUT_OF_MEMORY
from prism_fast.compile.tune import Trial, run_trial, tune, tuned_batch, tuned_file, with_tuned_batch
from prism_fast.config import RunConfig, assign, load_config
from prism_fast.errors import ConfigError, InputError, RunError
from tests.damage import make_pipe
from tests.tiny import write_config


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("tune"), sampling={"steps": 2, "height": 16, "width": 16})


def _curve(rates: dict[int, float | None], tried: list[int]) -> tuning.RunTrial:
    def run(config: RunConfig, store: Path) -> Trial:
        size = config.sampling.fixed_batch_size
        tried.append(size)
        return Trial(size, rates[size], None if rates[size] is None else size)

    return run


def test_the_search_stops_where_memory_runs_out(path: Path, tmp_path: Path) -> None:
    tried: list[int] = []
    found = tune(load_config(str(path)), tmp_path, 64, print, _curve({1: 1.0, 2: 2.0, 4: 3.0, 8: None}, tried))
    assert tried == [1, 2, 4, 8]
    assert found.batch_size == 4
    assert found.trials[-1].images_per_s is None


def test_of_two_that_are_as_fast_the_smaller_is_taken(path: Path, tmp_path: Path) -> None:
    tried: list[int] = []
    rates: dict[int, float | None] = {1: 1.0, 2: 2.0, 4: 2.02, 8: 2.05, 16: 9.0}
    assert tune(load_config(str(path)), tmp_path, 64, print, _curve(rates, tried)).batch_size == 2
    assert tried == [1, 2, 4, 8]


def test_the_choice_is_kept_for_device_and_configuration(path: Path, tmp_path: Path) -> None:
    config = load_config(str(path))
    tune(config, tmp_path, 2, print, _curve({1: 1.0, 2: 2.0}, []))
    assert tuned_batch(assign(config, {"sampling.batch_size": 7}), tmp_path) == 2
    other = load_config(str(path), ("sampling.steps=3",))
    assert tuned_file(other, tmp_path) != tuned_file(config, tmp_path)
    with pytest.raises(InputError, match="prism-fast tune"):
        tuned_batch(other, tmp_path)


@pytest.mark.parametrize(
    "text", ["[", "[]", "[" * 100_000, *(f'{{"batch_size": {n}}}' for n in ("1e400", "-3", "true", "2.7", '"2"'))]
)
def test_a_damaged_choice_is_none(path: Path, tmp_path: Path, text: str) -> None:
    config = load_config(str(path))
    tune(config, tmp_path, 2, print, _curve({1: 1.0, 2: 2.0}, []))
    tuned_file(config, tmp_path).write_text(text)
    with pytest.raises(InputError, match=r"was not tuned on .*; run 'prism-fast tune' first"):
        tuned_batch(config, tmp_path)


def test_a_pipe_in_its_place_is_not_waited_for(path: Path, tmp_path: Path) -> None:
    config = load_config(str(path))
    tuned_file(config, tmp_path).parent.mkdir(parents=True)
    make_pipe(tuned_file(config, tmp_path))
    with pytest.raises(InputError, match="was not tuned"):
        tuned_batch(config, tmp_path)


def test_auto_becomes_the_stored_number(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRISM_FAST_STORE", str(tmp_path))
    auto = load_config(str(path), ("sampling.batch_size=auto",))
    with pytest.raises(InputError, match="was not tuned"):
        with_tuned_batch(auto, None)
    tune(load_config(str(path)), tmp_path, 2, print, _curve({1: 1.0, 2: 2.0}, []))
    assert with_tuned_batch(auto, None).sampling.batch_size == 2


def test_auto_is_looked_up_in_the_store_that_is_given(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where ``tune --store`` has put it, and not only in the user's own store."""
    monkeypatch.setenv("PRISM_FAST_STORE", str(tmp_path / "own"))
    auto = load_config(str(path), ("sampling.batch_size=auto",))
    tune(load_config(str(path)), tmp_path / "given", 2, print, _curve({1: 1.0, 2: 2.0}, []))
    assert with_tuned_batch(auto, tmp_path / "given").sampling.batch_size == 2
    with pytest.raises(InputError, match="was not tuned"):
        with_tuned_batch(auto, None)


def test_an_unresolved_auto_has_no_hash(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sampling\.batch_size is auto.*give a number"):
        load_config(str(path), ("sampling.batch_size=auto",)).run_hash()


def test_tuning_a_configuration_that_says_auto(path: Path, tmp_path: Path) -> None:
    auto = load_config(str(path), ("sampling.batch_size=auto",))
    assert tune(auto, tmp_path, 2, print, _curve({1: 1.0, 2: 2.0}, [])).batch_size == 2
    assert tuned_batch(auto, tmp_path) == 2


def test_nothing_that_fits_is_an_error(path: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="does not fit"):
        tune(load_config(str(path)), tmp_path, 8, print, _curve({1: None}, []))


def test_a_real_trial_runs_in_a_child(path: Path, tmp_path: Path) -> None:
    found = run_trial(load_config(str(path), ["sampling.batch_size=2"]), tmp_path)
    assert found.images_per_s is not None
    assert found.images_per_s > 0
    assert found.peak_bytes is not None
    assert found.peak_bytes > 1e8


@pytest.mark.parametrize("end", ["raise MemoryError", "import os; os.kill(os.getpid(), 9)"])
def test_a_child_that_memory_ends_does_not_end_the_search(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """The child is replaced by one that ends as a real one does: by exception, or by the kernel."""
    script = tmp_path / "python"
    program = f"import sys\ntry:\n    {end}\nexcept MemoryError:\n    sys.exit({OUT_OF_MEMORY})\n"
    (tmp_path / "child.py").write_text(program)
    script.write_text(f"#!/bin/sh\nexec {sys.executable} {tmp_path / 'child.py'}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    config = load_config(str(path))
    assert run_trial(config, tmp_path) == Trial(config.sampling.fixed_batch_size, None, None)


def test_a_child_that_fails_otherwise_is_an_error(path: Path, tmp_path: Path) -> None:
    config = load_config(str(path), ("models.diffusion=/nowhere",))
    with pytest.raises(RunError, match="a batch of"):
        run_trial(config, tmp_path)
