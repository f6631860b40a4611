"""``model.pt2``: the graph by torch.export, for any batch size, normalisation inside."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from prism_engines.quiet import quiet, root_cause
from torch.export import ExportedProgram

from prism_fast.errors import RunError
from prism_fast.operations.export_student.source import Source
from prism_fast.operations.export_student.traced import largest_error

FILE = "model.pt2"
#: Of the archive's extra files: the classes' names, a JSON list.
LABELS = "labels.json"


def write(program: ExportedProgram, source: Source, folder: Path, half: bool) -> tuple[Path, float]:
    """Write the file and load it again; gives it and the largest error of a logit.

    Raises:
        RunError: torch does not load it, or it gives other logits.
    """
    names = source.config.label_names
    extra = {LABELS: json.dumps(list(names))} if names else {}
    try:
        with quiet():
            torch.export.save(program, folder / FILE, extra_files=extra)
            loaded = torch.export.load(folder / FILE).module()
    except OSError:
        raise
    except Exception as error:  # whatever torch's serialisation has no form for
        raise RunError(f"torch does not keep {FILE} ({root_cause(error)}); choose another --format") from error
    return folder / FILE, largest_error(FILE, source, loaded, half)
