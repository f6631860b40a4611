"""Which class, and which turn of its sequence of prompts, each row of a plan is.

By themselves classes take turns: row i is class i mod K, in its turn i div K. Whatever departs from that was decided
once and is a file of the run, ``draws-NNNNNNNNN.parquet`` from row N on, whose hash ``run.json`` holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from prism_fast.errors import DataError
from prism_fast.prompts.order import Order, next_turns
from prism_fast.storage.files import read_if_there, replace

Ints = np.ndarray[Any, np.dtype[np.int32]]
_SCHEMA = pa.schema([("label", pa.int32()), ("turn", pa.int32())])
_WHY = b"decision"


class Decision(BaseModel):
    """What ``run.json`` says of a decision: rows ``start`` to ``stop`` - 1, towards what, and the hash of its file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: int
    stop: int
    towards: str
    sha256: str

    @property
    def file(self) -> str:
        """Its file's name."""
        return draws_name(self.start)


def draws_name(start: int) -> str:
    """The file of the rows from ``start`` on."""
    return f"draws-{start:09d}.parquet"


class Need(BaseModel):
    """What a class was found to lack, the images it got for it, and how much likelier each choice was made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: int
    need: float
    images: int
    choices: dict[str, dict[str, float]]


class Reason(BaseModel):
    """Why rows are what they are: of which run, towards what, until which row, by which student, and what was found."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_hash: str
    towards: str
    images: int
    student: str = ""
    needs: tuple[Need, ...] = ()

    def same(self, other: Reason) -> bool:
        """Whether the same was asked for, whatever was found."""
        return self.model_copy(update={"needs": ()}) == other.model_copy(update={"needs": ()})


@dataclass(frozen=True)
class Part:
    """Label and turn of the rows from ``start`` on: (n,) each."""

    start: int
    labels: Ints
    turns: Ints

    @property
    def stop(self) -> int:
        """The row after its last."""
        return self.start + len(self.labels)


@dataclass(frozen=True)
class Draws:
    """What every row of a plan is; rows that no part has are those of ``classes`` classes that take turns."""

    classes: int
    parts: Sequence[Part] = field(default=())

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """(label, turn) of rows ``start`` to ``stop`` - 1."""
        labels, turns = self.arrays(start, stop)
        return zip(labels.tolist(), turns.tolist(), strict=True)

    def arrays(self, start: int, stop: int) -> tuple[Ints, Ints]:
        """Labels and turns of rows ``start`` to ``stop`` - 1."""
        turns, labels = np.divmod(np.arange(start, stop, dtype=np.int64), self.classes)
        found = labels.astype(np.int32), turns.astype(np.int32)
        for part in self.parts:
            low, high = max(start, part.start), min(stop, part.stop)
            if low < high:
                for whole, own in zip(found, (part.labels, part.turns), strict=True):
                    whole[low - start : high - start] = own[low - part.start : high - part.start]
        return found

    def spent(self, before: int) -> list[set[int]]:
        """By class, the turns of the rows before ``before``."""
        labels, turns = self.arrays(0, before)
        by_class = np.argsort(labels, kind="stable")
        ends = np.cumsum(np.bincount(labels, minlength=self.classes))[:-1]
        return [set(part.tolist()) for part in np.split(turns[by_class], ends)]


def equal_part(draws: Draws, start: int, stop: int, order: Order) -> Part:
    """Rows ``start`` to ``stop`` - 1 in which classes take turns, each the next of its turns that is not spent."""
    labels = (np.arange(start, stop) % draws.classes).astype(np.int32)
    wanted, spent = np.bincount(labels, minlength=draws.classes).tolist(), draws.spent(start)
    return Part(start, labels, placed(labels, [next_turns(order, k, spent[k], n) for k, n in enumerate(wanted)]))


def placed(labels: Ints, turns: Sequence[Sequence[int]]) -> Ints:
    """The turn of each row, where ``turns[k]`` are those of the rows of class k in order."""
    found = np.empty(len(labels), np.int32)
    for label, own in enumerate(turns):
        found[labels == label] = own
    return found


def store_part(folder: Path, part: Part, reason: Reason) -> Decision:
    """Write a part beside a run; :class:`RunDirectory` makes it the run's.

    Raises:
        OSError: it cannot be written.
    """
    table = pa.table([pa.array(part.labels), pa.array(part.turns)], schema=_SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({_WHY: reason.model_dump_json().encode()}), sink)
    data = bytes(sink.getvalue().to_pybytes())
    replace(folder / draws_name(part.start), data)
    return _decision(part, reason, data)


def stored_part(folder: Path, start: int, reason: Reason) -> Decision | None:
    """What a killed attempt decided for the same reason, so that nothing is decided twice."""
    data = read_if_there(folder / draws_name(start))
    try:
        part, found = _parse(data or b"", start)
    except ValueError:
        return None
    return _decision(part, found, data or b"") if found.same(reason) and part.stop == reason.images else None


def read_reason(folder: Path, decision: Decision) -> Reason:
    """Why a run's rows are so.

    Raises:
        DataError: the file is missing, or is not the one that was decided.
    """
    return _load(folder, decision)[1]


def load_draws(folder: Path, decisions: Sequence[Decision], classes: int) -> Draws:
    """What a run's decisions say.

    Raises:
        DataError: a file is missing, or is not the one that was decided.
    """
    return Draws(classes, tuple(_load(folder, decision)[0] for decision in decisions))


def _decision(part: Part, reason: Reason, data: bytes) -> Decision:
    digest = hashlib.sha256(data).hexdigest()
    return Decision(start=part.start, stop=part.stop, towards=reason.towards, sha256=digest)


def _parse(data: bytes, start: int) -> tuple[Part, Reason]:
    try:
        table = pq.read_table(pa.BufferReader(data))
        labels, turns = (table.column(name).to_numpy().astype(np.int32) for name in _SCHEMA.names)
        return Part(start, labels, turns), Reason.model_validate_json((table.schema.metadata or {})[_WHY])
    except (pa.ArrowException, OSError, KeyError, TypeError) as error:
        raise ValueError(str(error)) from error


def _load(folder: Path, decision: Decision) -> tuple[Part, Reason]:
    path = folder / decision.file
    if (data := read_if_there(path)) is None:
        raise DataError(f"{path} is missing, which says what rows {decision.start} on are; restore it from a copy")
    if hashlib.sha256(data).hexdigest() != decision.sha256:
        raise DataError(f"{path} is damaged: it is not the file that run.json names; restore it from a copy")
    return _parse(data, decision.start)
