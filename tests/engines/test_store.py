from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from prism_engines import record, store
from prism_engines.errors import EngineError, EngineInputError, EngineMissingError
from prism_engines.record import EngineRecord, Scalar
from prism_engines.spec import EngineKey, EngineSpec, TensorSpec, inputs_json
from prism_engines.store import Store, default_store

from tests.damage import edit, flip, make_pipe
from tests.storage.attempts import dead_attempt

SPEC = EngineSpec("unet", (TensorSpec("z", (2, 4, 8, 8)), TensorSpec("t", (2,), "int64")), ("eps",), "bf16")
KEY = EngineKey("unet", "a" * 64, "b" * 64, inputs_json(SPEC), "bf16", "openvino", "2026.0", "cpu")
GATE: dict[str, Scalar] = {"cosine": 0.9999, "speedup": 3, "against": "eager", "finite": True, "psnr": None}
MODEL, WEIGHTS = bytes(range(256)) * 9, b"w" * 1000
Act = Callable[[Store], object]


def built(store: Store, key: EngineKey = KEY, model: bytes = MODEL) -> EngineRecord:
    with store.staging() as folder:
        (folder / "model.xml").write_bytes(model)
        (folder / "data").mkdir()
        (folder / "data" / "weights.bin").write_bytes(WEIGHTS)
        return store.add(key, SPEC, folder, 1.5, GATE)


def leftovers(store: Store) -> list[str]:
    return [p.name for p in (store.root / ".staging").glob("*")]


def left_behind(store: Store, name: str) -> None:
    """A build that was not finished."""
    (store.root / ".staging" / name).mkdir(parents=True)
    (store.root / ".staging" / name / "model.xml").write_bytes(MODEL[:9])


