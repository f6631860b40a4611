"""Bad input: one clear line each, exit 2 for what the user gave and 1 for a run that failed."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from prism_fast.cli import main as cli
from prism_fast.config import load_config
from prism_fast.errors import DataError, InputError
from tests.cli.conftest import Command, restored
from tests.tiny import make_diffusion

INPUT, FAILED = 2, 1
ROOT = Path(__file__).parents[2]
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def truncated(made: Path, tmp_path: Path) -> Path:
    """A run whose second tar lost its second half."""
    run = Path(shutil.copytree(made, tmp_path / "run"))
    tar = run / "shards" / "000001.tar"
    os.truncate(tar, tar.stat().st_size // 2)
    return run


@pytest.mark.parametrize("part", ["diffusion", "teacher"])
def test_a_missing_model_directory(prism: Command, tiny: Path, tmp_path: Path, part: str) -> None:
    absent = tmp_path / "absent"
    answer = prism("synthesize", tiny, "--out", tmp_path / "run", "--set", f"models.{part}={absent}")
    assert answer.code == INPUT
    assert str(absent) in answer.error()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_an_incomplete_model_directory(prism: Command, tiny: Path, tmp_path: Path, part: str) -> None:
    model = Path(shutil.copytree(load_config(str(tiny)).models.diffusion, tmp_path / "model"))
    shutil.rmtree(model / part)
    answer = prism("synthesize", tiny, "--out", tmp_path / "run", "--set", f"models.diffusion={model}")
    assert answer.code == INPUT
    assert f"{model} lacks {part}" in answer.error()


def test_broken_weights(prism: Command, tiny: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(load_config(str(tiny)).models.diffusion, tmp_path / "model"))
    os.truncate(model / "unet" / "diffusion_pytorch_model.safetensors", 1000)
    answer = prism("synthesize", tiny, "--out", tmp_path / "run", "--set", f"models.diffusion={model}")
    assert answer.code == INPUT
    assert f"{model / 'unet'} cannot be loaded" in answer.error()


def test_the_wrong_channel_count(prism: Command, tiny: Path, tmp_path: Path) -> None:
    model = make_diffusion(tmp_path / "model", unet_channels=8)
    answer = prism("synthesize", tiny, "--out", tmp_path / "run", "--set", f"models.diffusion={model}")
    assert answer.code == INPUT
    assert "the UNet takes 8 channels but the autoencoder gives 4" in answer.error()


def test_a_teacher_of_another_label_space(prism: Command, tiny: Path, tmp_path: Path) -> None:
    answer = prism("synthesize", tiny, "--out", tmp_path / "run", "--set", "labels=imagenet1k")
    assert answer.code == INPUT
    assert "the teacher knows 3 classes, label space 'imagenet1k' has 1000" in answer.error()


def test_a_class_that_the_label_space_lacks(prism: Command, tiny: Path) -> None:
    answer = prism("prompts", tiny, "--class", "unicorn")
    assert answer.code == INPUT
    line = answer.error()
    assert "'unicorn'" in line
    assert "cat, dog, red" in line


@pytest.mark.parametrize("command", ["synthesize", "distill", "prompts"])
def test_an_unknown_key_in_the_file(prism: Command, tiny: Path, tmp_path: Path, command: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(tiny.read_text() + "guidence:\n  scale: 1\n")
    options: dict[str, list[object]] = {
        "synthesize": ["--out", tmp_path / "o"],
        "distill": ["--run", "r", "--out", "o"],
        "prompts": [],
    }
    answer = prism(command, path, *options[command])
    assert answer.code == INPUT
    line = answer.error()
    assert str(path) in line
    assert "guidence" in line


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("guidance.scales=1", "guidance.scales"),
        ("guidance.scale=much", "guidance.scale"),
        ("guidance.window=[0.8, 0.1]", "window must satisfy"),
        ("sampling.solver=unknown", "sampling.solver"),
        ("sampling.height=20", "sampling.height"),
        ("synthesis.images=0", "synthesis.images"),
        ("guidance.scale", "is not of the form key=value"),
        ("name.first=x", "is not a section"),
        ("guidance.scale=[", "guidance.scale"),
    ],
)
def test_a_bad_assignment(prism: Command, tiny: Path, tmp_path: Path, assignment: str, said: str) -> None:
    answer = prism("synthesize", tiny, "--out", tmp_path / "run", "--set", assignment)
    assert answer.code == INPUT
    assert said in answer.error()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("count", [0, -3])
def test_no_images(prism: Command, tiny: Path, tmp_path: Path, count: int) -> None:
    answer = prism("synthesize", tiny, "--out", tmp_path / "run", "--images", count)
    assert answer.code == INPUT
    assert "synthesis.images: Input should be greater than or equal to 1" in answer.error()
    assert not (tmp_path / "run").exists()


def test_a_configuration_that_is_nowhere(prism: Command, tmp_path: Path) -> None:
    answer = prism("synthesize", "no-such", "--out", tmp_path / "run")
    assert answer.code == INPUT
    assert "'no-such' is neither a file nor one of: " in answer.error()
    assert "minis-emoji" in answer.error()


def test_a_truncated_tar_fails_verify(prism: Command, truncated: Path) -> None:
    answer = prism("verify", truncated)
    assert answer.code == FAILED
    *progress, line = answer.err.splitlines()
    assert progress[-1].startswith("verify, MB/s: 3/3 (")
    assert line.startswith("error: 000001.tar differs from its record; delete 000001.json")
    as_json = prism("verify", truncated, "--json")
    assert as_json.code == FAILED
    assert "error" not in as_json.err
    assert "000001.tar differs" in as_json.out


@pytest.mark.parametrize("loader", ["torch", "dali"])
def test_a_truncated_tar_is_not_trained_on(
    prism: Command, tiny: Path, truncated: Path, tmp_path: Path, loader: str
) -> None:
    arguments = ("--run", truncated, "--out", tmp_path / "student", "--set", f"distill.loader={loader}")
    answer = prism("distill", tiny, *arguments)
    assert answer.code == INPUT
    assert "000001.tar is truncated" in answer.error()
    assert not (tmp_path / "student").exists()


def test_a_truncated_tar_is_not_reported_on(prism: Command, truncated: Path) -> None:
    answer = prism("report", truncated)
    assert answer.code == INPUT
    assert "000001.tar is truncated" in answer.error()
    assert not (truncated / "report.html").exists()


@pytest.mark.parametrize("command", ["verify", "report", "distill"])
@pytest.mark.parametrize("what", ["absent", "empty", "file"])
def test_a_run_that_is_none(prism: Command, tiny: Path, tmp_path: Path, command: str, what: str) -> None:
    path = tmp_path / what
    if what == "empty":
        path.mkdir()
    elif what == "file":
        path.write_text("")
    arguments = (tiny, "--run", path, "--out", tmp_path / "student") if command == "distill" else (path,)
    answer = prism(command, *arguments)
    assert answer.code == INPUT
    assert str(path) in answer.error()


def test_a_directory_of_another_run(prism: Command, tiny: Path, made: Path) -> None:
    answer = prism("synthesize", tiny, "--out", made, "--set", "seed=7")
    assert answer.code == INPUT
    assert f"{made} belongs to run" in answer.error()


@pytest.mark.parametrize(
    ("command", "below"),
    [("synthesize", "x"), ("prompts", "x"), ("distill", "x"), ("report", "x"), ("report", "below/x")],
)
def test_an_output_that_cannot_be_written(
    prism: Command, tiny: Path, made: Path, tmp_path: Path, command: str, below: str
) -> None:
    """Below a regular file, because root may write to a read-only directory."""
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / below
    arguments: dict[str, list[object]] = {
        "synthesize": [tiny],
        "prompts": [tiny],
        "distill": [tiny, "--run", made],
        "report": [made],
    }
    answer = prism(command, *arguments[command], "--out", out)
    assert answer.code == INPUT
    assert str(out) in answer.error()


def test_a_disk_too_small_for_the_run(
    prism: Command, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 1_000_000))
    answer = prism("synthesize", tiny, "--out", tmp_path / "run", "--images", 1000)
    assert answer.code == INPUT
    assert answer.error() == f"{tmp_path / 'run'} has 1 MB free, the run needs about 5 MB"


def test_a_disk_that_fills_up_during_the_run(
    prism: Command, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def full(descriptor: int) -> None:
        if ".tar.tmp-" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        answer = prism("synthesize", tiny, "--out", tmp_path / "run")
    assert answer.code == FAILED
    assert "cannot write shard 000000" in answer.error()
    assert "No space left on device" in answer.error()
    assert prism("synthesize", tiny, "--out", tmp_path / "run").code == 0


def test_debug_shows_the_traceback(prism: Command, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["prism-fast", "--debug", "verify", str(tmp_path)])
    with restored(), pytest.raises(DataError, match="is not a run directory") as caught:
        cli.main()  # Python prints what leaves the entry point
    assert Path(caught.traceback[-1].path).name == "run_directory.py"


def test_as_a_program_it_prints_one_line_or_with_debug_a_traceback(tmp_path: Path) -> None:
    def run(*options: str) -> subprocess.CompletedProcess[str]:
        program = "from prism_fast.cli.main import main; main()"
        return subprocess.run(
            [sys.executable, "-c", program, *options, "configs", "no-such"],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [ROOT, *sys.path]))},
            capture_output=True,
            text=True,
        )

    plain, debug = run(), run("--debug")
    assert (plain.returncode, plain.stdout) == (INPUT, "")
    assert plain.stderr.startswith("error: ")
    assert plain.stderr.count("\n") == 1
    assert debug.returncode != 0
    assert debug.stderr.startswith("Traceback (most recent call last):")
    assert "InputError: configuration 'no-such'" in debug.stderr


def test_an_error_of_several_lines_becomes_one(prism: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, assignments: tuple[str, ...] = ()) -> None:
        raise InputError("a library said:\n  two\n\n  lines")

    monkeypatch.setattr("prism_fast.config.load_config", fail)
    answer = prism("configs", "minis-emoji")
    assert answer.code == INPUT
    assert answer.error() == "a library said: two lines"


def test_interrupting_says_that_nothing_is_lost(prism: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", stop)
    answer = prism("synthesize")
    assert answer.code == 130
    assert answer.err == "interrupted; what is finished is kept, the same command goes on\n"
