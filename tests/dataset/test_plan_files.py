from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock, call

import pyarrow.parquet as pq
import pytest
from prism_engines.attention import attention_reasons
from prism_engines.errors import EngineInputError

from benchmarks.stub import stub_config
from prism_fast.config import RunConfig, assign, load_config
from prism_fast.dataset import plan
from prism_fast.dataset.run_directory import RunDirectory, require_free
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.errors import ConfigError, DataError, InputError, RunError
from prism_fast.models.content_hash import content_hash
from prism_fast.operations.export import export
from prism_fast.operations.stats import stats
from prism_fast.operations.verify import verify
from prism_fast.prompts.row import PlanRow
from prism_fast.synthesis import calibrate
from prism_fast.synthesis.synthesizer import Made, Synthesizer
from prism_fast.workers.synthesize import synthesize
from tests.stubbed import Losing
from tests.tiny import write_config

Usage = namedtuple("Usage", "total used free")


def images(config: RunConfig, count: int) -> RunConfig:
    return assign(config, {"synthesis.images": count})


@pytest.mark.parametrize("count", [0, -1])
def test_a_run_of_no_images_is_refused(tmp_path: Path, count: int) -> None:
    path = write_config(tmp_path)
    with pytest.raises(ConfigError, match=r"synthesis\.images: .*greater than or equal to 1"):
        load_config(str(path), (f"synthesis.images={count}",))


def test_the_file_holds_the_plan_whatever_the_chunk(config: RunConfig, tmp_path: Path) -> None:
    wanted = plan.build_plan(config, 10)
    for chunk in (1, 3, 10, 65_536):
        path = tmp_path / f"{chunk}.parquet"
        assert plan.write_plan(config, path, chunk) == 10
        assert pq.read_table(path).equals(plan.as_table(wanted))
    assert [row.index for row in wanted] == list(range(10))
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".parquet"] * 4


@pytest.mark.parametrize("chunk", [1, 3, 10])
def test_rows_of_a_shard_are_read_across_row_groups(config: RunConfig, tmp_path: Path, chunk: int) -> None:
    path = tmp_path / "plan.parquet"
    plan.write_plan(config, path, chunk)
    whole, file = plan.build_plan(config, 10), plan.PlanFile(path)
    for start in (7, 0, 4, 9, 10, 12):
        for count in (0, 1, 4, 20):
            assert file.rows(start, count) == whole[start : start + count]


