"""Training a student from the shards of a run."""

from prism_fast.distill.student import create_student
from prism_fast.distill.trainer import Result, distill

__all__ = ["Result", "create_student", "distill"]
