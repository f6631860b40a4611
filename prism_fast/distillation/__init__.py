"""Training a student from the shards of a run."""

from prism_fast.distillation.run import distill_run
from prism_fast.distillation.student import create_student
from prism_fast.distillation.task import Result, Task
from prism_fast.distillation.train import train_students

__all__ = ["Result", "Task", "create_student", "distill_run", "train_students"]
