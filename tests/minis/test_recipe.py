"""The recipe's own logic: families, splits, checksums, a training loop that can be interrupted."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
import torch
from torch import nn

from prism_fast.errors import InputError, RunError
from prism_fast.labels.load import load_label_space
from prism_fast.minis import sources, training
from prism_fast.minis.data import concepts, family
from prism_fast.minis.sources import STYLES, fetch
from prism_fast.minis.training import Budget, Trainer, cosine


@pytest.mark.parametrize(
    ("name", "expected"),
    [("guide dog", "dog"), ("dog face", "dog"), ("dog", "dog"), ("face", "face"), ("oncoming bus", "bus")],
)
def test_family_drops_words_that_only_vary_a_drawing(name: str, expected: str) -> None:
    assert family(name) == expected


def _names_archive(path: Path, annotations: list[str]) -> Path:
    rows = [
        {"annotation": a, "hexcode": f"1F{i:03X}", "group": "g", "subgroups": "animal-mammal", "skintone": ""}
        for i, a in enumerate(annotations)
    ]
    data = json.dumps(rows).encode()
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("package/data/openmoji.json")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return path


def test_a_family_stays_in_one_split(tmp_path: Path) -> None:
    names = [f"animal{i}{suffix}" for i in range(30) for suffix in ("", " face")]
    found = concepts(_names_archive(tmp_path / "n.tgz", names), load_label_space("emoji"))
    assert len(found) == 60
    splits: dict[str, set[str]] = {}
    for concept in found:
        splits.setdefault(family(concept.name), set()).add(concept.split)
    assert all(len(s) == 1 for s in splits.values())
    assert set().union(*splits.values()) == {"train", "val", "test"}


def test_a_wrong_archive_is_refused_and_removed(tmp_path: Path) -> None:
    path = tmp_path / STYLES[0].archive
    path.write_bytes(b"not the package")
    with pytest.raises(RunError, match="SHA-256"):
        fetch(STYLES[0], tmp_path)
    assert not path.exists()


def test_no_npm_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="npm"):
        fetch(sources.NAMES, tmp_path / "cache")


class _Clock:
    """Each call is one second later, unless told to jump."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1.0
        return self.now


def _trainer(path: Path, steps: list[float]) -> Trainer:
    torch.manual_seed(0)
    model = nn.Linear(2, 1)

    def step(progress: float) -> torch.Tensor:
        steps.append(progress)
        found: torch.Tensor = model(torch.ones(4, 2))
        return (found - 3).square().mean()

    return Trainer(model, step, 0.1, path, ema=0.5, log=lambda line: None)


def test_training_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "time", _Clock())
    first: list[float] = []
    _trainer(tmp_path / "m.pt", first).run(Budget(20))
    later: list[float] = []
    trainer = _trainer(tmp_path / "m.pt", later)
    trainer.run(Budget(40))
    assert later[0] == pytest.approx(0.5, abs=0.05)
    assert trainer.steps == len(first) + len(later)
    assert float(trainer.average.module(torch.ones(1, 2)).detach()) == pytest.approx(3, abs=0.3)


def test_suspended_time_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock()
    monkeypatch.setattr(training, "time", clock)
    seen: list[float] = []
    trainer = _trainer(tmp_path / "m.pt", seen)
    plain = trainer.step

    def suspended(progress: float) -> torch.Tensor:
        if len(seen) == 2:
            clock.now += 3600
        return plain(progress)

    trainer.step = suspended
    trainer.run(Budget(60))
    assert len(seen) > 40


def test_cosine_warms_up_and_ends_low() -> None:
    assert cosine(0.0) < 0.01
    assert cosine(0.02) == pytest.approx(1.0, abs=0.01)
    assert cosine(1.0) == pytest.approx(0.02)
