"""Write a shard exactly once: tar and index get their names, then the record, which is the commit.

Whoever starts again looks only at records: a tar without a record does not exist and is overwritten.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from prism_base.attempts import new_attempt

from prism_fast.dataset.record import Record
from prism_fast.dataset.sample import Sample
from prism_fast.errors import RunError
from prism_fast.storage.faults import failpoint
from prism_fast.storage.files import Draft, draft, make_folder, sync_directory

_BLOCK = 512


@dataclass(frozen=True)
class EncodedSample:
    """A sample as its files in a shard, (extension, bytes) each; it keeps neither pixels nor logits."""

    index: int
    meta: dict[str, Any]
    files: tuple[tuple[str, bytes], ...]


def encode_image(image: torch.Tensor, extension: str, quality: int) -> bytes:
    """Encode a uint8 image (3, h, w); equal input gives equal bytes. Other threads go on meanwhile."""
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    if extension == "jpg":
        return _encode_jpeg(picture, quality)
    buffer = io.BytesIO()
    if extension == "png":
        picture.save(buffer, "PNG", compress_level=4)
    else:
        picture.save(buffer, "WEBP", quality=quality)
    return buffer.getvalue()


def _encode_jpeg(picture: Image.Image, quality: int) -> bytes:
    """Pillow gives the interpreter's lock back while it writes JPEG to a file, and holds it for a buffer of ours."""
    with open(os.memfd_create("image"), "w+b", buffering=0) as file:
        picture.save(file, "JPEG", quality=quality)
        file.seek(0)
        return file.readall()


def encode_sample(sample: Sample, extension: str, quality: int) -> EncodedSample:
    """A sample's files, in their order."""
    meta = json.dumps(sample.meta, sort_keys=True, ensure_ascii=False).encode()
    image = encode_image(sample.image, extension, quality) if sample.encoded is None else sample.encoded
    files = (
        (extension, image),
        ("cls", str(sample.label).encode()),
        ("label", np.int32(sample.label).tobytes()),
        ("json", meta),
        ("logits", sample.logits.to(torch.float16).numpy().astype("<f2").tobytes()),
    )
    views = () if sample.views is None else (("views", sample.views),)
    return EncodedSample(sample.index, sample.meta, files + views)


def tar_bytes(samples: Sequence[Sample], extension: str, quality: int) -> tuple[bytes, str]:
    """A shard of ``samples``; see :func:`join_samples`."""
    return join_samples([encode_sample(sample, extension, quality) for sample in samples])


def join_samples(samples: Sequence[EncodedSample]) -> tuple[bytes, str]:
    """A WebDataset tar of ``samples`` and its DALI index (format v1.2). Owner, time and order are pinned."""
    buffer = io.BytesIO()
    lines = [f"v1.2 {len(samples)}"]
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            entries = []
            for name, data in sample.files:
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
    parts = {"tar": tar, "idx": index.encode(), "json": record.model_dump_json(indent=1).encode()}
    drafts = {ext: draft(folder / f"{name}.{ext}", data, attempt=attempt) for ext, data in parts.items()}
    try:
        make_folder(folder)
        _publish("tar", drafts["tar"])
        _publish("index", drafts["idx"])
        _publish_record(drafts["json"], folder)
    except OSError as error:
        for made in drafts.values():
            made.discard()
        raise RunError(
            f"cannot write shard {name} in {folder}: {error.strerror or error}; finished shards are kept, "
            "make room or fix permissions and run the same command again"
        ) from error
    return folder / f"{name}.tar"


def _publish(kind: str, made: Draft) -> None:
    made.write()
    failpoint(f"{kind}-written")
    made.replace()
    failpoint(f"{kind}-renamed")


def _publish_record(made: Draft, folder: Path) -> None:
    """Tar and index are durable under their names before the record gets its own."""
    made.write()
    failpoint("record-written")
    sync_directory(folder)
    failpoint("before-record")
    made.replace()
    failpoint("after-record")
    sync_directory(folder)
    failpoint("committed")


def make_record(
    shard: int,
    samples: Sequence[Sample] | Sequence[EncodedSample],
    tar: bytes,
    index: str,
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
    """Record of a tar that holds ``samples``, and of its index."""

    def mean(key: str) -> float | None:
        values = [s.meta[key] for s in samples if s.meta.get(key) is not None]
        return float(np.mean(values)) if values else None

    return Record(
        shard=shard,
        rows=len(samples),
        sha256=hashlib.sha256(tar).hexdigest(),
        size_bytes=len(tar),
        index_sha256=hashlib.sha256(index.encode()).hexdigest(),
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