@pytest.fixture
def engines(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_what_was_added_is_found_and_opens(engines: Store) -> None:
    made = built(engines)
    assert engines.find(KEY) == engines.by_prefix(KEY.digest[:6]) == made
    assert engines.records() == [made]
    assert (made.digest, made.key, made.spec, made.gate, made.build_s) == (KEY.digest, KEY, SPEC, GATE, 1.5)
    assert [f.name for f in made.files] == ["data/weights.bin", "model.xml"]
    assert made.size_bytes == len(MODEL) + len(WEIGHTS)
    folder = engines.open_files(made)
    assert folder == engines.root / KEY.digest
    assert (folder / "model.xml").read_bytes() == MODEL
    assert engines.verify() == []
    assert leftovers(engines) == []


def test_a_store_that_is_not_there_is_empty(engines: Store) -> None:
    assert (engines.records(), engines.verify(), engines.prune(), engines.find(KEY)) == ([], [], [], None)
    assert not engines.root.exists()


def test_the_folder_is_readable_for_others_as_the_umask_says(engines: Store) -> None:
    before = os.umask(0o022)
    try:
        folder = engines.open_files(built(engines))
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o755


def test_staging_is_gone_after_an_error(engines: Store) -> None:
    def build() -> None:
        with engines.staging() as folder:
            (folder / "half").write_text("x")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        build()
    assert (leftovers(engines), engines.records()) == ([], [])


def test_of_identical_engines_the_first_stays(engines: Store) -> None:
    first, again = built(engines), built(engines, model=b"other bytes")
    assert again == first
    assert engines.verify() == []
    assert (engines.open_files(first) / "model.xml").read_bytes() == MODEL
    assert leftovers(engines) == []


def test_a_damaged_engine_is_replaced_by_a_new_build(engines: Store) -> None:
    (engines.open_files(built(engines)) / "model.xml").write_bytes(b"")
    engines.open_files(built(engines))
    (engines.root / KEY.digest / "engine.json").write_text("{")
    assert engines.find(KEY) is None  # so that it is built again
    engines.open_files(built(engines))
    assert leftovers(engines) == []


def _add_many(root: str, start: object, results: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    for i in range(20):
        key = replace(KEY, weights=f"{i:064d}")
        results.put(built(Store(Path(root)), key, os.urandom(500)))  # type: ignore[attr-defined]


def test_two_processes_add_the_same_engines(engines: Store) -> None:
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(2), context.Queue()
    both = [context.Process(target=_add_many, args=(str(engines.root), start, results)) for _ in range(2)]
    for process in both:
        process.start()
    returned = [results.get(timeout=120) for _ in range(40)]
    for process in both:
        process.join()
    assert [p.exitcode for p in both] == [0, 0]
    assert len(engines.records()) == 20
    assert engines.verify() == []
    assert all(engines.find(r.key) == r for r in returned)  # both were told of the one that stayed
    assert leftovers(engines) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from prism_engines import record
from tests.engines.test_store import Store, built
number, calls = int(sys.argv[2]), 0
def wrap(function):
    def wrapped(*arguments):
        global calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return wrapped
os.fsync, os.rename = wrap(os.fsync), wrap(os.rename)
built(Store(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("number", [1, 3, 6, 7])  # syncs: two files, the record, two folders; the rename; the store
def test_a_killed_add_leaves_an_engine_or_nothing(engines: Store, number: int) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [Path(__file__).parents[2], *sys.path]))}
    child = subprocess.run(
        [sys.executable, "-c", KILLED, str(engines.root), str(number)], env=environment, capture_output=True
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert engines.verify() == []
    assert len(engines.records()) == (number == 7)
    stale = leftovers(engines)
    assert len(stale) == (number < 7)
    assert [name for name, _ in engines.prune()] == stale
    assert leftovers(engines) == []
    engines.open_files(built(engines))


def test_staging_of_a_living_process_is_left_alone(engines: Store) -> None:
    with engines.staging() as folder:
        assert engines.prune() == []
        assert folder.is_dir()


def test_staging_of_a_dead_process_goes(engines: Store) -> None:
    name = dead_attempt()
    left_behind(engines, name)
    assert engines.prune() == [(name, "its process ended before it was finished")]
    assert leftovers(engines) == []


@pytest.mark.parametrize("where", ["elsewhere", f"{socket.gethostname()}.other.1", socket.gethostname()])
def test_staging_of_processes_that_cannot_be_seen_is_left_alone(engines: Store, where: str) -> None:
    """Of another host, or of a container that shares this one's name; a number that is free here says nothing."""
    pid = dead_attempt().split("-")[-2]
    left_behind(engines, f"{where}-{pid}-0a0a0a0a")
    assert engines.prune() == []
    assert len(leftovers(engines)) == 1


@pytest.mark.parametrize("name", ["notes", "1-2", f"{socket.gethostname()}--x", "a-b-c"])
def test_what_is_no_attempt_in_the_staging_folder_stays(engines: Store, name: str) -> None:
    left_behind(engines, name)
    assert engines.prune() == []
    assert leftovers(engines) == [name]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: flip(f / "model.xml"), r"model\.xml is damaged: its SHA-256"),
        (lambda f: os.truncate(f / "model.xml", 7), r"model\.xml has 7 bytes, its record says 2304"),
        (lambda f: (f / "data" / "weights.bin").unlink(), r"data/weights\.bin cannot be read: No such file"),
        (lambda f: make_pipe(f / "model.xml"), r"model\.xml is no file"),
    ],
    ids=["bit", "cut", "gone", "pipe"],
)
def test_a_damaged_file_is_named_and_pruned(engines: Store, damage: Callable[[Path], object], said: str) -> None:
    made = built(engines)
    damage(engines.open_files(made))
    with pytest.raises(EngineError, match=said + ".*'prism-fast engines prune'.*'prism-fast build-engines'$") as caught:
        engines.open_files(made)
    ((digest, problem),) = engines.verify()
    assert digest == made.digest
    assert problem in str(caught.value)
    assert engines.prune() == [(digest, problem)]
    assert (engines.records(), engines.verify(), leftovers(engines)) == ([], [], [])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p: p.unlink(), "missing or not an engine's record"),
        (lambda p: p.write_bytes(b"\x80\x04N."), "missing or not an engine's record"),  # a pickle is only bytes
        (lambda p: p.write_text("[]"), "missing or not an engine's record"),
        (lambda p: p.write_text("[" * 100_000), "missing or not an engine's record"),
        (make_pipe, "missing or not an engine's record"),
        (lambda p: edit(p, files=3), "missing or not an engine's record"),
        (lambda p: edit(p, spec={**json.loads(p.read_text())["spec"], "precision": "fp32"}), "missing or not"),
        (lambda p: edit(p, key={**json.loads(p.read_text())["key"], "target": "gpu"}), "is the record of engine"),
    ],
    ids=["gone", "pickle", "list", "nested", "pipe", "type", "other-spec", "other-key"],
)
def test_a_damaged_record_hides_no_other_engine(engines: Store, damage: Callable[[Path], object], said: str) -> None:
    made, other = built(engines), built(engines, replace(KEY, target="gpu"))
    damage(engines.open_files(made) / "engine.json")
    assert engines.records() == [other]
    assert engines.find(KEY) is None
    ((digest, problem),) = engines.verify()
    assert digest == made.digest
    assert said in problem
    assert "\n" not in problem
    engines.prune()
    assert (engines.records(), engines.verify()) == ([other], [])


