"""A run directory: whose it is, and what it is finished with."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prism_fast.config import RunConfig
from prism_fast.errors import DataError, InputError, RunError
from prism_fast.synthesis.plan import write_plan
from prism_fast.synthesis.shards import Record, finished_shards


@dataclass(frozen=True)
class Layout:
    """Whose run it is, and how its plan is cut into shards."""

    run_hash: str
    images: int
    shard_size: int

    @property
    def shards(self) -> int:
        """Number of planned shards."""
        return -(-self.images // self.shard_size)

    def extent(self, shard: int) -> tuple[int, int]:
        """First index of a shard, and how many are planned for it."""
        first = shard * self.shard_size
        return first, min(self.shard_size, self.images - first)


class RunDirectory:
    """``run.json``, ``plan.parquet``, ``shards/``, then ``manifest.parquet`` and ``README.md``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shards = path / "shards"

    @property
    def manifest(self) -> Path:
        """One row a shard, written when the run is finished."""
        return self.path / "manifest.parquet"

    def exists(self) -> bool:
        """Whether it is a run's already."""
        return (self.path / "run.json").exists()

    def claim(self, config: RunConfig) -> None:
        """Make the directory this run's, or go on if it already is.

        Raises:
            InputError: it belongs to another run, or cannot be written.
        """
        facts = self.path / "run.json"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not os.access(self.path, os.W_OK):
                raise PermissionError(13, "Permission denied")
            if facts.exists():
                self._check_owner(facts, config)
            else:
                _write_atomically(
                    facts,
                    json.dumps({"run_hash": config.run_hash(), "config": config.model_dump(mode="json")}, indent=1),
                )
            plan = self.path / "plan.parquet"
            if not plan.exists():
                write_plan(config, plan)
        except OSError as error:
            raise InputError(f"cannot write to {self.path}: {error.strerror or error}; choose another --out") from error

    @staticmethod
    def _check_owner(facts: Path, config: RunConfig) -> None:
        try:
            owner = json.loads(facts.read_text())["run_hash"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{facts} is not a run's; choose an empty --out") from error
        if owner != config.run_hash():
            raise InputError(
                f"{facts.parent} belongs to run {owner[:12]}, but this configuration is run {config.run_hash()[:12]}; "
                "choose another --out"
            )

    def facts(self) -> dict[str, Any]:
        """``run.json``.

        Raises:
            DataError: this is not a run directory.
        """
        try:
            data: dict[str, Any] = json.loads((self.path / "run.json").read_text())
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path} is not a run directory: no readable run.json") from error
        if not isinstance(data, dict) or not {"run_hash", "config"} <= data.keys():
            raise DataError(f"{self.path / 'run.json'} is not a run's: it lacks run_hash or config")
        return data

    def layout(self) -> Layout:
        """How ``run.json`` cuts the run into shards.

        Raises:
            DataError: this is not a run directory.
        """
        facts = self.facts()
        try:
            sizes = facts["config"]["synthesis"]
            return Layout(facts["run_hash"], sizes["images"], sizes["shard_size"])
        except (KeyError, TypeError) as error:
            raise DataError(f"{self.path / 'run.json'} is not a run's: it lacks config.synthesis") from error

    def plan(self) -> pa.Table:
        """The plan's rows."""
        return pq.read_table(self.path / "plan.parquet")

    def records(self) -> dict[int, Record]:
        """Finished shards."""
        return finished_shards(self.shards)

    def clean_temporaries(self) -> None:
        """Remove what killed attempts left behind."""
        for leftover in self.shards.glob("*.tmp-*"):
            leftover.unlink(missing_ok=True)

    def finish(self, config: RunConfig) -> None:
        """Write the manifest and the dataset card."""
        records = [
            json.loads(r.model_dump_json(exclude={"seconds", "models", "engines"}))
            for _, r in sorted(self.records().items())
        ]
        temporary = self.manifest.with_suffix(".tmp")
        try:
            pq.write_table(pa.Table.from_pylist(records), temporary)
            os.replace(temporary, self.manifest)
            _write_atomically(self.path / "README.md", dataset_card(config, self.records()))
        except OSError as error:
            raise RunError(f"cannot write the manifest of {self.path}: {error.strerror or error}") from error


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def require_free(path: Path, size_bytes: int) -> None:
    """Refuse to start a run that the disk cannot hold.

    Raises:
        InputError: fewer bytes are free than the run is expected to need.
    """
    existing = next(p for p in (path, *path.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < size_bytes:
        raise InputError(f"{path} has {free / 1e6:.0f} MB free, the run needs about {size_bytes / 1e6:.0f} MB")


def dataset_card(config: RunConfig, records: dict[int, Record]) -> str:
    """The card of a finished dataset, in the field's usual form."""
    rows = sum(r.rows for r in records.values())
    first = next(iter(records.values()))
    guidance = config.guidance
    steering = (
        f"{guidance.objective}, scale {guidance.scale}, steps {guidance.window[0]:.0%}–{guidance.window[1]:.0%}"
        if guidance.enabled
        else "none"
    )
    models = "\n".join(f"- {name}: SHA-256 `{digest}`" for name, digest in first.models.items())
    return f"""---
pretty_name: {config.name}
task_categories: [image-classification]
size_categories: [{"n<1K" if rows < 1000 else "1K<n<10K" if rows < 10_000 else "n>10K"}]
tags: [synthetic, knowledge-distillation, webdataset]
---
# {config.name}

{rows} synthetic images of {first.classes} classes ({config.labels}), made without any real image by prism-fast.

- Run: `{config.run_hash()}`, seed {config.seed}
- Sampling: {config.sampling.solver}, {config.sampling.steps} steps, guidance scale {config.sampling.guidance_scale}
- Energy guidance: {steering}
- Prompts: `{config.prompts.templates[0]}` and {len(config.prompts.templates) - 1} more templates
- Licences: those of the diffusion model and of the teacher apply; see their directories.

{models}

Each sample: image, `.cls` and `.label` (class), `.logits` (teacher logits, float16), `.json` (prompt, energies).
"""
