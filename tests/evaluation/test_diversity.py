"""Diversity and coverage class by class, and how they get from shards to evaluation.json and the report."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from prism_fast.dataset.sample import Sample
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.errors import InputError
from prism_fast.evaluation import comparison
from prism_fast.evaluation.by_class import of_evaluation
from prism_fast.evaluation.comparison import Evaluation, load_evaluation, measure_set
from prism_fast.evaluation.diversity import (
    ClassDiversity,
    Labelled,
    common_size,
    count_images,
    diversity_by_class,
    mean_coverage,
    mean_vendi,
)
from prism_fast.evaluation.gather import gather
from prism_fast.evaluation.judge import Judge
from prism_fast.evaluation.prdc import coverage, prdc
from prism_fast.evaluation.vendi import mean_pairwise_distance, vendi_score
from prism_fast.models.classifier import load_classifier
from tests.tiny import make_teacher


def _draw(seed: int, n: int, d: int = 4) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _made() -> Labelled:
    """Class 0: 5 images, class 1: 3, class 2: one; in turns."""
    return Labelled(_draw(0, 9).float(), torch.tensor([0, 1, 0, 1, 2, 0, 1, 0, 0]))


def test_coverage_alone_is_that_of_prdc() -> None:
    real, fake = _draw(1, 30), _draw(2, 20) * 0.5
    for chunk in (1, 2**20):
        assert coverage(real, fake, k=3, chunk_bytes=chunk) == prdc(real, fake, k=3).coverage > 0
    # 0, 1 and 3 with one neighbour have radii 1, 1 and 2; of generated samples one is enough.
    line = torch.tensor([[0.0], [1.0], [3.0]])
    assert coverage(line, torch.tensor([[-0.5]]), k=1) == pytest.approx(1 / 3)
    assert coverage(line, torch.tensor([[1.0]]), k=1) == 1.0
    with pytest.raises(InputError, match="k = 1 needs at least 1 fake samples, got 0"):
        coverage(line, torch.zeros(0, 1), k=1)
    with pytest.raises(InputError, match="k = 3 needs at least 4 real samples, got 3"):
        coverage(line, line, k=3)


def test_scores_are_of_equally_many_images_of_each_class() -> None:
    made = _made()
    found = diversity_by_class(made, torch.arange(9) % 2 == 0)
    assert [(c.label, c.images) for c in found] == [(0, 5), (1, 3), (2, 1)]
    for c in found[:2]:
        first = made.features[made.labels == c.label][:3]
        assert (c.vendi, c.distance) == (vendi_score(first), mean_pairwise_distance(first))
    assert (found[2].vendi, found[2].distance) == (None, None)  # of one image
    # Right at the even places: of class 0 at 0, 2, 8 (not 5, 7), of class 1 at 6 (not 1, 3), of class 2 at 4.
    assert [c.agreement for c in found] == pytest.approx([3 / 5, 1 / 3, 1])
    assert mean_vendi(found) == pytest.approx((found[0].vendi + found[1].vendi) / 2)  # type: ignore[operator]
    assert [c.vendi is None for c in diversity_by_class(made, size=4)] == [False, True, True]
    assert all((c.agreement, c.coverage, c.real, c.k) == (None, None, 0, None) for c in diversity_by_class(made))


def test_the_common_size_is_that_of_the_smallest_class_of_all_sets() -> None:
    assert common_size([Counter({0: 5, 1: 4}), Counter({0: 3, 1: 9})]) == 3
    assert common_size([Counter({0: 5, 1: 1})]) == 5
    assert common_size([Counter({0: 1}), Counter()]) is None
    assert mean_vendi(diversity_by_class(Labelled(_draw(0, 2), torch.tensor([0, 1])))) is None


def test_coverage_is_within_a_class() -> None:
    """Class 1 is made where the real pictures of class 0 are, and the other way round: together all is covered."""
    near, far = _draw(3, 8), _draw(4, 8) + 100
    real = Labelled(torch.cat([near, far]), torch.tensor([0] * 8 + [1] * 8))
    swapped = Labelled(real.features, 1 - real.labels)
    assert prdc(real.features, swapped.features).coverage == 1
    assert mean_coverage(diversity_by_class(real, real=real)) == 1
    assert mean_coverage(diversity_by_class(swapped, real=real)) == 0


def test_coverage_of_few_real_pictures_has_fewer_neighbours() -> None:
    line = torch.tensor([[0.0], [1.0], [3.0]])
    real = Labelled(torch.cat([line, line, line[:1]]), torch.tensor([0, 0, 0, 1, 1, 1, 2]))
    made = Labelled(torch.tensor([[-1.5], [9.0], [0.0], [0.0]]), torch.tensor([0, 0, 2, 3]))
    found = diversity_by_class(made, real=real, k=5)
    # With two neighbours the radii are 3, 2 and 3: only the ball of 0 reaches to -1.5.
    assert [(c.label, c.real, c.k) for c in found] == [(0, 3, 2), (1, 3, 2), (2, 1, None), (3, 0, None)]
    assert [c.coverage for c in found] == [pytest.approx(1 / 3), 0.0, None, None]  # no image of class 1 was made
    assert mean_coverage(found) == pytest.approx(1 / 6)
    with pytest.raises(InputError, match="k must be at least 1"):
        diversity_by_class(made, k=0)
    with pytest.raises(InputError, match="9 features but 2 labels"):
        Labelled(_draw(0, 9), torch.tensor([0, 1]))


def _samples(made: Labelled) -> list[Sample]:
    """Their images carry the place of the features; the teacher calls everything class 0."""
    logits = torch.tensor([1.0, 0.0, 0.0])
    return [
        Sample(i, torch.full((3, 2, 2), i, dtype=torch.uint8), int(label), logits, {})
        for i, label in enumerate(made.labels)
    ]


def test_a_set_is_measured_class_by_class(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = _made()
    monkeypatch.setattr(
        comparison, "features_of", lambda network, images, size: made.features[images[:, 0, 0, 0].long()]
    )
    network = load_classifier(str(make_teacher(tmp_path / "judge", classes=3)))
    real = Labelled(_draw(5, 12).float(), torch.arange(12) % 3)
    found = measure_set(
        "guided", _samples(made), real.features, network, 3, 4, 1.0, real_labels=real.labels, vendi_images=2
    )
    assert found.per_class == diversity_by_class(made, made.labels == 0, real, size=2, k=3)
    assert (found.vendi, found.vendi_images) == (mean_vendi(found.per_class), 2)
    assert found.coverage_by_class == mean_coverage(found.per_class) is not None
    assert [c.agreement for c in found.per_class] == [1, 0, 0]
    plain = measure_set("guided", _samples(made), real.features, network, 3, 4, 1.0)
    assert (plain.vendi_images, plain.coverage_by_class) == (3, None)
    old = {"per_class", "vendi", "vendi_images", "coverage_by_class"}
    assert plain.model_dump(exclude=old) == found.model_dump(exclude=old)


OLD = """{"scores": [], "sets": [{"name": "guided", "images": 2, "images_per_s": 1.5, "energies": [-1.0, -2.0],
"agreement": 0.5, "precision": 0.1, "recall": 0.2, "density": 0.3, "coverage": 0.4}], "real_energies": [-3.0],
"features": "EfficientNet-Lite1"}"""


def test_older_files_still_load(tmp_path: Path) -> None:
    file = tmp_path / "evaluation.json"
    file.write_text(OLD)
    found = load_evaluation(file)
    assert found is not None
    assert found.sets[0].coverage == 0.4
    assert (found.sets[0].vendi, found.sets[0].per_class) == (None, ())
    assert of_evaluation(found, ("a", "b")) is None
    assert Evaluation.model_validate_json(found.model_dump_json()) == found


def _newer(run: Path) -> Evaluation:
    old = Evaluation.model_validate_json(OLD)
    classes = (ClassDiversity(label=1, images=4, vendi=2.5, agreement=0.5, coverage=0.25, real=8, k=5),)
    newer = old.sets[0].model_copy(update={"per_class": classes, "vendi": 2.5, "vendi_images": 4})
    other = newer.model_copy(update={"name": "unguided", "per_class": (ClassDiversity(label=0, images=1),)})
    found = old.model_copy(update={"sets": (newer, other)})
    (run / "evaluation.json").write_text(found.model_dump_json())
    return found


def test_the_report_shows_what_was_measured(run: Path) -> None:
    found = _newer(run)
    page = gather(run)
    assert page.diversity is not None
    assert (page.diversity.sets, page.diversity.images) == (("guided", "unguided"), 4)
    assert [(c.images, c.vendi, c.real) for c in page.diversity.classes] == [
        ((0, 1), (None, None), 0),
        ((4, 0), (2.5, None), 8),
    ]
    assert "guided: Vendi score" in {row.name for row in page.numbers}
    (run / "evaluation.json").write_text(OLD)
    older = gather(run)
    assert older.diversity is None
    assert {row.name for row in page.numbers} - {row.name for row in older.numbers} >= {"guided: Vendi score"}
    assert found.sets[0].coverage_by_class is None


def test_a_run_alone_is_measured_only_when_asked(
    finished: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert gather(finished).diversity is None
    network = load_classifier(str(make_teacher(tmp_path / "judge", classes=3)))
    monkeypatch.setattr("prism_fast.evaluation.judge.load_judge", lambda models: Judge(network, "a judge"))
    page = gather(finished, diversity=2)
    shards = ShardSet.discover(finished)
    counts = count_images(shards)
    assert counts == Counter(s.label for s in shards.samples())
    assert page.diversity is not None
    assert (page.diversity.sets, page.diversity.features, page.diversity.images) == (("guided",), "a judge", 2)
    assert [c.images for c in page.diversity.classes] == [(min(2, counts[label]),) for label in sorted(counts)]
    assert any(v is not None and 1 <= v <= 2 for c in page.diversity.classes for v in c.vendi)
    assert "Diversity by class is that of the first 2 images of each class." in page.notes
    with pytest.raises(InputError, match="at least 2 images of each class, got 1"):
        gather(finished, diversity=1)