def test_reading_a_shard_reads_its_row_group_only(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plan.parquet"
    plan.write_plan(config, path, 2)
    file = plan.PlanFile(path)
    read = Mock(wraps=file._file.read_row_group)
    monkeypatch.setattr(file, "_file", SimpleNamespace(read_row_group=read))
    file.rows(4, 2)
    file.rows(5, 1)
    file.rows(5, 2)
    assert read.mock_calls == [call(2), call(3)]


def test_a_longer_plan_begins_like_a_shorter_one(config: RunConfig) -> None:
    assert plan.build_plan(config, 10)[:4] == plan.build_plan(config, 4)


def test_a_plan_that_fails_half_way_leaves_nothing(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = plan.plan_rows, []

    def rows(*args: object) -> object:
        calls.append(args)
        if len(calls) == 3:
            assert [p.name.partition("-")[0] for p in tmp_path.iterdir()] == ["plan.parquet.tmp"]  # not its own name
            raise OSError(28, "No space left on device")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(plan, "plan_rows", rows)
    with pytest.raises(OSError, match="No space"):
        plan.write_plan(config, tmp_path / "plan.parquet", 2)
    assert list(tmp_path.iterdir()) == []


def test_a_template_with_an_unknown_field_is_named(config: RunConfig) -> None:
    prompts = config.prompts.model_copy(update={"templates": ("a {colour} {name}",)})
    with pytest.raises(ConfigError, match=r"unknown field 'colour'; fields: style"):
        plan.build_plan(config.model_copy(update={"prompts": prompts}), 1)


@pytest.mark.parametrize(
    ("below", "why"), [("", "File exists"), ("run", "Not a directory"), ("a/b", "Not a directory")]
)
def test_an_output_below_a_file_cannot_be_written(config: RunConfig, tmp_path: Path, below: str, why: str) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / below
    with pytest.raises(InputError) as caught:
        synthesize(config, out)
    assert str(caught.value) == f"cannot write to {out}: {why}; choose another --out"


def test_a_full_disk_is_refused_before_anything_is_made(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> Usage:
        asked.append(path)
        return Usage(10**9, 10**9 - 20_000, 20_000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    out = tmp_path / "not" / "yet" / "there"
    with pytest.raises(InputError, match=r"there has 0 MB free, the run needs about 0 MB"):
        synthesize(config, out)
    assert asked == [tmp_path]  # the nearest directory that exists
    assert list(tmp_path.iterdir()) == []


def test_exactly_enough_room_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 0, 5_000_000))
    require_free(tmp_path, 5_000_000)
    with pytest.raises(InputError, match=r"has 5 MB free, the run needs about 7 MB"):
        require_free(tmp_path, 7_000_000)


def test_margins_are_calibrated_once_and_used_again(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guidance = config.guidance.model_copy(update={"margin_quantile": 0.5, "margin_samples": 9})
    run = images(config.model_copy(update={"guidance": guidance}), 3)
    calibrated = Mock(wraps=calibrate.calibrate)
    monkeypatch.setattr(calibrate, "calibrate", calibrated)
    synthesize(run, tmp_path / "run")
    stored = (tmp_path / "run" / "margins.json").read_text()
    margins = json.loads(stored)["margins"]
    assert sorted(margins) == ["0", "1", "2"]
    assert all(isinstance(value, float) for value in margins.values())
    (tmp_path / "run" / "shards" / "000000.json").unlink()
    before = (tmp_path / "run" / "shards" / "000000.tar").read_bytes()
    synthesize(run, tmp_path / "run")
    assert calibrated.call_count == 1
    assert (tmp_path / "run" / "margins.json").read_text() == stored
    assert (tmp_path / "run" / "shards" / "000000.tar").read_bytes() == before


def write_margins(out: Path, models: dict[str, str]) -> None:
    """Margins that nobody exceeds, calibrated with the models at these paths."""
    out.mkdir()
    hashes = {name: content_hash(Path(path)) for name, path in models.items()}
    (out / "margins.json").write_text(json.dumps({"models": hashes, "margins": dict.fromkeys(range(3), 1e9)}))


@pytest.mark.parametrize("text", [None, "", '{"models": {', '{"0": 1e9, "1": 1e9, "2": 1e9}'])
def test_margins_of_other_models_are_calibrated_again(config: RunConfig, tmp_path: Path, text: str | None) -> None:
    """So are those that are cut short, or do not say whose they are."""
    guidance = config.guidance.model_copy(update={"margin_quantile": 0.5, "margin_samples": 9})
    run = images(config.model_copy(update={"guidance": guidance}), 3)
    synthesize(run, tmp_path / "wanted")
    out = tmp_path / "run"
    write_margins(out, {"diffusion": run.models.diffusion, "teacher": run.models.diffusion})
    if text is not None:
        (out / "margins.json").write_text(text)
    synthesize(run, out)
    for name in ("margins.json", "shards/000000.tar"):
        assert (out / name).read_bytes() == (tmp_path / "wanted" / name).read_bytes()


def test_margins_need_a_finite_sample(config: RunConfig, tmp_path: Path) -> None:
    class NothingFinite(Synthesizer):
        def make(self, rows: Sequence[PlanRow]) -> Made:
            return Made((), tuple(r.index for r in rows))

    guidance = config.guidance.model_copy(update={"margin_quantile": 0.5, "margin_samples": 9})
    synthesizer = NothingFinite.load(config.model_copy(update={"guidance": guidance}))
    with pytest.raises(RunError, match="none of the 9 samples that calibrate the margin stayed finite; check models"):
        calibrate.load_or_calibrate(synthesizer, tmp_path / "margins.json")
    assert not (tmp_path / "margins.json").exists()


def test_a_shard_that_was_quarantined_as_a_whole(tmp_path: Path) -> None:
    config = stub_config(tmp_path, images=10, shard_size=4)
    assert synthesize(config, tmp_path / "run", generator=Losing(config, range(4, 8))).quarantined == 4
    assert verify(tmp_path / "run").problems == ()
    shards = ShardSet.discover(tmp_path / "run")
    assert [(shard.tar.name, shard.record.rows) for shard in shards.shards] == [("000000.tar", 4), ("000002.tar", 2)]
    assert len(list(ShardSet.discover(tmp_path / "run").samples())) == shards.rows == 6

    for _ in range(2):  # a rerun finds every record there, and is no success either
        with pytest.raises(RunError, match=r"none holds no image: all 10 were quarantined, .*check models\.diffusion"):
            synthesize(config, tmp_path / "none", generator=Losing(config, range(10)))
    assert verify(tmp_path / "none").quarantined == 10
    assert verify(tmp_path / "none").problems == ()
    with pytest.raises(DataError, match="holds no sample: all of its 3 shards were quarantined"):
        ShardSet.discover(tmp_path / "none")


def test_a_path_need_not_be_utf8(config: RunConfig, tmp_path: Path) -> None:
    """pyarrow takes a path as a text in UTF-8, and Linux takes any bytes."""
    out = tmp_path / os.fsdecode(b"r\xfcn")
    synthesize(images(config, 3), out)
    assert plan.PlanFile(out / "plan.parquet").rows(0, 9) == plan.build_plan(config, 3)
    assert (verify(out).problems, stats(out).images) == ((), 3)
    assert export(out, tmp_path / os.fsdecode(b"\xff"), "parquet") == 3
    assert not [name for name in os.listdir(out) if "tmp" in name]


def test_stored_margins_decide_who_is_guided(config: RunConfig, tmp_path: Path) -> None:
    """Not calibrated again: a margin that nobody exceeds, put there by hand, turns guidance off."""
    guidance = config.guidance.model_copy(update={"margin_quantile": 0.5, "margin_samples": 9})
    run = images(config.model_copy(update={"guidance": guidance}), 3)
    out = tmp_path / "run"
    write_margins(out, run.models.model_dump(include={"diffusion", "teacher"}))
    synthesize(run, out)
    assert [s.meta["guided_steps"] for s in list(ShardSet.discover(out).samples())] == [0, 0, 0]


def test_a_finished_run_has_a_manifest_and_a_card(config: RunConfig, finished: Path) -> None:
    rows = pq.read_table(finished / "manifest.parquet").to_pylist()
    assert [(r["shard"], r["rows"], r["first_index"]) for r in rows] == [(0, 4, 0), (1, 4, 4), (2, 2, 8)]
    card = (finished / "README.md").read_text()
    assert "10 synthetic images of 3 classes" in card
    assert config.run_hash() in card
    assert RunDirectory(finished).plan().rows(0, 99) == plan.build_plan(config, 10)


def test_an_attention_that_cannot_run_here_is_refused_with_its_reasons(config: RunConfig, tmp_path: Path) -> None:
    if not attention_reasons("xformers"):
        pytest.skip("xformers runs here")
    engines = config.engines.model_copy(update={"attention": "xformers"})
    with pytest.raises(EngineInputError, match="attention xformers cannot run here: "):
        synthesize(config.model_copy(update={"engines": engines}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
