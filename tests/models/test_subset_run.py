"""A run on a part of ImageNet with a teacher of all of it: every step sees the part's classes alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from prism_engines.backends.openvino import OpenVinoBackend
from prism_kernels import energy

from prism_fast.compile.parts import Parts
from prism_fast.config import RunConfig, assign, load_config
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.distillation.run import distill_run
from prism_fast.errors import InputError
from prism_fast.estimate.outline import outline_run
from prism_fast.labels.load import load_label_space
from prism_fast.models.classifier import load_classifier
from prism_fast.selection.select import select
from prism_fast.selection.settings import Settings
from prism_fast.synthesis.synthesizer import Synthesizer
from prism_fast.workers.synthesize import synthesize
from tests.tiny import make_teacher, write_config

INDICES = load_label_space("imagenette").indices
DISTILL = {
    "student": "test_resnet",
    "image_size": 32,
    "steps": 2,
    "batch_size": 4,
    "loader": "torch",
    "warmup_steps": 0,
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("part")
    path = write_config(folder, labels="imagenette", distill=DISTILL)
    make_teacher(folder / "teacher", classes=1000)
    return load_config(str(path))


@pytest.fixture(scope="module")
def run(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    synthesize(config, out)
    return out


def test_what_is_stored_is_of_the_part(config: RunConfig, run: Path) -> None:
    teacher, seen = load_classifier(config.models.teacher), 0
    shards = ShardSet.discover(run)
    assert shards.classes == 10
    for shard in shards.shards:
        for sample in shard.samples():
            whole = teacher.logits(sample.image[None])[:, list(INDICES)]
            torch.testing.assert_close(sample.logits[None].float(), whole, atol=2e-3, rtol=2e-3)
            free, _ = energy(whole, torch.tensor([sample.label]), 0.0, -1.0, 1.0)
            assert sample.meta["energy_after"] == pytest.approx(float(free), abs=2e-3)
            assert sample.meta["teacher_top1"] == int(whole.argmax())
            assert sample.label < 10
            seen += 1
    assert seen == 10


@pytest.mark.parametrize("teacher", ["stored", "live"])
def test_a_student_is_of_the_part(config: RunConfig, run: Path, tmp_path: Path, teacher: str) -> None:
    (made,) = distill_run(assign(config, {"distill.teacher": teacher}), run, tmp_path / "student")
    student = load_classifier(str(made.student)).config
    assert student.num_classes == 10
    assert student.label_names == tuple(cls.name for cls in load_label_space("imagenette").classes)


def test_a_selection_compares_with_the_teachers_features(run: Path) -> None:
    assert select(run, Settings(duplicates=0.999, agree=True)).classes == 10


def test_the_plan_counts_the_part(config: RunConfig) -> None:
    assert outline_run(config).classes == 10
    with pytest.raises(InputError, match="knows 1000 classes, label space 'emoji' has 16"):
        outline_run(assign(config, {"labels": "emoji"}))


def test_engines_of_two_parts_are_two(config: RunConfig, tmp_path: Path) -> None:
    """Of ten classes each, from the same teacher."""
    ids = "n01443537 n01484850 n01491361 n01494475 n01496331 n01498041 n01514668 n01514859 n01518878 n01530575"
    (tmp_path / "other.yaml").write_text(f"name: other\nsynsets: [{', '.join(ids.split())}]\n")
    first, second = (
        {name: Parts(made).get(name).key(OpenVinoBackend(), "fp32").digest for name in ("teacher", "energy_gradient")}
        for made in map(Synthesizer.load, (config, assign(config, {"labels": str(tmp_path / "other.yaml")})))
    )
    assert all(first[name] != second[name] for name in first)


def test_a_worker_of_another_part_is_refused(config: RunConfig, run: Path) -> None:
    with pytest.raises(InputError):
        synthesize(assign(config, {"labels": "imagenet100"}), run)
