"""A tiny run, and a store of its engines by two backends, built once for the folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prism_engines.backends import inductor
from prism_engines.backends.inductor import InductorBackend
from prism_engines.backends.onnxruntime import OnnxRuntimeBackend
from prism_engines.backends.openvino import OpenVinoBackend
from prism_engines.backends.tensorrt import TensorRtBackend
from prism_engines.errors import EngineError
from prism_engines.record import EngineRecord
from prism_engines.store import Store

from prism_fast.compile.build import Builder
from prism_fast.compile.parts import Parts
from prism_fast.config import RunConfig, load_config
from prism_fast.synthesis.synthesizer import Synthesizer
from tests.tiny import write_config

NAMES = ("text_encoder", "unet", "decoder", "energy_gradient", "teacher")


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images in batches of four: the second one is half empty."""
    sections = {"synthesis": {"images": 6, "shard_size": 4}, "engines": {"backend": "openvino", "precision": "fp32"}}
    return write_config(tmp_path_factory.mktemp("compile"), **sections)


@pytest.fixture(scope="session")
def config(path: Path) -> RunConfig:
    return load_config(str(path))


@pytest.fixture(scope="session")
def run(config: RunConfig) -> Synthesizer:
    """Loaded, on eager engines."""
    return Synthesizer.load(config)


@pytest.fixture(scope="session")
def parts(run: Synthesizer) -> Parts:
    return Parts(run)


@pytest.fixture
def without_inductor(monkeypatch: pytest.MonkeyPatch) -> None:
    """No C++ compiler: it takes half a minute for each part."""
    monkeypatch.setattr(inductor, "compiler_reasons", lambda: ["no compiler here"])


@pytest.fixture(scope="session")
def warm(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four parts in fp32 by OpenVINO and ONNX Runtime, each pair from one export; read only."""
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    root = tmp_path_factory.mktemp("warm") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inductor, "compiler_reasons", lambda: ["no compiler here"])
        patch.setattr(TensorRtBackend, "run_reasons", lambda self, spec: ["not here"])
        builder = Builder(parts, Store(root), lambda line: None)
        for name in NAMES:
            for one in builder.build(name, "auto", "fp32"):
                assert isinstance(one, EngineRecord), one
    return root


def under(run: Synthesizer, config: RunConfig) -> Synthesizer:
    """The loaded networks under another configuration."""
    return Synthesizer(config, run.model, run.teacher, run.hashes)


Shelf = Callable[..., Store]


@pytest.fixture
def shelf(warm: Path, tmp_path: Path) -> Shelf:
    """``shelf(part=..., backend=...)``: a store to change, with those engines of the warm one that match."""

    def copy(**wanted: str) -> Store:
        store = Store(tmp_path / "store")
        store.root.mkdir()
        for record in Store(warm).records():
            if all(getattr(record.key, name) == value for name, value in wanted.items()):
                shutil.copytree(warm / record.digest, store.folder(record.digest))
        return store

    return copy


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the backends that were asked to build, as they are asked."""
    asked: list[str] = []

    def counted(cls: type[Any]) -> None:
        real = cls.build

        def build(self: Any, *args: Any) -> None:
            asked.append(self.name)
            real(self, *args)

        monkeypatch.setattr(cls, "build", build)

    for cls in (OpenVinoBackend, OnnxRuntimeBackend, InductorBackend, TensorRtBackend):
        counted(cls)
    return asked


def contents(root: Path) -> dict[str, bytes]:
    """Every file of a store, and every folder with no bytes."""
    return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else b"" for p in root.rglob("*")}


def unharmed(store: Store, before: dict[str, bytes]) -> None:
    """The store is byte for byte what it was; the folder for builds in progress may exist, empty."""
    after = contents(store.root)
    after.pop(".staging", None)
    before = {name: data for name, data in before.items() if name != ".staging"}
    assert sorted(after) == sorted(before)
    assert after == before


def one_line(error: EngineError) -> str:
    assert "\n" not in str(error)
    return str(error)
