"""``bench distill``: every row does the work it says, and the time of its steps is split as it was spent."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import distill, harness, processes
from benchmarks.distill_row import VARIANTS, WARM, Variant, recipe_of, run_variant
from benchmarks.options import Options
from benchmarks.split import CudaClock, HostClock, Split
from prism_fast.cli.bench import _settings, bench
from prism_fast.config import RunConfig, load_config
from prism_fast.distillation.outputs import Outputs
from prism_fast.errors import InputError
from tests.tiny import write_config

CPU = torch.device("cpu")
BY_NAME = {one.name: one for one in VARIANTS}
STEPS = 2


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    recipe = {"student": "test_resnet", "image_size": 16, "batch_size": 4, "crop_scale": [0.5, 1.0], "seed": 3}
    return load_config(str(write_config(tmp_path_factory.mktemp("distill"), distill=recipe)))


@pytest.fixture(scope="module")
def made(settings: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as the benchmark makes it; read only."""
    return distill.make_run(settings, tmp_path_factory.mktemp("distill") / "run", "cpu")


@pytest.fixture(scope="module")
def row(settings: RunConfig, made: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """A row by name, and the targets of its first batch; each is run once."""
    found: dict[str, Any] = {}
    alike, why = distill._alike(settings, made)
    assert why is None

    def run(name: str) -> Any:
        if name not in found:
            out = tmp_path_factory.mktemp(name)
            one = run_variant(alike, name, made, out, STEPS, CPU)
            found[name] = one, np.load(out / "targets.npy")
        return found[name]

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BY_NAME))
def test_every_row_does_the_work_it_says(row: Callable[[str], Any], name: str) -> None:
    (found, targets), variant = row(name), BY_NAME[name]
    assert found["all_images"] == (WARM + STEPS) * 4 * variant.runs
    assert 0 < found["wait_s"] + found["teacher_s"] < found["seconds"]
    assert (found["teacher_s"] > 0) == (variant.teacher == "live")
    assert found["peak_rss_bytes"] > 1e8
    assert found["cuda_bytes"] is None
    assert math.isfinite(found["loss_first"] + found["loss_last"])
    assert targets.shape == (4, 3)
    difference = distill._difference(row(variant.like)[1] if variant.like else None, targets)
    assert difference is None or difference < 0.01


@pytest.mark.slow
def test_stored_targets_are_others_than_those_of_the_views(row: Callable[[str], Any]) -> None:
    """So that the comparison of rows would see it."""
    difference = distill._difference(row("ours_live")[1], row("ours_stored")[1])
    assert difference is not None
    assert difference > 0.01


@pytest.mark.slow
def test_the_table_of_a_few_rows(settings: RunConfig, made: Path, tmp_path: Path) -> None:
    options = Options(repeats=1, only=("plain", "three_students"), run=made, steps=STEPS, out=tmp_path / "kept")
    rows = {one["variant"]: one for one in distill.bench(settings, options)}
    assert list(rows) == ["plain", "three_students"]
    assert rows["plain"]["ratio_to_plain"] == 1.0
    plain, three = rows["plain"], rows["three_students"]
    assert three["images_per_s"]["p50"] == pytest.approx(3 * STEPS * 4 / three["seconds"][0])
    assert three["ratio_to_plain"] == pytest.approx(three["images_per_s"]["p50"] / plain["images_per_s"]["p50"])
    for one in rows.values():
        assert one["data_wait"] + one["teacher_share"] + one["student_share"] == pytest.approx(1)
        assert one["bytes_per_image"] >= 0
    assert harness.as_table(distill.COLUMNS, rows.values()).count("\n") == 3
    assert (tmp_path / "kept" / "three_students" / "0" / "student2" / "checkpoint.pt").is_file()


