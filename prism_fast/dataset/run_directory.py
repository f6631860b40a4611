"""A run directory: whose it is, and what it is finished with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from prism_fast.config import RunConfig
from prism_fast.dataset.card import dataset_card
from prism_fast.dataset.draws import Decision, Draws, draws_name, load_draws
from prism_fast.dataset.layout import Layout
from prism_fast.dataset.plan import PlanFile, is_whole_plan, write_plan
from prism_fast.dataset.record import Record, finished_shards, read_record
from prism_fast.dataset.sealed import sealed, unsealed
from prism_fast.errors import DataError, InputError, RunError
from prism_fast.labels.load import load_label_space
from prism_fast.storage.faults import failpoint
from prism_fast.storage.files import (
    create,
    is_staged,
    make_folder,
    names,
    read,
    reading,
    remove,
    replace,
    sweep,
    sync_directory,
)
from prism_fast.storage.paths import in_store

#: What may lie in a directory that becomes a run: Slurm's messages, what a killed worker or a person left of one, and
#: what a new file system holds. None of it is overwritten.
_HARMLESS = frozenset({"shards", "slurm", "engines.json", "margins.json", "lost+found"})
_OF_SHARDS = (".tar", ".idx", ".json")


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
        with reading(self.path):
            return (self.path / "run.json").exists()

    def claim(self, config: RunConfig, decided: Sequence[Decision] = ()) -> None:
        """Make the directory this run's, or go on if it already is.

        Args:
            config: the run.
            decided: what was decided of a run that is begun; one that goes on has its own.

        Raises:
            InputError: it belongs to another run, holds something else, or cannot be written.
        """
        facts = self.path / "run.json"
        try:
            make_folder(self.path)
            if facts.exists():
                self.check_owner(config)
            else:
                self.require_empty()
            plan = self.path / "plan.parquet"
            if not facts.exists() or not is_whole_plan(plan, config.synthesis.images):
                draws = self.draws(len(load_label_space(config.labels).classes), decided)
                own = partial(self._own, config, decided)  # after the rows: a wrong template owns no directory
                write_plan(config, plan, before=own, draws=draws)
                sync_directory(self.path)
        except OSError as error:
            raise InputError(f"cannot write to {self.path}: {error.strerror or error}; choose another --out") from error

    def _own(self, config: RunConfig, decided: Sequence[Decision]) -> None:
        if not create(self.path / "run.json", run_document(config, config.run_hash(), decided)):
            self.check_owner(config)

    def check_owner(self, config: RunConfig) -> None:
        """Refuse another run's directory, and one that holds what is no run.

        Raises:
            InputError: it belongs to another run, or to a shorter or longer one, or holds something else.
            DataError: its ``run.json`` is not a run's.
        """
        facts = self.path / "run.json"
        try:
            data = unsealed(json.loads(read(facts)))
            owner, held = data["run_hash"], data["config"]["synthesis"]["images"]
        except NotADirectoryError:  # making it says so
            return
        except FileNotFoundError:
            self.require_empty()
            return
        except OSError as error:
            raise InputError(f"cannot read {facts}: {error.strerror or error}; choose another --out") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{facts} is not a run's; choose an empty --out") from error
        if owner != config.run_hash():
            raise InputError(
                f"{self.path} belongs to run {owner[:12]}, but this configuration is run {config.run_hash()[:12]}; "
                "choose another --out"
            )
        if held != (wanted := config.synthesis.images):
            raise InputError(
                f"{self.path} is a run of {held} images, but {wanted} are asked for; 'prism-fast extend {self.path} "
                "--images N' makes it longer, or choose another --out"
            )

    def require_empty(self) -> None:
        """Refuse a directory that holds something and is no run: nothing here is ours to overwrite.

        A claim gives ``run.json`` its name before all others, so that a killed one leaves staged files at most.

        Raises:
            InputError: it holds something.
        """
        try:
            others = [name for name in names(self.path) if not _is_harmless(name)]
            others += self._shards_of_nobody()
        except NotADirectoryError:  # making it says so
            return
        except OSError as error:
            raise InputError(f"cannot read {self.path}: {error.strerror or error}; choose another --out") from error
        if others and not self.exists():  # another worker may have claimed it meanwhile
            raise InputError(
                f"{self.path} is not empty and no run: it holds {min(others)} and no run.json; choose another --out"
            )

    def _shards_of_nobody(self) -> list[str]:
        try:
            return [f"shards/{name}" for name in names(self.shards) if name.endswith(_OF_SHARDS)]
        except NotADirectoryError:
            return ["shards"] if self.path.is_dir() else []

    def facts(self) -> dict[str, Any]:
        """``run.json``.

        Raises:
            DataError: this is not a run directory, or the file is damaged.
        """
        facts = self.path / "run.json"
        try:
            data: dict[str, Any] = json.loads(read(facts))
        except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError) as error:
            raise DataError(f"{self.path} is not a run directory: no readable run.json") from error
        except OSError as error:
            raise DataError(f"cannot read {facts}: {error.strerror or error}; make it readable first") from error
        if not isinstance(data, dict) or not {"run_hash", "config"} <= data.keys():
            raise DataError(f"{facts} is not a run's: it lacks run_hash or config")
        try:
            return unsealed(data)
        except ValueError as error:
            raise DataError(
                f"{facts} is damaged: {error}; restore it from a copy, or choose another --out and make the run again"
            ) from error

    def config(self) -> RunConfig:
        """The configuration that the run was begun with.

        Raises:
            DataError: not a run directory, or a configuration of another version.
        """
        try:
            return RunConfig.model_validate(self.facts()["config"])
        except ValidationError as error:
            raise DataError(
                f"{self.path / 'run.json'} holds no configuration of this version; make the run again"
            ) from error

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

    def decisions(self) -> tuple[Decision, ...]:
        """What was decided of the run's rows, in order; of most runs nothing.

        Raises:
            DataError: this is not a run directory.
        """
        try:
            return tuple(map(Decision.model_validate, self.facts().get("decisions", ())))
        except (ValidationError, TypeError) as error:
            raise DataError(f"{self.path / 'run.json'} is damaged: its decisions are none; restore it") from error

    def draws(self, classes: int, decided: Sequence[Decision] = ()) -> Draws:
        """Which class and turn each row is of a run of so many classes; ``decided`` is what is, while there is no run.

        Raises:
            DataError: a file of a decision is missing or damaged.
        """
        return load_draws(self.path, self.decisions() if self.exists() else decided, classes)

    def plan(self) -> PlanFile:
        """The plan, opened."""
        return PlanFile(self.path / "plan.parquet")

    def records(self) -> dict[int, Record]:
        """Finished shards."""
        return finished_shards(self.shards)

    def done(self) -> set[int]:
        """Shards that have a record, which is not read."""
        with reading(self.shards):
            found = names(self.shards)
        return {int(name[:6]) for name in found if len(name) == 11 and name[:6].isdigit() and name.endswith(".json")}

    def has(self, shard: int) -> bool:
        """Whether a shard has a record."""
        with reading(self.shards):
            return (self.shards / f"{shard:06d}.json").exists()

    def record(self, shard: int) -> Record:
        """The record of a finished shard.

        Raises:
            DataError: it is not a record. RunError: it cannot be read.
        """
        return read_record(self.shards / f"{shard:06d}.json")

    def missing(self) -> list[int]:
        """Planned shards without a record."""
        done = self.done()
        return [shard for shard in range(self.layout().shards) if shard not in done]

    def images_done(self) -> int:
        """Planned images of the shards that have a record; 0 for a directory that is no run yet."""
        if not self.exists():
            return 0
        layout = self.layout()
        return sum(layout.extent(shard)[1] for shard in self.done() if shard < layout.shards)

    def clean_temporaries(self) -> None:
        """Remove what dead attempts left behind: what they were writing, and their claims on what is finished."""
        sweep(self.path)
        sweep(self.shards)
        with reading(self.shards):
            for lease in (self.shards / name for name in names(self.shards) if name.endswith(".lease")):
                if any((folder / f"{lease.stem}.json").exists() for folder in (self.shards, self.path)):
                    remove(lease)

    def finish(self, config: RunConfig) -> None:
        """Write the manifest and the dataset card."""
        records = [record for _, record in sorted(self.records().items())]
        table = pa.BufferOutputStream()
        try:
            pq.write_table(pa.Table.from_pylist(manifest_rows(records)), table)
            replace(self.manifest, table.getvalue().to_pybytes())
            failpoint("manifest-written")
            replace(self.path / "README.md", dataset_card(config, records).encode())
            failpoint("card-written")
            self.clean_temporaries()
        except OSError as error:
            raise RunError(f"cannot write the manifest of {self.path}: {error.strerror or error}") from error


def _is_harmless(name: str) -> bool:
    return name in _HARMLESS or name.startswith(".") or is_staged(name) or name == draws_name(0)


def run_document(config: RunConfig, run_hash: str, decided: Sequence[Decision] = ()) -> bytes:
    """``run.json``; the same bytes from every worker of a run."""
    document: dict[str, Any] = {"run_hash": run_hash, "config": config.model_dump(mode="json")}
    if decided:
        document["decisions"] = [decision.model_dump() for decision in decided]
    return json.dumps(sealed(document), indent=1).encode()


def manifest_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """What the manifest says of each shard."""
    left_out = {"seconds", "models", "engines"}
    return [{**r.model_dump(exclude=left_out), "quarantined": list(r.quarantined)} for r in records]


def require_free(path: Path, size_bytes: int) -> None:
    """Refuse to start a run that the disk cannot hold; an object store has room.

    Raises:
        InputError: fewer bytes are free than the run is expected to need.
    """
    if in_store(path):
        return
    existing = next(p for p in (path, *path.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < size_bytes:
        raise InputError(f"{path} has {free / 1e6:.0f} MB free, the run needs about {size_bytes / 1e6:.0f} MB")
