"""A run's samples in other layouts: one folder a class, or Parquet as ``datasets`` reads it."""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prism_fast.config import RunConfig
from prism_fast.errors import DataError, InputError, RunError
from prism_fast.selection.ledger import rejected_samples
from prism_fast.synthesis.card import dataset_card
from prism_fast.synthesis.plan import PlanFile
from prism_fast.synthesis.rundir import RunDirectory
from prism_fast.synthesis.shards import Record
from prism_fast.synthesis.stored import stored_config

Format = Literal["imagefolder", "parquet"]
#: (shards done, shards in all, images written)
Progress = Callable[[int, int, float], None]
_ROW_GROUP = 128  # readers hold one in memory


@dataclass(frozen=True)
class RawSample:
    """One sample as it lies in its shard; the image stays encoded."""

    index: int
    label: int
    image: bytes
    meta: dict[str, Any]
    logits: np.ndarray[Any, np.dtype[np.float16]]


@dataclass(frozen=True)
class _Source:
    shards: Path
    records: tuple[Record, ...]
    names: tuple[str, ...]
    rejected: dict[int, frozenset[int]]

    def left(self, record: Record) -> int:
        """How many of a shard's samples are written."""
        return record.rows - len(self.rejected.get(record.shard, ()))

    def card(self, config: RunConfig) -> str:
        """The dataset card of what is written."""
        records = [record.model_copy(update={"rows": self.left(record)}) for record in self.records]
        return dataset_card(config, records, "data/*.parquet")


def raw_samples(tar: Path, image_ext: str) -> Iterator[RawSample]:
    """The samples of a shard in order.

    Raises:
        DataError: the tar cannot be read.
    """
    parts: dict[str, bytes] = {}
    try:
        with tarfile.open(tar) as archive:
            for member in archive:
                stream = archive.extractfile(member)
                assert stream is not None
                key, _, extension = member.name.partition(".")
                parts[extension] = stream.read()
                if extension == "logits":  # the last member of a sample
                    logits = np.frombuffer(parts["logits"], "<f2")
                    yield RawSample(int(key), int(parts["cls"]), parts[image_ext], json.loads(parts["json"]), logits)
                    parts = {}
    except (tarfile.TarError, OSError, KeyError, ValueError) as error:
        raise DataError(f"{tar} cannot be read ({error}); 'prism-fast verify' says what to do") from error


def _samples(source: _Source, record: Record) -> Iterator[RawSample]:
    tar, count = source.shards / f"{record.shard:06d}.tar", 0
    rejected = source.rejected.get(record.shard, frozenset())
    for count, sample in enumerate(raw_samples(tar, record.image_ext), 1):  # noqa: B007
        if sample.index not in rejected:
            yield sample
    if count != record.rows:  # a tar cut between two members reads without an error
        raise DataError(f"{tar} cannot be read ({count} samples instead of {record.rows}); see 'prism-fast verify'")


def _source(directory: RunDirectory, selected: bool) -> _Source:
    records = tuple(record for _, record in sorted(directory.records().items()))
    if not records:
        raise DataError(f"{directory.path} holds no finished shard; run 'prism-fast synthesize' first")
    hashes = [record.sha256 for record in records if record.rows]
    rejected = rejected_samples(directory.path, hashes) if selected else {}
    classes = records[0].classes
    rows = PlanFile(directory.path / "plan.parquet").rows(0, classes)  # classes take turns: each has one here
    named = {row["label"]: row["class_name"] for row in rows}
    return _Source(directory.shards, records, tuple(named.get(i, str(i)) for i in range(classes)), rejected)


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that becomes ``out`` when everything is in it."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not an empty folder; choose another --out")
    staged = out.with_name(f"{out.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        staged.mkdir(parents=True)
        yield staged
        os.replace(staged, out)
    except OSError as error:
        raise RunError(f"cannot write {out}: {error.strerror or error}; make room or choose another --out") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _folder_names(names: Sequence[str]) -> list[str]:
    """``03_red-panda``: sorted by name they are sorted by label, as ImageFolder numbers its classes."""
    width = len(str(len(names) - 1))
    return [f"{i:0{width}d}_{re.sub(r'[^0-9A-Za-z]+', '-', name).strip('-')}" for i, name in enumerate(names)]


def _to_folders(source: _Source, record: Record, out: Path) -> None:
    folders = _folder_names(source.names)
    for sample in _samples(source, record):
        folder = out / folders[sample.label]
        (folder / f"{sample.index:09d}.{record.image_ext}").write_bytes(sample.image)


def _schema(names: Sequence[str]) -> pa.Schema:
    """Columns, and in the metadata what ``datasets`` decodes them to."""
    value = {name: {"dtype": name, "_type": "Value"} for name in ("int64", "string", "float32", "float16")}
    features = {
        "index": value["int64"],
        "image": {"_type": "Image"},
        "label": {"names": list(names), "_type": "ClassLabel"},
        "prompt": value["string"],
        "energy": value["float32"],
        "logits": {"feature": value["float16"], "_type": "List"},
    }
    fields = [
        ("index", pa.int64()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("label", pa.int64()),
        ("prompt", pa.string()),
        ("energy", pa.float32()),
        ("logits", pa.list_(pa.float16())),
    ]
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _to_parquet(source: _Source, record: Record, out: Path) -> None:
    folder, last = out / "data", source.records[-1].shard
    folder.mkdir(exist_ok=True)
    rows = [
        {
            "index": s.index,
            "image": {"bytes": s.image, "path": f"{s.index:09d}.{record.image_ext}"},
            "label": s.label,
            "prompt": s.meta.get("prompt"),
            "energy": s.meta.get("energy_after"),
            "logits": s.logits,
        }
        for s in _samples(source, record)
    ]
    file = folder / f"train-{record.shard:06d}-of-{last + 1:06d}.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=_schema(source.names)), file, row_group_size=_ROW_GROUP)


_WRITERS: dict[Format, Callable[[_Source, Record, Path], None]] = {"imagefolder": _to_folders, "parquet": _to_parquet}


def export(run: Path, out: Path, layout: Format, progress: Progress | None = None, selected: bool = False) -> int:
    """Write a run's finished shards in another layout; returns the number of images.

    With ``selected`` what `prism-fast select` rejected is left out.

    ``imagefolder``: ``LABEL_NAME/INDEX.png``, the encoded images as they are. ``parquet``: a file a shard, with logits,
    prompts and the dataset card.

    Raises:
        DataError: no finished shard, one that cannot be read, or no selection that fits the run.
        InputError: ``out`` is not empty. RunError: the disk refused.
    """
    directory = RunDirectory(run)
    config, source, images = stored_config(directory), _source(directory, selected), 0
    with _whole(out) as staged:
        if layout == "imagefolder":  # an empty one too, or those behind it would be numbered wrongly
            for name in _folder_names(source.names):
                (staged / name).mkdir()
        for done, record in enumerate(source.records, 1):
            _WRITERS[layout](source, record, staged)
            images += source.left(record)
            if progress:
                progress(done, len(source.records), images)
        if layout == "parquet":
            (staged / "README.md").write_text(source.card(config))
    return images