def test_rows_share_the_recipe(settings: RunConfig) -> None:
    """All but who teaches, what loads and how many learn; and no row averages weights, for the plain loop does not."""
    recipes = {one.name: recipe_of(settings.distill, one, 7) for one in VARIANTS}
    free = {"teacher": "stored", "loader": "dali", "students": ()}
    assert len({one.model_copy(update=free).model_dump_json() for one in recipes.values()}) == 1
    three = recipes["three_students"]
    assert (three.steps, three.ema_decay, three.warmup_steps, three.seed) == (7, 0.0, 0, 3)
    assert [one.student for one in three.each_student()] == ["test_resnet"] * 3
    assert all(one.like is None or one.like in recipes for one in VARIANTS)


def test_without_labels_of_views_their_rows_are_left_out(
    settings: RunConfig, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, why = distill._alike(settings, finished)
    assert distill._able(BY_NAME["ours_stored"], why, CPU)
    assert not distill._able(BY_NAME["ours_views"], why, CPU)
    assert "ours_views is left out:" in capsys.readouterr().err


def test_rows_see_the_views_that_are_labelled(settings: RunConfig, made: Path) -> None:
    other = settings.distill.model_copy(update={"seed": 9, "crop_scale": (0.2, 0.3), "flip": False})
    found = distill._alike(settings.model_copy(update={"distill": other}), made)[0].distill
    assert (found.seed, found.crop_scale, found.flip) == (settings.seed, (0.5, 1.0), True)


def test_an_unknown_row_is_one_line() -> None:
    with pytest.raises(InputError, match="--only fast: bench distill has the rows plain, timm_task"):
        distill._chosen(["plain", "fast"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "yes"),
        ({"all_images": 7}, "no: 7 images, not 8"),
        ({"loss_last": 2.0}, "no: its loss does not fall"),
        ({"loss_last": math.nan}, "no: its loss does not fall"),
        ({"target_difference": 0.02}, "no: its targets are others"),
        ({"target_difference": math.nan, "all_images": 9}, "no: 9 images, not 8, its targets are others"),
        ({"target_difference": None}, "yes"),
    ],
)
def test_other_work_is_said(changes: dict[str, Any], said: str) -> None:
    row = {"all_images": 8, "loss_first": 2.0, "loss_last": 1.0, "target_difference": 0.001, **changes}
    assert distill._same_work(row, 8, 0.01) == said


def test_of_many_classes_the_highest_are_compared() -> None:
    wanted = np.tile(np.arange(300, dtype=np.float32), (2, 1))
    low, high = wanted.copy(), wanted.copy()
    low[:, :290] = 0  # what is not among the highest is stored as one number
    high[1, 298] += 2.99
    assert distill._difference(wanted, low) == 0
    assert distill._difference(wanted, high) == pytest.approx(0.01, rel=1e-4)
    assert distill._difference(wanted[:, :16], low[:, :16]) == 1.0
    assert distill._difference(wanted, wanted[:1]) == math.inf
    assert distill._difference(None, wanted) is None


def test_medians_and_ratios_are_of_repeats() -> None:
    """A machine of half the speed in the second repeat changes neither shares nor ratios."""

    def repeat(seconds: float, slower: float) -> harness.Row:
        times = {"seconds": seconds * slower, "wait_s": slower, "teacher_s": 2 * slower}
        return {**times, "read_bytes": 640, "peak_rss_bytes": int(slower)}

    base, fast = (
        distill._joined(Variant(name), [repeat(seconds, 1), repeat(seconds, 2)], 64)
        for name, seconds in (("a", 16.0), ("b", 8.0))
    )
    assert (fast["data_wait"], fast["teacher_share"], fast["student_share"]) == (1 / 8, 2 / 8, 5 / 8)
    assert (fast["bytes_per_image"], fast["peak_rss_bytes"]) == (10, 2)
    assert distill._ratio(base["seconds_per_image"], fast["seconds_per_image"]) == 2.0
    three = distill._joined(Variant("c", students=3), [repeat(8.0, 1)], 64)
    assert three["images_per_s"]["p50"] == 3 * 64 / 8
    assert distill._ratio(None, fast["seconds_per_image"]) is None


