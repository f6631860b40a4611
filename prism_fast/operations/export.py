"""A run's samples in other layouts: one folder a class, or Parquet as ``datasets`` reads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from prism_fast.config import RunConfig
from prism_fast.dataset.card import dataset_card
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.dataset.shard import Entry, Shard, ShardReader
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.evaluation.class_folders import folder_names
from prism_fast.storage.files import parquet_sink
from prism_fast.storage.folders import whole_folder

Format = Literal["imagefolder", "parquet"]
#: (shards done, shards in all, images written)
Progress = Callable[[int, int, float], None]
_ROW_GROUP = 128  # readers hold one in memory


@dataclass(frozen=True)
class _Source:
    """What is written: shards, and the names of their classes."""

    shards: tuple[Shard, ...]
    names: tuple[str, ...]

    def card(self, config: RunConfig) -> str:
        """The dataset card of what is written."""
        records = [shard.record.model_copy(update={"rows": shard.kept}) for shard in self.shards]
        return dataset_card(config, records, "data/*.parquet")


def _source(directory: RunDirectory, selected: bool, check: bool | None) -> _Source:
    found = ShardSet.discover(directory.path, selected, check)
    rows = directory.plan().rows(0, found.classes)  # classes take turns: each has one here
    named = {row.label: row.class_name for row in rows}
    return _Source(found.shards, tuple(named.get(i, str(i)) for i in range(found.classes)))


def _to_folders(source: _Source, shard: Shard, out: Path) -> None:
    folders = folder_names(source.names)
    with shard.open() as reader:
        for entry in shard.entries():
            file = out / folders[reader.label(entry)] / f"{entry.index:09d}.{shard.record.image_ext}"
            file.write_bytes(reader.image_bytes(entry))


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


def _row(reader: ShardReader, entry: Entry, extension: str) -> dict[str, Any]:
    meta = reader.meta(entry)
    return {
        "index": entry.index,
        "image": {"bytes": reader.image_bytes(entry), "path": f"{entry.index:09d}.{extension}"},
        "label": reader.label(entry),
        "prompt": meta.get("prompt"),
        "energy": meta.get("energy_after"),
        "logits": reader.logits(entry),
    }


def _to_parquet(source: _Source, shard: Shard, out: Path) -> None:
    folder, last = out / "data", source.shards[-1].record.shard
    folder.mkdir(exist_ok=True)
    with shard.open() as reader:
        rows = [_row(reader, entry, shard.record.image_ext) for entry in shard.entries()]
    file = folder / f"train-{shard.record.shard:06d}-of-{last + 1:06d}.parquet"
    with parquet_sink(file) as sink:
        pq.write_table(pa.Table.from_pylist(rows, schema=_schema(source.names)), sink, row_group_size=_ROW_GROUP)


_WRITERS: dict[Format, Callable[[_Source, Shard, Path], None]] = {"imagefolder": _to_folders, "parquet": _to_parquet}


def export(
    run: Path,
    out: Path,
    layout: Format,
    progress: Progress | None = None,
    selected: bool = False,
    check: bool | None = None,
) -> int:
    """Write a run's finished shards in another layout; returns the number of images.

    With ``selected`` what `prism-fast select` rejected is left out. ``check`` says whether every byte of the shards is
    hashed first; None means that of a small run.

    ``imagefolder``: ``LABEL_NAME/INDEX.png``, the encoded images as they are. ``parquet``: a file a shard, with logits,
    prompts and the dataset card.

    Raises:
        DataError: no finished shard, one that cannot be read, or no selection that fits the run.
        InputError: ``out`` is not empty, or a class's name is too long for a folder. RunError: the disk refused.
    """
    directory = RunDirectory(run)
    config, source, images = directory.config(), _source(directory, selected, check), 0
    folders = folder_names(source.names) if layout == "imagefolder" else []
    with whole_folder(out) as staged:
        for name in folders:  # an empty one too, or those behind it would be numbered wrongly
            (staged / name).mkdir()
        for done, shard in enumerate(source.shards, 1):
            _WRITERS[layout](source, shard, staged)
            images += shard.kept
            if progress:
                progress(done, len(source.shards), images)
        if layout == "parquet":
            (staged / "README.md").write_text(source.card(config), encoding="utf-8")
    return images
