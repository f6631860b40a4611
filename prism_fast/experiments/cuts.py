"""Students that are cuts of the teacher, each with the recipe for its kind."""

from __future__ import annotations

from typing import Any

from prism_fast.config.distill import InheritConfig
from prism_fast.config.recipes import recipe


def cut_student(name: str, image_size: int, inherit: InheritConfig) -> dict[str, Any]:
    """One of ``distill.students``, with what its recipe says of a student.

    A cut with all groups and channels gives almost the teacher's answers before any training: ``finetune`` keeps it
    there. Any other has new layers or other channels: ``inherit``.
    """
    said = recipe("finetune" if inherit.blocks is None and inherit.width == 1 else "inherit")
    cut = {**inherit.model_dump(mode="json", exclude_defaults=True), **said.get("inherit", {})}
    return {"name": name, "image_size": image_size, "inherit": cut} | {
        key: said[key] for key in ("student_from", "losses", "lr")
    }
