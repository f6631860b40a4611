"""Write a shard exactly once: tar and index under temporary names, renamed, then the record, which is the commit.

Whoever starts again looks only at records: a tar without a record does not exist and is overwritten.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from prism_fast.errors import DataError, RunError
from prism_fast.synthesis.faults import reach
from prism_fast.synthesis.files import new_attempt, staged_name, sync_directory, write_durably

_BLOCK = 512


class Record(BaseModel):
    """``NNNNNN.json``: what a finished shard holds. Its presence is the commit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shard: int
    rows: int
    sha256: str
    size_bytes: int
    run_hash: str
    models: dict[str, str]
    engines: dict[str, str] = {}
    classes: int
    image_ext: str
    first_index: int
    planned: int
    quarantined: tuple[int, ...]
    objective_before_mean: float | None
    energy_after_mean: float | None
    seconds: float


@dataclass(frozen=True)
class Sample:
    """One finished sample.

    Shapes: image uint8 (3, h, w), logits (classes,).
    """

    index: int
    image: torch.Tensor
    label: int
    logits: torch.Tensor
    meta: dict[str, Any]


def encode_image(image: torch.Tensor, extension: str, quality: int) -> bytes:
    """Encode a uint8 image (3, h, w); equal input gives equal bytes."""
    buffer = io.BytesIO()
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    if extension == "png":
        picture.save(buffer, "PNG", compress_level=6)
    else:
        picture.save(buffer, {"jpg": "JPEG", "webp": "WEBP"}[extension], quality=quality)
    return buffer.getvalue()


def _members(sample: Sample, extension: str, quality: int) -> list[tuple[str, bytes]]:
    meta = json.dumps(sample.meta, sort_keys=True, ensure_ascii=False).encode()
    return [
        (extension, encode_image(sample.image, extension, quality)),
        ("cls", str(sample.label).encode()),
        ("label", np.int32(sample.label).tobytes()),
        ("json", meta),
        ("logits", sample.logits.to(torch.float16).numpy().astype("<f2").tobytes()),
    ]


def tar_bytes(samples: Sequence[Sample], extension: str, quality: int) -> tuple[bytes, str]:
    """A WebDataset tar of ``samples`` and its DALI index (format v1.2). Owner, time and order are pinned."""
    buffer = io.BytesIO()
    lines = [f"v1.2 {len(samples)}"]
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            entries = []
            for name, data in _members(sample, extension, quality):
                info = tarfile.TarInfo(f"{sample.index:09d}.{name}")
                info.size, info.mode = len(data), 0o644
                offset = buffer.tell() + _BLOCK
                tar.addfile(info, io.BytesIO(data))
                entries.append(f"{name} {offset} {len(data)} {info.name}")
            lines.append(" ".join(entries))
    return buffer.getvalue(), "\n".join(lines) + "\n"


def commit_shard(folder: Path, record: Record, tar: bytes, index: str) -> Path:
    """Publish a shard: tar and index first, the record last.

    Raises:
        RunError: the disk refused (full, read-only); nothing is left under a final name without its record.
    """
    name, attempt = f"{record.shard:06d}", new_attempt()
    tar_path, index_path, record_path = (folder / f"{name}.{ext}" for ext in ("tar", "idx", "json"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _publish("tar", tar_path, tar, attempt)
        _publish("index", index_path, index.encode(), attempt)
        _publish_record(record_path, record.model_dump_json(indent=1).encode(), attempt)
    except OSError as error:
        for path in (tar_path, index_path, record_path):
            with suppress(OSError):  # the folder itself may be what is wrong
                staged_name(path, attempt).unlink(missing_ok=True)
        raise RunError(
            f"cannot write shard {name} in {folder}: {error.strerror or error}; finished shards are kept, "
            "make room or fix permissions and run the same command again"
        ) from error
    return tar_path


def _publish(kind: str, path: Path, data: bytes, attempt: str) -> None:
    staged = staged_name(path, attempt)
    write_durably(staged, data)
    reach(f"{kind}-written")
    os.replace(staged, path)
    reach(f"{kind}-renamed")


def _publish_record(path: Path, data: bytes, attempt: str) -> None:
    """Tar and index are durable under their names before the record gets its own."""
    staged = staged_name(path, attempt)
    write_durably(staged, data)
    reach("record-written")
    sync_directory(path.parent)
    reach("before-record")
    os.replace(staged, path)
    reach("after-record")
    sync_directory(path.parent)
    reach("committed")


def make_record(
    shard: int,
    samples: Sequence[Sample],
    tar: bytes,
    *,
    run_hash: str,
    models: dict[str, str],
    engines: dict[str, str] | None = None,
    classes: int,
    image_ext: str,
    first_index: int,
    planned: int,
    quarantined: Iterable[int] = (),
    seconds: float = 0.0,
) -> Record:
    """Record of a tar that holds ``samples``."""

    def mean(key: str) -> float | None:
        values = [s.meta[key] for s in samples if s.meta.get(key) is not None]
        return float(np.mean(values)) if values else None

    return Record(
        shard=shard,
        rows=len(samples),
        sha256=hashlib.sha256(tar).hexdigest(),
        size_bytes=len(tar),
        run_hash=run_hash,
        models=models,
        engines=engines or {},
        classes=classes,
        image_ext=image_ext,
        first_index=first_index,
        planned=planned,
        quarantined=tuple(quarantined),
        objective_before_mean=mean("objective_before"),
        energy_after_mean=mean("energy_after"),
        seconds=seconds,
    )


def read_record(path: Path) -> Record:
    """Read one record.

    Raises:
        DataError: it is not a record; the message says to delete it.
    """
    try:
        return Record.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise DataError(f"{path} is not a shard record; delete it and run the synthesis again") from error


def finished_shards(folder: Path) -> dict[int, Record]:
    """Records of a shards folder by shard number."""
    records = (read_record(path) for path in sorted(folder.glob("[0-9]" * 6 + ".json")))
    return {record.shard: record for record in records}
