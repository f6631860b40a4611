"""A classifier directory: what loads, and one clear line for what does not."""

from __future__ import annotations

import math
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from prism_fast.config import base
from prism_fast.errors import DataError, InputError
from prism_fast.models import classifier_config
from prism_fast.models.classifier import load_classifier, save_classifier
from tests.damage import drop_tensor, edit, make_pipe, quantise
from tests.tiny import make_teacher

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_teacher(tmp_path_factory.mktemp("models") / "good")


def _config(**changes: object) -> Callable[[Path], None]:
    return lambda path: edit(path / "config.json", **changes)


def _truncate(path: Path) -> None:
    (path / WEIGHTS).write_bytes((path / WEIGHTS).read_bytes()[:-1000])


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda p: (p / "config.json").unlink(), r"config\.json is missing"),
    "no weights": (lambda p: (p / WEIGHTS).unlink(), r"model\.safetensors is missing"),
    "config is not JSON": (lambda p: (p / "config.json").write_text("{"), r"config\.json is not JSON"),
    "config is not text": (lambda p: (p / "config.json").write_bytes(b"\xff"), r"config\.json is not JSON"),
    "config nested without end": (lambda p: (p / "config.json").write_text("[" * 100_000), r"config\.json is not JSON"),
    "config is a list": (lambda p: (p / "config.json").write_text("[]"), r"config\.json holds no JSON object"),
    "config is a pipe": (lambda p: make_pipe(p / "config.json"), r"config\.json cannot be read: it is a pipe"),
    "no deviation": (_config(std=[0.5, 0, 0.5]), r"'std\.1': Input should be greater"),
    "a negative deviation": (_config(std=[-1, 1, 1]), r"'std\.0': Input should be greater"),
    "an infinite deviation": (_config(std=[1, 1, math.inf]), r"'std\.2': Input should be less"),
    "a deviation that is no number": (_config(std=[math.nan, 1, 1]), r"'std\.0': Input should be "),
    "a mean that is no number": (_config(mean=[0, math.nan, 0]), r"'mean\.1': Input should be "),
    "a huge image": (_config(image_size=1_000_000), r"'image_size': Input should be less than or equal to 16384"),
    "a huge image of timm's": (
        _config(pretrained_cfg={"input_size": [3, 10**6, 10**6], "mean": [0.5] * 3, "std": [0.5] * 3}),
        r"'image_size': Input should be less than or equal to 16384",
    ),
    "a size of timm's that is a word": (
        _config(pretrained_cfg={"input_size": [3, "a", "a"], "mean": [0.5] * 3, "std": [0.5] * 3}),
        r"'image_size': Input should be a valid integer",
    ),
    "more classes than there is memory": (_config(num_classes=10**12), r"'num_classes': Input should be less"),
    "config of something else": (lambda p: (p / "config.json").write_text("{}"), r"config\.json is not a classifier's"),
    "unknown key": (_config(colour="red"), r"config\.json is not a classifier's"),
    "wrong class count": (_config(num_classes=5), r"do not fit test_resnet.*fc\."),
    "other architecture": (_config(architecture="test_vit"), "do not fit test_vit"),
    "unknown architecture": (_config(architecture="no_such_net"), "'no_such_net'"),
    "corrupt weights": (lambda p: (p / WEIGHTS).write_bytes(b"garbage!" * 9), r"model\.safetensors cannot be read"),
    "truncated weights": (_truncate, r"model\.safetensors cannot be read"),
    "a tensor is missing": (lambda p: drop_tensor(p / WEIGHTS), "do not fit test_resnet"),
    "quantised weights": (lambda p: quantise(p / WEIGHTS), r"is of torch\.int8; quantised weights are not supported"),
    "weights are a pipe": (lambda p: make_pipe(p / WEIGHTS), r"model\.safetensors cannot be read: it is a pipe"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_directory_is_one_clear_line(good: Path, tmp_path: Path, case: str) -> None:
    path = shutil.copytree(good, tmp_path / "teacher")
    spoil, words = BROKEN[case]
    spoil(path)
    with pytest.raises(InputError, match=words) as caught:
        load_classifier(str(path))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert isinstance(caught.value, DataError) or case == "unknown architecture"


def test_neither_directory_nor_name() -> None:
    with pytest.raises(InputError, match="'no/such/thing' is neither a directory nor a timm model name"):
        load_classifier("no/such/thing")


def test_weights_can_be_read_by_whom_the_umask_lets(good: Path, tmp_path: Path) -> None:
    """Whoever saves: safetensors alone makes files that only their owner can read."""
    found = load_classifier(str(good))
    for umask, mode in ((0o022, 0o644), (0o027, 0o640)):
        before = os.umask(umask)
        try:
            path = save_classifier(found.net, found.config, tmp_path / f"{umask}")
        finally:
            os.umask(before)
        assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {mode}


def test_what_is_saved_is_loaded(good: Path, tmp_path: Path) -> None:
    first = load_classifier(str(good))
    images = torch.randint(0, 256, (5, 3, 20, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    again = load_classifier(str(save_classifier(first.net, first.config, tmp_path / "again")))
    assert again.config == first.config
    assert torch.equal(again.logits(images), first.logits(images))
    assert not first.net.training
    assert not any(p.requires_grad for p in first.net.parameters())
    torch.testing.assert_close(first.logits(images, batch_size=2), first.logits(images), rtol=0, atol=1e-4)
    half = load_classifier(str(save_classifier(first.net, first.config, tmp_path / "half", torch.float16)))
    assert {p.dtype for p in half.net.parameters()} == {torch.float32}
    torch.testing.assert_close(half.logits(images), first.logits(images), rtol=0, atol=0.05)


def test_pictures_are_resized_and_normalised(good: Path) -> None:
    classifier = load_classifier(str(good))
    prepared = classifier.prepare(torch.full((2, 3, 50, 70), 0.75))
    torch.testing.assert_close(prepared, torch.full((2, 3, 32, 32), 0.5), rtol=0, atol=1e-6)


def test_the_largest_side_is_the_configurations() -> None:
    """The two rooms do not import each other."""
    assert classifier_config.MOST_SIDE == base.MOST_SIDE
