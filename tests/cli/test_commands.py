from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path

import diffusers.utils.logging as diffusers_logging
import pyarrow.parquet as pq
import torch
import yaml

from prism_fast.config import bundled_configs, load_config
from tests.cli.conftest import Command


def test_help_names_every_command(prism: Command) -> None:
    answer = prism("--help")
    assert answer.code == 0
    for name in (
        "demo",
        "configs",
        "prompts",
        "synthesize",
        "verify",
        "distill",
        "evaluate",
        "report",
        "doctor",
        "repair",
        "stats",
        "merge",
        "select",
    ):
        assert name in answer.out


def test_configs_lists_what_ships(prism: Command) -> None:
    answer = prism("configs", "--json")
    assert (answer.code, answer.err) == (0, "")
    assert json.loads(answer.out) == bundled_configs()
    assert {"minis-emoji", "imagenet1k-sd15"} <= bundled_configs().keys()
    lines = prism("configs").out.splitlines()
    assert [line.split()[0] for line in lines] == list(bundled_configs())


def test_configs_prints_one_in_full(prism: Command) -> None:
    wanted = load_config("minis-emoji").model_dump(mode="json")
    assert json.loads(prism("configs", "minis-emoji", "--json").out) == wanted
    assert yaml.safe_load(prism("configs", "minis-emoji").out) == wanted


def test_prompts_shows_the_plan(prism: Command, tiny: Path) -> None:
    rows = json.loads(prism("prompts", tiny, "--images", 6, "--json").out)
    assert [row["index"] for row in rows] == list(range(6))
    assert sorted(row["label"] for row in rows) == [0, 0, 1, 1, 2, 2]  # balanced
    lines = prism("prompts", tiny, "--images", 6).out.splitlines()
    assert [line.endswith(row["prompt"]) for line, row in zip(lines, rows, strict=True)] == [True] * 6
    dogs = json.loads(prism("prompts", tiny, "--images", 6, "--class", "dog", "--json").out)
    assert dogs == [row for row in rows if row["class_name"] == "dog"]


def test_prompts_writes_the_plan(prism: Command, tiny: Path, tmp_path: Path) -> None:
    rows = json.loads(prism("prompts", tiny, "--json").out)
    answer = prism("prompts", tiny, "--out", tmp_path / "plan.parquet")
    assert answer.code == 0
    assert pq.read_table(tmp_path / "plan.parquet").to_pylist() == rows
    assert [p.name for p in tmp_path.iterdir()] == ["plan.parquet"]
    told = prism("prompts", tiny, "--out", tmp_path / "plan.parquet", "--json")
    assert json.loads(told.out) == {"rows": len(rows), "out": str(tmp_path / "plan.parquet")}


def test_from_a_configuration_to_a_report(prism: Command, tiny: Path, tmp_path: Path) -> None:
    run, student = tmp_path / "run", tmp_path / "student"

    made = prism("synthesize", tiny, "--out", run, "--json")
    assert made.code == 0, made.err
    summary = json.loads(made.out)
    assert (summary["images"], summary["made_now"], summary["quarantined"]) == (10, 10, 0)
    assert summary["run_hash"] == load_config(str(tiny)).run_hash()
    assert summary["out"] == str(run)
    assert {line.split(":")[0] for line in made.err.splitlines()} == {"synthesize"}  # progress, and no library's noise

    assert json.loads(prism("synthesize", tiny, "--out", run, "--json").out)["made_now"] == 0

    verdict = prism("verify", run, "--json")
    assert (verdict.code, verdict.err.split(":")[0]) == (0, "verify, MB/s")
    assert json.loads(verdict.out)["images"] == 10
    assert json.loads(verdict.out)["problems"] == []
    assert "10 images in 3 shards" in prism("verify", run).out

    trained = prism("distill", tiny, "--run", run, "--out", student, "--json")
    assert trained.code == 0, trained.err
    result = json.loads(trained.out)
    assert result["steps"] == 6
    assert result["resumed_from"] == 0
    assert 0 <= result["agreement"] <= 1
    assert (Path(result["student"]) / "model.safetensors").is_file()

    page = prism("report", run)
    assert page.code == 0, page.err
    assert (run / "report.html").read_text().lstrip().lower().startswith("<!doctype html>")
    elsewhere = prism("report", run, "--out", tmp_path / "page.html")
    assert (tmp_path / "page.html").is_file()
    assert str(tmp_path / "page.html") in elsewhere.out


def test_images_and_set_override_the_configuration(prism: Command, tiny: Path, tmp_path: Path) -> None:
    options = ("--images", 2, "--set", "guidance.enabled=false", "--set", "synthesis.image_format=jpg")
    answer = prism("synthesize", tiny, "--out", tmp_path / "run", *options)
    assert answer.code == 0, answer.err
    assert answer.out.startswith(f"2 images in {tmp_path / 'run'} (2 made now")
    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert config["synthesis"]["images"] == 2
    assert config["guidance"]["enabled"] is False
    assert " jpg " not in (tmp_path / "run" / "shards" / "000000.idx").read_text().splitlines()[0]
    assert (tmp_path / "run" / "shards" / "000000.idx").read_text().splitlines()[1].startswith("jpg ")


def test_the_tests_leave_the_process_as_it_was(prism: Command, tiny: Path, tmp_path: Path) -> None:
    before = (torch.get_num_threads(), warnings.showwarning, diffusers_logging.get_verbosity())
    prism("synthesize", tiny, "--out", tmp_path / "run", "--images", 1)
    assert (torch.get_num_threads(), warnings.showwarning, diffusers_logging.get_verbosity()) == before
    assert logging.getLogger("py.warnings").propagate
