"""Real pictures to measure on: the bundled test sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prism_fast.evaluation.pictures import Pictures, load_pictures
from prism_fast.models.bundled import GENERATOR_STYLES, SHIFT_STYLES, TEACHER_STYLES, resolve

KNOWN = "unseen concepts, known styles"
GENERATOR_ONLY = "unseen concepts, styles only the generator knew"
SHIFT = "unseen concepts, styles nobody knew"


@dataclass(frozen=True)
class RealSets:
    """Real pictures: the teacher's training pictures, those to choose by, and test sets that nothing was trained on."""

    train: Pictures
    validation: Pictures
    tests: dict[str, Pictures]

    def every(self, step: int) -> RealSets:
        """One picture of each ``step`` in each set."""
        tests = {name: pictures.every(step) for name, pictures in self.tests.items()}
        return RealSets(self.train.every(step), self.validation.every(step), tests)


def real_sets() -> RealSets:
    """The bundled pictures."""
    table = Path(resolve("minis", "pictures"))
    generator_only = tuple(s for s in GENERATOR_STYLES if s not in TEACHER_STYLES)
    tests = {KNOWN: TEACHER_STYLES, GENERATOR_ONLY: generator_only, SHIFT: SHIFT_STYLES}
    return RealSets(
        load_pictures(table, "train", TEACHER_STYLES),
        load_pictures(table, "val", TEACHER_STYLES),
        {name: load_pictures(table, "test", styles) for name, styles in tests.items()},
    )
