"""Training a student from the shards of a run."""

from prism_fast.distillation.run import distill_run
from prism_fast.distillation.student import create_student
from prism_fast.distillation.trainer import Result, train_student

__all__ = ["Result", "create_student", "distill_run", "train_student"]