def test_what_is_no_engine_is_never_removed(engines: Store) -> None:
    (engines.root / "pictures").mkdir(parents=True)
    (engines.root / "notes.txt").write_text("mine")
    assert (engines.verify(), engines.prune()) == ([], [])
    assert sorted(p.name for p in engines.root.iterdir()) == ["notes.txt", "pictures"]


def test_a_prefix_must_name_one_engine(engines: Store) -> None:
    digests = [built(engines, replace(KEY, target=str(i))).digest for i in range(17)]
    with pytest.raises(EngineInputError, match="17 engines begin with ''"):
        engines.by_prefix("")
    with pytest.raises(EngineMissingError, match="begins with 'xyz'"):
        engines.by_prefix("xyz")
    assert engines.by_prefix(digests[3]).digest == digests[3]


@pytest.mark.parametrize("field", ["part", "precision", "inputs"])
def test_key_and_spec_must_be_of_one_engine(engines: Store, field: str) -> None:
    with pytest.raises(EngineInputError, match=f"the key's {field} is 'x'"):
        built(engines, replace(KEY, **{field: "x"}))
    assert (engines.records(), leftovers(engines)) == ([], [])


@pytest.mark.parametrize("call", ["rename", "fsync"])
def test_a_full_disk_leaves_the_store_unharmed(engines: Store, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    made = built(engines)

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(EngineError, match=r"cannot write to the engine store .*: No space left on device; stored"):
            built(engines, replace(KEY, target="gpu"))
    assert (engines.records(), engines.verify(), leftovers(engines)) == ([made], [], [])


def test_a_disk_that_fills_up_during_a_build(engines: Store) -> None:
    with pytest.raises(EngineError, match="No space left on device"), engines.staging():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(FileNotFoundError), engines.staging():  # the builder's own mistake stays what it is
        raise FileNotFoundError(errno.ENOENT, "no such library")


def test_a_full_disk_can_be_pruned(engines: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = built(engines)

    def full(*arguments: object, **options: object) -> None:
        if not options.get("exist_ok"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "mkdir", full)
    engines.remove(made.digest)
    assert (engines.records(), leftovers(engines)) == ([], [])


@pytest.mark.parametrize("act", [built, lambda s: s.staging().__enter__(), lambda s: s.records(), lambda s: s.prune()])
def test_a_store_below_a_file_is_one_line(tmp_path: Path, act: Act) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(EngineError) as caught:
            act(Store(root))
        assert str(root) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_removing_what_is_not_there(engines: Store) -> None:
    with pytest.raises(EngineMissingError, match="holds no engine 00"):
        engines.remove("00")


def test_prune_keeps_other_backends_and_what_is_installed(engines: Store) -> None:
    old, new = (built(engines, replace(KEY, backend_version=v)) for v in ("2025.4", "2026.0"))
    other = built(engines, replace(KEY, backend="tensorrt", backend_version="10"))
    removed = engines.prune({"openvino": "2026.0", "tensorrt": "", "onnxruntime": "1.24"})
    assert removed == [(old.digest, "openvino is 2026.0, built with 2025.4")]
    assert {r.digest for r in engines.records()} == {new.digest, other.digest}


def test_the_default_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.delenv("PRISM_FAST_STORE", raising=False)
    assert default_store() == tmp_path / ".cache" / "prism-fast" / "engines"
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert default_store() == Path("/cache/prism-fast/engines")
    monkeypatch.setenv("PRISM_FAST_STORE", "~/mine")
    assert default_store() == tmp_path / "mine"


@pytest.mark.parametrize("variable", ["PRISM_FAST_STORE", "XDG_CACHE_HOME", "HOME"])
def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("PRISM_FAST_STORE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "~/store")
    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(EngineInputError, match=r"engine store ~/.* this user has none; set PRISM_FAST_STORE"):
        default_store()


def test_a_store_whose_name_is_a_pattern_is_pruned(tmp_path: Path) -> None:
    engines = Store(tmp_path / "a[1]*")
    left = engines.root / ".staging" / dead_attempt()
    left.mkdir(parents=True)
    assert engines.prune() == [(left.name, "its process ended before it was finished")]
    assert not left.exists()


def test_nothing_is_unpickled() -> None:
    for module in (record, store):
        text = Path(str(module.__file__)).read_text()
        assert "pickle." not in text
        assert "torch.load" not in text
