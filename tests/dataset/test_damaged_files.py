"""A bit that flips in a file beside the shards is found by whoever trusts that file, and by ``verify``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.stub import Stub
from prism_fast.config import RunConfig
from prism_fast.dataset import plan
from prism_fast.dataset.margins import Margins, load_margins
from prism_fast.dataset.plan import SCHEMA
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.dataset.run_files import damages
from prism_fast.errors import DataError, PrismError
from prism_fast.operations.export import export
from prism_fast.operations.merge import merge
from prism_fast.operations.repair import carry_out, examine
from prism_fast.operations.stats import stats
from prism_fast.operations.verify import verify
from tests.damage import make_pipe, rewrite
from tests.runs import assert_whole
from tests.stubbed import synthesize

Change = Callable[[list[dict[str, object]]], object]


@pytest.fixture
def out(stubbed: RunConfig, tmp_path: Path) -> Path:
    """A finished run of seven images in shards of two."""
    synthesize(stubbed, tmp_path / "run")
    return tmp_path / "run"


def change_rows(path: Path, change: Change) -> None:
    rows = pq.read_table(path).to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=plan.SCHEMA), path)


ROWS: dict[str, Change] = {
    "label": lambda rows: rows[5].update(label=0),
    "index": lambda rows: rows[5].update(index=6),
    "prompt": lambda rows: rows[5].update(prompt="a cau"),
    "negative": lambda rows: rows[5].update(negative_prompt=" "),
    "null": lambda rows: rows[5].update(style=None),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_changed_row_of_the_plan_is_not_made(
    stubbed: RunConfig, stubbed_files: dict[str, bytes], out: Path, name: str
) -> None:
    """Other labels or prompts were made for the shards that were still to be made, and ``verify`` was content."""
    change_rows(out / "plan.parquet", ROWS[name])
    (out / "shards" / "000002.json").unlink()
    with pytest.raises(DataError, match=r"plan\.parquet is damaged: row 5 is not what the configuration gives; delete"):
        synthesize(stubbed, out)
    missing, damaged = verify(out).problems
    assert missing.startswith("shard 000002 is missing")
    assert damaged == "plan.parquet is damaged at row 5; delete it and run the synthesis again"
    found = examine(out)
    assert [removal.path.name for removal in found.removals] == ["plan.parquet"]
    carry_out(found)
    assert synthesize(stubbed, out).made_now == 2
    assert_whole(out, stubbed_files)


def test_without_its_label_file_a_plan_is_checked_as_far_as_it_goes(
    stubbed: RunConfig, out: Path, tmp_path: Path
) -> None:
    (tmp_path / "labels.yaml").unlink()
    assert verify(out).problems == ()
    change_rows(out / "plan.parquet", ROWS["index"])
    assert verify(out).problems == ("plan.parquet is damaged at row 5; delete it and run the synthesis again",)


def test_the_plan_is_compared_in_parts(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prism_fast.dataset.run_files._CHUNK", 2)
    assert verify(out).problems == ()
    change_rows(out / "plan.parquet", lambda rows: rows.append(rows[0]))
    assert verify(out).problems == ("plan.parquet is damaged at row 7; delete it and run the synthesis again",)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.clear(),
        lambda data: data.__delitem__(slice(40, None)),
        lambda data: data.__delitem__(slice(len(data) - 12, None)),
        lambda data: data.__setitem__(slice(4, 400), bytes(396)),
        lambda data: data.__setitem__(slice(len(data) - 400, len(data) - 8), bytes(392)),
    ],
    ids=["empty", "begin", "no-end", "zeros", "footer"],
)
def test_a_plan_that_is_none_is_one_line_from_every_reader(
    out: Path, tmp_path: Path, damage: Callable[[bytearray], object]
) -> None:
    rewrite(out / "plan.parquet", damage)
    readers: list[Callable[[], object]] = [
        lambda: RunDirectory(out).plan().rows(0, 7),
        lambda: export(out, tmp_path / "folders", "imagefolder"),
        lambda: stats(out),
    ]
    for read in readers:
        with pytest.raises(DataError, match=r"plan\.parquet .*; delete it") as caught:
            read()
        assert "\n" not in str(caught.value)
    assert any("plan.parquet" in problem for problem in verify(out).problems)


def test_every_bit_of_a_plan_either_changes_nothing_or_is_refused(
    stubbed: RunConfig, out: Path, tmp_path: Path
) -> None:
    whole = (out / "plan.parquet").read_bytes()
    wanted = plan.build_plan(stubbed, 7)
    for place in range(0, len(whole), 7):
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        (out / "plan.parquet").write_bytes(data)
        try:
            rows = RunDirectory(out).plan().rows(0, 7)
            stats(out)
        except PrismError:
            continue
        assert (rows == wanted) == (not verify(out).problems)


def test_a_changed_run_document_is_not_believed(stubbed: RunConfig, out: Path) -> None:
    document = (out / "run.json").read_text()
    for old, new in (('"images": 7', '"images": 3'), ('"seed": 0', '"seed": 2'), ('"scale": 0.3', '"scale": 0.7')):
        assert old in document
        (out / "run.json").write_text(document.replace(old, new, 1))
        with pytest.raises(DataError, match=r"run\.json is damaged: .*; restore it .*or choose another --out"):
            verify(out)
        with pytest.raises(DataError, match=r"run\.json is (damaged|not a run's).*choose an"):
            synthesize(stubbed, out)
    old_style = {key: value for key, value in json.loads(document).items() if key != "self_sha256"}
    (out / "run.json").write_text(json.dumps(old_style))
    assert verify(out).problems == ()
    assert synthesize(stubbed, out).made_now == 0


def test_a_plan_that_is_missing_is_named(stubbed: RunConfig, stubbed_files: dict[str, bytes], out: Path) -> None:
    (out / "plan.parquet").unlink()
    assert verify(out).problems == ("plan.parquet is missing; run the synthesis again",)
    assert examine(out).removals == ()
    synthesize(stubbed, out)
    assert_whole(out, stubbed_files)


@pytest.mark.parametrize("name", ["engines.json", "margins.json"])
def test_a_changed_choice_is_not_believed(stubbed: RunConfig, out: Path, tmp_path: Path, name: str) -> None:
    made = Margins(models={"teacher": "t"}, margins={0: 0.5, 1: -1e-17})
    (out / "margins.json").write_bytes(made.model_dump_json(indent=1).encode())
    assert load_margins(out / "margins.json") == made
    assert verify(out).problems == ()
    document = json.loads((out / name).read_text())
    assert document["self_sha256"]
    (out / name).write_text(json.dumps({**document, "models": {"teacher": "u"}}))
    (problem,) = verify(out).problems
    assert name in problem
    assert "delete it" in problem
    with pytest.raises(DataError, match=f"{name}.*run 'prism-fast repair"):
        merge([out], tmp_path / "merged")
    carry_out(examine(out))
    assert not (out / name).exists()


def test_a_choice_of_before_has_no_hash_of_itself(stubbed: RunConfig, out: Path) -> None:
    for name in ("engines.json",):
        document = json.loads((out / name).read_text())
        del document["self_sha256"]
        (out / name).write_text(json.dumps(document))
    (out / "shards" / "000000.json").unlink()
    assert synthesize(stubbed, out, generator=Stub(stubbed)).made_now == 2
    assert verify(out).problems == ()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(bytes(path.stat().st_size)),
        lambda path: pq.write_table(pq.read_table(path).slice(1), path),
        lambda path: pq.write_table(pq.read_table(path).drop_columns(["sha256"]), path),
        lambda path: rewrite(path, lambda data: data.__setitem__(20, data[20] ^ 1)),
    ],
    ids=["empty", "zeros", "a row", "a column", "bit"],
)
def test_a_damaged_manifest_is_condemned(
    stubbed: RunConfig, stubbed_files: dict[str, bytes], out: Path, damage: Callable[[Path], object]
) -> None:
    damage(out / "manifest.parquet")
    assert verify(out).problems == (
        "manifest.parquet does not list the run's shards; delete it and run the synthesis again",
    )
    carry_out(examine(out))
    assert verify(out).problems == ("manifest.parquet is missing; run the synthesis again",)
    synthesize(stubbed, out)
    assert_whole(out, stubbed_files)


def test_a_missing_card_is_named(stubbed: RunConfig, stubbed_files: dict[str, bytes], out: Path) -> None:
    (out / "README.md").unlink()
    assert verify(out).problems == ("README.md is missing; run the synthesis again",)
    synthesize(stubbed, out)
    assert_whole(out, stubbed_files)


def test_a_flipped_byte_of_a_record_is_found(stubbed: RunConfig, stubbed_files: dict[str, bytes], out: Path) -> None:
    """Wherever it is: outside of the hashes that it holds, too."""
    record = out / "shards" / "000001.json"
    whole = record.read_bytes()
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 2
        record.write_bytes(data)
        assert verify(out).problems[0].startswith(f"{record} is not a shard record"), (place, whole[place : place + 9])
    record.unlink()
    assert synthesize(stubbed, out).made_now == 2
    assert_whole(out, stubbed_files)


def test_of_a_long_plan_every_class_is_compared(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its prompts only at the beginning: of the rest a worker compares what it makes samples of."""
    monkeypatch.setattr("prism_fast.dataset.run_files._COMPARED", 4)
    directory = RunDirectory(tmp_path / "run")
    directory.claim(config)
    assert [d.problem for d in damages(directory, {})] == []
    table = pq.read_table(directory.path / "plan.parquet").to_pydict()
    table["label"][7] = 0
    pq.write_table(pa.table(table, schema=SCHEMA), directory.path / "plan.parquet")
    assert [d.problem for d in damages(directory, {})] == [
        "plan.parquet is damaged at row 7; delete it and run the synthesis again"
    ]


@pytest.mark.parametrize("make", [Path.mkdir, make_pipe], ids=["folder", "pipe"])
def test_a_card_that_is_no_file_is_named(out: Path, make: Callable[[Path], object]) -> None:
    (out / "README.md").unlink()
    make(out / "README.md")
    assert verify(out).problems == ("README.md is not a file; delete it and run the synthesis again",)


@pytest.mark.parametrize("name", ["run.json", "plan.parquet", "engines.json", "manifest.parquet"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(stubbed: RunConfig, out: Path, tmp_path: Path, name: str) -> None:
    """Nobody writes to it: whoever opened it would wait for ever."""
    make_pipe(out / name)
    uses: list[Callable[[], object]] = [
        lambda: stats(out),
        lambda: examine(out),
        lambda: export(out, tmp_path / "folders", "imagefolder"),
        lambda: merge([out], tmp_path / "merged"),
        lambda: synthesize(stubbed, out),
    ]
    assert name in said_of(lambda: " ".join(verify(out).problems))
    for use in uses:
        said_of(use)


def said_of(use: Callable[[], object]) -> str:
    """What it gives, or why it does not."""
    try:
        return str(use())
    except PrismError as error:
        return str(error)
