"""What is trained on what, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prism_fast.config import DistillConfig
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.dataset.view_labels import open_view_labels
from prism_fast.distillation.learner import Learner
from prism_fast.distillation.model_card import Origin
from prism_fast.distillation.parallel import World
from prism_fast.models.classifier import Classifier

#: (steps done, steps in all, loss)
Progress = Callable[[int, int, float], None]
#: (student, its row of the history)
Watch = Callable[[str, dict[str, float]], None]


@dataclass(frozen=True)
class Result:
    """A finished student. ``model`` is the averaged one (the last one if averaging is off), in eval mode.

    ``best`` holds the student of the look at which it was nearest to the teacher; None without ``validation``.
    """

    name: str
    model: nn.Module
    student: Path
    best: Path | None
    steps: int
    resumed_from: int
    loss: float
    agreement: float
    images_per_s: float
    data_wait: float


@dataclass(frozen=True)
class Task:
    """What is trained on what.

    ``teacher`` is needed for ``distill.teacher: live`` and for students that inherit from it. ``mean`` and ``std`` are
    of the students' pictures, and a live teacher's as well. ``label_names`` are written beside the students, and so are
    ``origins``, the networks that the pictures come from.
    """

    config: DistillConfig
    shards: ShardSet
    out: Path
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    teacher: Classifier | None = None
    label_names: tuple[str, ...] | None = None
    origins: tuple[Origin, ...] = ()
    world: World = field(default_factory=lambda: World(torch.device("cpu")))

    @property
    def image_size(self) -> int:
        """Side of the pictures that are loaded: the largest that a student sees."""
        return max(recipe.image_size for recipe in self.config.each_student())

    def folder(self, learner: Learner) -> Path:
        """Where a student's files go: its own folder where there are several."""
        return self.out / learner.name if self.config.students else self.out

    def identity(self, learner: Learner) -> dict[str, Any]:
        """What decides a student's weights, as its checkpoint names it. What was selected is a part of the digest."""
        left_out = {"recipe", "checkpoint_every", "selection", "students", "compile", "checkpoint_activations"}
        recipe = learner.recipe.model_dump(mode="json", exclude=left_out)
        recipe["validation"] = {key: recipe["validation"][key] for key in ("share", "most")}
        shared = {"loaded_size": self.image_size, "mean": list(self.mean), "std": list(self.std)}
        return {**recipe, **shared, **self._data}

    @cached_property
    def _data(self) -> dict[str, Any]:
        """What is trained on; how many views there are says which of them an epoch shows."""
        shards = {"shards": self.shards.digest()}
        if self.config.teacher != "views":
            return shards
        labels = open_view_labels(self.shards, check=False)  # the loader has checked them
        return {**shards, "views": [labels.digest(), labels.count]}
