"""``prism-fast plan``: what it prints, and its one-line refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.estimate.test_estimate import write_bench


def test_a_plan_of_a_million_images(prism: Command, tiny: Path) -> None:
    arguments = ("plan", tiny, "--device", "a100", "--count", 64, "--images", "1.28e6", "--price", 4)
    answer = prism(*arguments, "--json")
    assert answer.code == 0, answer.err
    made = json.loads(answer.out)
    assert (made["images"], made["devices"], made["shards"]) == (1_280_000, 64, 320_000)
    assert made["usd"] == pytest.approx(4 * made["gpu_hours"]) != 0
    assert sum(part["share"] for part in made["parts"]) == pytest.approx(1)
    text = prism(*arguments)
    assert text.code == 0, text.err
    for line in made["assumptions"]:
        assert f"assumed  {line}" in text.out
    assert made["limited_by"] in text.out


def test_a_measured_rate(prism: Command, tiny: Path, tmp_path: Path) -> None:
    bench = write_bench(tmp_path / "rows.json", config="tiny")
    made = json.loads(prism("plan", tiny, "--bench", bench, "--row", "reference", "--images", 3600, "--json").out)
    assert made["images_per_s_device"] == 1.0
    assert made["hours"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--device", "abacus"), "device 'abacus' is unknown, expected one of: t4"),
        (("--images", "1.5"), "--images 1.5 is not a positive whole number"),
        (("--images", "many"), "--images many is not a positive whole number"),
        (("--images", "nan"), "--images nan is not a positive whole number"),
        (("--set", "models.diffusion=nowhere"), "model directory nowhere does not exist"),
        (("--set", "models.teacher=nothing"), "classifier 'nothing' is neither a directory nor a timm model name"),
        (("--bench", "absent.json"), "absent.json is not what 'prism-fast bench guided --json absent.json' writes"),
    ],
)
def test_a_wrong_argument(prism: Command, tiny: Path, arguments: tuple[str, ...], said: str) -> None:
    answer = prism("plan", tiny, *arguments)
    assert answer.code == 2
    assert said in answer.error()
