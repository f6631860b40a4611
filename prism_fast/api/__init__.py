"""The public Python API: what the commands do, as functions; ``import prism_fast`` gives them.

Each prepares the process as the command line does (torch's threads, quiet libraries) and then calls the room that does
the work. ``config`` is what :func:`prism_fast.load_config` gave; paths may be strings, and a run's may be
``s3://BUCKET/RUN`` where a local directory is not asked for. Errors are :class:`prism_fast.errors.PrismError` with one
line that says what to do.
"""

from prism_fast.api.prompts import check_prompts, prompt_stats, write_bank
from prism_fast.api.runs import build_engines, check_gpu, evaluate, extend, report, select, synthesize, verify
from prism_fast.api.students import compress, distill, export_student
from prism_fast.api.views import label_views

__all__ = [
    "build_engines",
    "check_gpu",
    "check_prompts",
    "compress",
    "distill",
    "evaluate",
    "export_student",
    "extend",
    "label_views",
    "prompt_stats",
    "report",
    "select",
    "synthesize",
    "verify",
    "write_bank",
]
