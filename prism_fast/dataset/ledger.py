"""``selection.parquet`` in the run directory: what became of every stored sample, and of which data that is said."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prism_fast.dataset.layout import Layout
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.errors import DataError
from prism_fast.storage.files import parquet_source, replace, writing

#: Why a sample is rejected; "" if it is not.
REASONS = ("", "energy", "quota", "disagrees", "duplicate")
_KEY = b"prism-fast"
_CHUNK = 65_536  # rows that are Python objects at once
_SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("shard", pa.int32()),
        ("label", pa.int32()),
        ("energy", pa.float64()),
        ("accepted", pa.bool_()),
        ("reason", pa.string()),
        ("duplicate_of", pa.int64()),
    ]
)

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Ledger:
    """One entry a stored sample, in order of index; ``duplicate_of`` is the index that it repeats, else -1.

    Shapes: all (n,). ``reason`` are places in :data:`REASONS`.
    """

    index: Array
    shard: Array
    label: Array
    energy: Array
    reason: Array
    duplicate_of: Array


def ledger_path(run: Path) -> Path:
    """Where a run's selection is."""
    return run / "selection.parquet"


def data_identity(layout: Layout, hashes: Sequence[str]) -> str:
    """SHA-256 over whose run it is, how long it is, and the tars' own hashes in order, empty ones left out."""
    return hashlib.sha256(f"{layout.run_hash} {layout.images} {''.join(hashes)}".encode()).hexdigest()


def write_ledger(run: Path, ledger: Ledger, settings: Mapping[str, Any], hashes: Sequence[str]) -> Path:
    """Write the selection, whole or not at all; equal input gives equal bytes.

    Raises:
        DataError: not a run directory. RunError: the disk refused.
    """
    layout, path = RunDirectory(run).layout(), ledger_path(run)
    reasons = pa.array(REASONS).take(pa.array(ledger.reason))
    repeats = pa.array(ledger.duplicate_of, pa.int64(), mask=ledger.duplicate_of < 0)
    columns = [ledger.index, ledger.shard, ledger.label, ledger.energy, ledger.reason == 0]
    table = pa.Table.from_arrays([*map(pa.array, columns), reasons, repeats], schema=_SCHEMA)
    facts = {
        "run_hash": layout.run_hash,
        "data": data_identity(layout, hashes),
        "settings": dict(settings),
        "rows": _digest(table),
    }
    table = table.replace_schema_metadata({_KEY: json.dumps(facts, sort_keys=True).encode()})
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    with writing(path):
        replace(path, buffer.getvalue().to_pybytes())
    return path


def _digest(table: pa.Table) -> str:
    """SHA-256 over the values of a selection, column after column."""
    digest = hashlib.sha256()
    for name in _SCHEMA.names:
        column = table.column(name)
        if pa.types.is_string(column.type):
            for start in range(0, len(column), _CHUNK):
                words = column.slice(start, _CHUNK).to_pylist()
                digest.update(("\n" * (start > 0) + "\n".join(words)).encode())
        else:
            values = column.fill_null(-1).to_numpy() if column.null_count else column.to_numpy()
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def read_ledger(run: Path) -> tuple[pa.Table, dict[str, Any]]:
    """The rows of a run's selection, and what it says of itself.

    Raises:
        DataError: nothing was selected, or the file is damaged; one of before, without a hash of its rows, is believed.
        RunError: the store refused.
    """
    path = ledger_path(run)
    if not path.exists():
        raise DataError(f"{run} holds no selection; make one with 'prism-fast select {run}'")
    try:
        with pq.ParquetFile(parquet_source(path)) as file:
            facts: dict[str, Any] = json.loads((file.schema_arrow.metadata or {})[_KEY])
            table = file.read(columns=_SCHEMA.names)
        if "rows" in facts and facts["rows"] != _digest(table):
            raise ValueError("its rows have another hash than it says")
        _ = facts["data"]
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not a selection; select again with 'prism-fast select {run}'") from error
    return table, facts


def rejected_samples(run: Path, hashes: Sequence[str]) -> dict[int, frozenset[int]]:
    """Rejected indices by the number of their shard, as the run's selection says.

    Args:
        run: the run's directory.
        hashes: SHA-256 of its tars in order, without empty ones.

    Raises:
        DataError: nothing was selected, the selection is damaged, or the run has changed since.
    """
    table, facts = read_ledger(run)
    if facts["data"] != data_identity(RunDirectory(run).layout(), hashes):
        raise DataError(
            f"{ledger_path(run)} was made before {run} changed; select again with 'prism-fast select {run}'"
        )
    out = ~table.column("accepted").to_numpy()
    index, shard = table.column("index").to_numpy()[out], table.column("shard").to_numpy()[out]
    order = np.argsort(shard, kind="stable")
    index, shard = index[order], shard[order]
    numbers, starts = np.unique(shard, return_index=True)
    ends = np.searchsorted(shard, numbers, side="right")
    places = zip(numbers.tolist(), starts, ends, strict=True)
    return {number: frozenset(index[start:end].tolist()) for number, start, end in places}
