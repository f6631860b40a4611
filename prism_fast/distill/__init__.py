"""Training a student from the shards of a run."""

from prism_fast.distill.student import StudentInfo, create_student, load_student
from prism_fast.distill.trainer import Result, distill

__all__ = ["Result", "StudentInfo", "create_student", "distill", "load_student"]
