"""Runs compared file by file, wherever they are."""

from __future__ import annotations

import json
from pathlib import Path

from prism_fast.dataset.sealed import SEAL
from prism_fast.operations.verify import verify
from prism_fast.storage.files import names


def contents(run: Path) -> dict[str, bytes]:
    """Every file of a run; of a record everything but the seconds it took, and its hash of all of it."""
    shards = run / "shards"
    found = {name: (run / name).read_bytes() for name in names(run) if name != "shards"}
    for name in names(shards):
        data = (shards / name).read_bytes()
        if name.endswith(".json"):
            data = json.dumps({**json.loads(data), "seconds": 0, SEAL: ""}).encode()
        found[f"shards/{name}"] = data
    return found


def assert_contents(run: Path, wanted: dict[str, bytes]) -> None:
    found = contents(run)
    assert sorted(found) == sorted(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []


def assert_same_run(one: Path, other: Path) -> None:
    assert_contents(one, contents(other))


def assert_whole(run: Path, wanted: dict[str, bytes]) -> None:
    """It holds what it should, and passes its own check."""
    assert_contents(run, wanted)
    assert verify(run).problems == ()
