"""The README's way from a Stable Diffusion directory to a report: its commands as they stand there, one after another.

Replaced are paths, the device and numbers that are too large for a test; the networks have the published architectures
at a sixteenth of their width, and random weights.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.random_models import write_model
from tests.cli.conftest import Command
from tests.tiny import make_teacher

pytest.importorskip("openvino")
README = Path(__file__).parents[2] / "README.md"
HEADING = "## On your own teacher and Stable Diffusion"
#: What a test cannot be as large as; the README says none of it.
SMALL = (
    "sampling.device=cpu", "sampling.steps=4", "sampling.height=64", "sampling.width=64", "sampling.batch_size=2",
    "synthesis.shard_size=2", "engines.gradient_batch=2", "launch.pipeline_depth=0",
    "distill.student=test_resnet", "distill.image_size=32", "distill.steps=2", "distill.batch_size=2",
    "distill.warmup_steps=1", "distill.loader=torch",
)  # fmt: skip
TAKE_SETTINGS = {"prompts", "tune", "build-engines", "synthesize", "distill"}


def commands() -> list[list[str]]:
    """The words of each command of the README's block, comments left out."""
    block = README.read_text(encoding="utf-8").split(HEADING, 1)[1].split("```", 2)[1]
    lines = [shlex.split(line, comments=True) for line in block.strip().splitlines()]
    assert all(words[0] == "prism-fast" for words in lines)
    return [words[1:] for words in lines]


@pytest.fixture
def models(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    out = write_model(request.param, tmp_path / "models" / request.param, 16)
    make_teacher(out / "teacher", classes=1000)
    return out


def pictures(folder: Path) -> Path:
    """A validation set of two classes, named by their WordNet ids as ImageNet's folders are."""
    for number, name in enumerate(("n01440764", "n02012849")):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (40, 32), (90 * number, 60, 200)).save(folder / name / "one.png")
    return folder


def replaced(words: list[str], model: Path, computed: list[str], folder: Path) -> list[str]:
    """The same command on the test's paths, device and sizes."""
    numbers = {"10000": "4", "20": "3"}
    known = {"/data/val": str(folder / "val"), "cuda": "cpu", **numbers}
    out = [known.get(word, re.sub(r"^(models\.diffusion)=.*", rf"\1={model}", word)) for word in words]
    if words[0] == "tune":
        out += ["--largest", "1"]
    if words[0] == "build-engines" and "engines.backend=auto" not in computed:
        out += ["--backend", "openvino", "--parts", "decoder"]
    if words[0] in TAKE_SETTINGS:
        paths = {"diffusion": model, "teacher": model / "teacher", "light_decoder": model / "light_decoder"}
        settings = [*SMALL, *computed, *(f"models.{part}={path}" for part, path in paths.items())]
        out += [word for value in settings for word in ("--set", value)]
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("models", "dtype", "backend"),
    [
        ("sd15", "float32", "eager"),
        ("sd15", "float16", "eager"),
        pytest.param("sd15", "float16", "openvino", marks=pytest.mark.nightly),
        pytest.param("sd15", "float16", "auto", marks=pytest.mark.nightly),
        ("sd21", "bfloat16", "eager"),
        ("sdxl", "bfloat16", "eager"),
    ],
    indirect=["models"],
)
def test_the_readmes_commands_run_as_they_stand(
    prism: Command, models: Path, dtype: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "val")
    monkeypatch.setenv("PRISM_FAST_STORE", str(tmp_path / "store"))
    if backend == "auto":  # whatever is here but Inductor, whose compiler takes minutes
        monkeypatch.setenv("CXX", "no-such-compiler")
    said, computed = {}, [f"sampling.dtype={dtype}", f"engines.backend={backend}"]
    for words in commands():
        command, _, target = (list(words), "", "") if ">" not in words else (words[:-2], ">", words[-1])
        if words[:2] == ["configs", "imagenet1k-sd15"] and models.name == "sdxl":
            command[1] = "imagenet1k-sdxl"
        answer = prism(*replaced(command, models, computed, tmp_path))
        assert answer.code == 0, (words, answer.err)
        said[words[0]] = answer.out
        if target:
            Path(target).write_text(answer.out, encoding="utf-8")
    assert set(said) >= {"configs", "prompts", "tune", "build-engines", "synthesize", "verify", "distill", "evaluate"}
    assert said["synthesize"].startswith("4 images in runs/my (4 made now")
    assert "4 images in 2 shards" in said["verify"]
    assert "0 problems" in said["verify"]
    assert "2 pictures" in said["evaluate"]
    assert "<html" in (tmp_path / "runs" / "my" / "report.html").read_text(encoding="utf-8")
