"""What decides the bytes of a run, as one hash."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from prism_fast.labels.space import BUNDLED, is_file, labels_path


def hash_of(data: dict[str, Any]) -> str:
    """SHA-256 of the sections that decide the samples' bytes, their label space named by what it holds."""
    canonical = json.dumps(data | {"labels": labels_identity(data["labels"])}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def labels_identity(labels: str) -> str:
    """A bundled label space is its name; one of your own is its content, wherever the file lies."""
    path = labels_path(labels)
    return labels if labels in BUNDLED or not is_file(path) else hashlib.sha256(path.read_bytes()).hexdigest()
