"""A smaller classifier from a teacher alone: images, a search over what to cut, students, and the best of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prism_fast.config import RunConfig, assign
from prism_fast.data.loader import open_loader
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.distillation.inherit.search import Candidate, search
from prism_fast.distillation.run import distill_run
from prism_fast.distillation.task import Result
from prism_fast.evaluation.cost import Cost, cost_of
from prism_fast.experiments.cuts import cut_student
from prism_fast.labels.load import load_label_space
from prism_fast.models.bundled import resolve
from prism_fast.models.classifier import Classifier, load_classifier
from prism_fast.models.label_space import for_label_space
from prism_fast.storage.files import replace
from prism_fast.workers.synthesize import synthesize

#: Opens a named phase; what it gives is told (done, in all, a number that says how it goes).
Phase = Callable[[str], AbstractContextManager[Callable[[int, int, float], None]]]
#: Part of the images that the students are compared on; nobody trains on them.
HELD_OUT = 0.1


@dataclass(frozen=True)
class Compressed:
    """A student of a cut of the teacher, beside the teacher's own cost.

    ``agreement`` is with the teacher on images that nobody trained on, ``divergence`` the mean KL there, in nats.
    """

    student: Path
    candidate: Candidate
    cost: Cost
    teacher: Cost
    agreement: float
    divergence: float

    def described(self) -> dict[str, Any]:
        """As JSON."""
        inherit = self.candidate.inherit.model_dump(mode="json")
        cut = {"inherit": inherit, "image_size": self.candidate.image_size, "share": self.candidate.share}
        numbers = {"agreement": self.agreement, "divergence": self.divergence}
        costs = {"cost": asdict(self.cost), "teacher": asdict(self.teacher)}
        return {"student": str(self.student), **cut, **numbers, **costs}


def compress(
    config: RunConfig,
    budget: float,
    out: Path,
    phase: Phase,
    *,
    run: Path | None = None,
    candidates: int = 2,
    device: str = "cpu",
    log: Callable[[str], None] = print,
) -> tuple[Compressed, ...]:
    """Students that cost at most ``budget`` of the teacher's multiply-adds, the nearest to the teacher first.

    Called again it goes on: images, checkpoints and finished students stay.

    Args:
        config: images and teacher; ``distill`` says how long students are trained.
        budget: part of the teacher's multiply-adds at its own size, between 0 and 1.
        out: where images, students and ``compress.json`` go.
        phase: opens a named phase of the work, whose progress is then told.
        run: images that are there already.
        candidates: how many cuts are distilled, on the same batches.
        device: where students and teacher compute.
        log: told what is chosen.

    Raises:
        InputError: no cut costs that little, or the teacher cannot be taken apart.
    """
    found = load_classifier(resolve(config.models.teacher, "teacher"))
    teacher = for_label_space(found, load_label_space(config.labels))
    if run is None:
        run = out / "run"
        with phase("synthesize images") as progress:
            synthesize(config, run, progress, out / "engines", log)
    with phase("search for cuts"):
        cuts = search(teacher, budget, lambda: _images(config, run, teacher))[:candidates]
    for number, cut in enumerate(cuts):
        log(f"cut {number}: {_said(cut)}")
    with phase("distil") as progress:
        results = distill_run(_recipe(config, cuts), run, out / "students", device=device, progress=progress)
    cost = cost_of(teacher)
    made = [_compressed(result, cut, cost) for result, cut in zip(results, cuts, strict=True)]
    made.sort(key=lambda one: one.divergence)
    replace(out / "compress.json", f"{json.dumps([one.described() for one in made], indent=2)}\n".encode())
    return tuple(made)


def _images(config: RunConfig, run: Path, teacher: Classifier) -> Iterator[Tensor]:
    pixels = teacher.config
    shards, device = ShardSet.discover(run), torch.device("cpu")
    loader = open_loader(shards, config.distill, device, pixels.mean, pixels.std, image_size=pixels.image_size)
    try:
        for batch in loader:
            yield batch.images
    finally:
        loader.close()


def _recipe(config: RunConfig, cuts: tuple[Candidate, ...]) -> RunConfig:
    students = [cut_student(f"cut{number}", cut.image_size, cut.inherit) for number, cut in enumerate(cuts)]
    share = config.distill.validation.share or HELD_OUT
    changes: dict[str, object] = {"distill.teacher": "live", "distill.validation.share": share}
    return assign(config, {**changes, "distill.students": students})


def _compressed(result: Result, cut: Candidate, teacher: Cost) -> Compressed:
    student = load_classifier(str(result.student))
    rows = json.loads((result.student / "history.json").read_text())
    last = next(row for row in reversed(rows) if "held_out_divergence" in row)
    cost = cost_of(student)
    return Compressed(result.student, cut, cost, teacher, last["held_out_agreement"], last["held_out_divergence"])


def _said(cut: Candidate) -> str:
    inherit, share = cut.inherit, f"{cut.share:.3f} of the teacher's multiply-adds"
    blocks = "all block groups" if inherit.blocks is None else f"{inherit.blocks} block groups"
    return f"{blocks}, depth {inherit.depth:g}, width {inherit.width:g}, {cut.image_size} px, {share}"
