from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from prism_engines.errors import EngineBuildError, EngineError, EngineInputError, EngineMissingError, GateError
from prism_engines.record import EngineRecord
from prism_engines.store import Store

from prism_fast.cli import main as cli
from tests.cli.conftest import Command
from tests.damage import flip
from tests.engines.test_store import KEY, built


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def record(root: Path) -> EngineRecord:
    return built(Store(root))


def test_an_empty_store(prism: Command, root: Path) -> None:
    answer = prism("engines", "list", "--store", root)
    assert (answer.code, answer.out) == (0, f"no engines in {root}; 'prism-fast build-engines' makes them\n")
    assert json.loads(prism("engines", "list", "--store", root, "--json").out) == []
    assert prism("engines", "verify", "--store", root).out == f"0 engines in {root}, 0 problems\n"


@pytest.mark.parametrize("columns", [80, 200])
def test_list(prism: Command, root: Path, record: EngineRecord, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    answer = prism("engines", "list", "--store", root)
    assert (answer.code, answer.err) == (0, "")
    for word in (record.digest[:8], "unet", "bf16", "openvino 2026.0", "cpu"):
        assert word in answer.out
    (found,) = json.loads(prism("engines", "list", "--store", root, "--json").out)
    assert (found["digest"], found["size_bytes"]) == (record.digest, record.size_bytes)


def test_the_environment_names_the_store(
    prism: Command, root: Path, record: EngineRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRISM_FAST_STORE", str(root))
    (found,) = json.loads(prism("engines", "list", "--json").out)
    assert found["digest"] == record.digest


def test_show_takes_a_unique_prefix(
    prism: Command, root: Path, record: EngineRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    answer = prism("engines", "show", record.digest[:5], "--store", root)
    assert (answer.code, answer.err) == (0, "")
    for word in (record.digest, str(root), KEY.weights, "int64 (2,)", "data/weights.bin", "gate cosine", "0.9999"):
        assert word in answer.out
    found = json.loads(prism("engines", "show", record.digest, "--store", root, "--json").out)
    assert found["key"]["backend"] == "openvino"
    assert found["gate"]["cosine"] == 0.9999


def test_show_of_what_is_not_there(prism: Command, root: Path) -> None:
    answer = prism("engines", "show", "abc", "--store", root)
    assert answer.code == 2
    assert answer.error() == f"no engine in {root} begins with 'abc'; see 'prism-fast engines list'"


def test_verify_names_each_problem_and_prune_removes_it(prism: Command, root: Path, record: EngineRecord) -> None:
    arguments = ("--store", root)
    assert prism("engines", "verify", *arguments).code == 0
    for name in ("model.xml", "data/weights.bin"):
        flip(root / record.digest / name)
    answer = prism("engines", "verify", *arguments)
    assert answer.code == 1
    first, second = answer.err.splitlines()
    assert f"{record.digest[:12]}: " in first
    assert "weights.bin is damaged" in first
    assert "model.xml is damaged" in second
    assert answer.out == f"1 engines in {root}, 2 problems\n"
    as_json = prism("engines", "verify", *arguments, "--json")
    assert (as_json.code, as_json.err) == (1, "")
    assert [p["digest"] for p in json.loads(as_json.out)["problems"]] == [record.digest] * 2

    pruned = prism("engines", "prune", *arguments)
    assert pruned.code == 0
    assert pruned.out.splitlines()[-1] == f"1 removed, 0 engines in {root}"
    assert prism("engines", "verify", *arguments).code == 0


@pytest.mark.parametrize("version", ["2026.0", "2027.0", ""])
def test_prune_outdated(
    prism: Command, root: Path, record: EngineRecord, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr("prism_engines.backends.openvino.OpenVinoBackend.version", lambda self: version)
    assert json.loads(prism("engines", "prune", "--store", root, "--json").out) == []
    removed = json.loads(prism("engines", "prune", "--store", root, "--outdated", "--json").out)
    reason = "openvino is 2027.0, built with 2026.0"
    assert removed == ([{"name": record.digest, "reason": reason}] if version == "2027.0" else [])


@pytest.mark.parametrize("command", ["list", "verify", "prune"])
def test_a_store_that_is_a_file(prism: Command, tmp_path: Path, command: str) -> None:
    (tmp_path / "file").write_text("")
    answer = prism("engines", command, "--store", tmp_path / "file")
    assert answer.code == 2
    assert answer.error() == f"cannot read the engine store {tmp_path / 'file'}: Not a directory"


@pytest.mark.parametrize(
    ("kind", "code"),
    [(EngineInputError, 2), (EngineMissingError, 2), (EngineBuildError, 1), (GateError, 1), (EngineError, 1)],
)
def test_every_engine_error_is_one_line(
    prism: Command, monkeypatch: pytest.MonkeyPatch, kind: type[EngineError], code: int
) -> None:
    def fail() -> None:
        raise kind("what\nhappened")

    monkeypatch.setattr(cli, "app", fail)
    answer = prism("engines")
    assert (answer.code, answer.error()) == (code, "what happened")


def test_help_does_not_import_the_engines() -> None:
    program = (
        "import sys; import prism_fast.cli.main; sys.exit('prism_engines' in sys.modules or 'torch' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", program], env=environment).returncode == 0
