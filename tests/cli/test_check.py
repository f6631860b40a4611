"""``--check`` and ``--no-check`` of the commands that read a run's images."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from prism_fast.dataset import shard_set
from prism_fast.dataset.shard import Shard
from prism_fast.dataset.shard_set import ShardSet
from tests.cli.conftest import Command
from tests.damage import rewrite

COMMANDS = ["distill", "select", "export", "report"]


@pytest.fixture
def flipped(made: Path, tmp_path: Path) -> Path:
    """A finished run in which one byte between two members of a tar is another: no reader can see it, a hash does."""
    run = Path(shutil.copytree(made, tmp_path / "run"))
    shard = ShardSet.discover(run).shards[1]
    label = shard.entries()[0].label
    rewrite(shard.tar, lambda data: data.__setitem__(label.offset + label.size, 1))
    return run


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shards that are hashed."""
    seen: list[str] = []
    verify = Shard.verify

    def counting(shard: Shard) -> None:
        seen.append(shard.name)
        verify(shard)

    monkeypatch.setattr(Shard, "verify", counting)
    return seen


def arguments(command: str, tiny: Path, run: Path, out: Path) -> list[object]:
    """One command on a run."""
    return {
        "distill": ["distill", tiny, "--run", run, "--out", out / "student"],
        "select": ["select", run, "--keep", 0.5],
        "export": ["export", run, "--format", "parquet", "--out", out / "parquet"],
        "report": ["report", run, "--picture", out / "picture.png"],
    }[command]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_large_run_is_hashed_when_that_is_asked_for(
    command: str, flipped: Path, tiny: Path, prism: Command, tmp_path: Path, hashed: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(shard_set, "HASHED_BYTES", 0)
    asked = arguments(command, tiny, flipped, tmp_path)
    refused = prism(*asked, "--check")
    assert refused.code == 2
    assert "000001.tar is damaged: SHA-256" in refused.error()
    assert "000001" in hashed
    hashed.clear()
    assert prism(*asked).code == 0
    assert hashed == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_small_run_is_hashed_unless_that_is_not_wanted(
    command: str, flipped: Path, tiny: Path, prism: Command, tmp_path: Path, hashed: list[str]
) -> None:
    asked = arguments(command, tiny, flipped, tmp_path)
    assert "000001.tar is damaged: SHA-256" in prism(*asked).error()
    hashed.clear()
    assert prism(*asked, "--no-check").code == 0
    assert hashed == []