class Ticks:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def mark(self) -> float:
        return self.now

    def seconds(self, earlier: float, later: float) -> float:
        return later - earlier

    def wait(self, seconds: float) -> None:
        self.now += seconds


class Teaching(nn.Module):
    """Takes 10 s."""

    def __init__(self, clock: Ticks) -> None:
        super().__init__()
        self.clock = clock

    def forward(self, images: torch.Tensor) -> Outputs:
        self.clock.wait(10)
        return Outputs(images + 1)


def test_the_time_of_counted_steps_is_split() -> None:
    """Steps of 1 s for data, 10 s of the teacher and 100 s else; the first takes a thousand times as long for data."""
    clock = Ticks()
    split, teacher = Split(clock, 1), Teaching(clock)
    split.watch(teacher)
    for step in range(3):
        split.load(lambda wait=1000.0 if step == 0 else 1.0: clock.wait(wait))  # type: ignore[misc]
        teacher(torch.full((2,), float(step)))
        clock.wait(100)
    split.end()
    found = split.row()
    assert (found["seconds"], found["wait_s"], found["teacher_s"]) == (222, 2, 20)
    assert split.targets is not None
    assert split.targets.tolist() == [1, 1]


class Event:
    """An event of a stream whose time is that of the last ``record`` of any."""

    log: ClassVar[list[str]] = []

    def record(self) -> None:
        self.log.append("record")
        self.at = len(self.log)

    def synchronize(self) -> None:
        self.log.append("wait")

    def elapsed_time(self, later: Event) -> float:
        return 1e3 * (later.at - self.at)


def test_on_a_gpu_nobody_waits_before_the_last_step() -> None:
    Event.log = []
    split = Split(CudaClock(Event), 1, lambda: 5)
    for _ in range(3):
        split.load(lambda: None)
    split.end()
    assert Event.log == ["record"] * 7
    found = split.row()
    assert (found["seconds"], found["wait_s"], found["cuda_bytes"]) == (4, 2, 5)
    assert Event.log.count("wait") == 3


def test_bytes_read_by_others_are_counted_too(tmp_path: Path) -> None:
    """Those of a process that was started, while it runs; what was read before does not count."""
    file = tmp_path / "bytes"
    file.write_bytes(b"x" * (1 << 22))
    split = Split(HostClock(), 0)
    split.load(lambda: None)
    context = torch.multiprocessing.get_context("fork")
    read, done = context.Event(), context.Event()

    def child() -> None:
        file.read_bytes()
        read.set()
        done.wait(60)

    process = context.Process(target=child)
    process.start()
    assert read.wait(60)
    split.end()
    done.set()
    process.join(60)
    assert 1 << 22 <= split.read < 1 << 23
    assert processes.field(processes.tree(1)[0], "no such file", "x") == 0


def test_what_is_for_distill_alone_is_refused_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--out are for 'bench distill', not for 'bench loader'"):
        bench("loader", run=tmp_path)


def test_a_run_brings_its_own_configuration(settings: RunConfig, made: Path) -> None:
    found = _settings("minis-emoji", made, ["distill.lr=0.5"])
    assert (found.name, found.views.count, found.distill.student) == ("tiny", 4, "test_resnet")
    assert found.distill.lr == 0.5
    assert _settings("minis-emoji", None, []).name == "minis-emoji"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
@pytest.mark.parametrize("name", ["plain", "timm_task", "ours_views", "ours_live", "three_students"])
def test_rows_on_a_gpu(settings: RunConfig, made: Path, tmp_path: Path, name: str) -> None:
    found = run_variant(settings, name, made, tmp_path, STEPS, torch.device("cuda"))
    assert 0 <= found["wait_s"] + found["teacher_s"] < found["seconds"]
    assert found["cuda_bytes"] > 0
    assert json.dumps(found)
