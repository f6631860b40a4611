"""Tiny runs in the shard format: every sample's logits are its own fingerprint."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from prism_fast.config import DistillConfig

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def picture(label: int, index: int, size: int) -> np.ndarray:
    """Class c is bright in colour c: learnable within a few steps."""
    pixels = np.random.default_rng(index).integers(0, 60, (size, size, 3))
    pixels[..., label % 3] += 180
    return pixels.astype(np.uint8)


def encode(pixels: np.ndarray, ext: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg" if ext == "jpg" else ext)
    return buffer.getvalue()


def write_shard(
    directory: Path, number: int, rows: range, *, classes: int = 3, ext: str = "png", size: int = 24
) -> Path:
    """Tar, DALI index and record, as synthesize writes them."""
    path = directory / f"{number:06d}.tar"
    lines = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for index in rows:
            label = index % classes
            logits = np.eye(classes)[label] * 6 + index / 64
            members = {
                ext: encode(picture(label, index, size), ext),
                "cls": str(label).encode(),
                "label": np.array(label, "<i4").tobytes(),
                "json": json.dumps({"index": index}).encode(),
                "logits": logits.astype("<f2").tobytes(),
            }
            words = []
            for name, data in members.items():
                info = tarfile.TarInfo(f"{index:09d}.{name}")
                info.size = len(data)
                words += [name, str(tar.offset + 512), str(len(data)), info.name]
                tar.addfile(info, io.BytesIO(data))
            lines.append(" ".join(words))
    path.with_suffix(".idx").write_text("\n".join([f"v1.2 {len(lines)}", *lines]) + "\n")
    record = {
        "rows": len(rows),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "classes": classes,
        "image_ext": ext,
    }
    path.with_suffix(".json").write_text(json.dumps(record))
    return path


def write_run(
    run: Path, rows: int = 22, shard_size: int = 8, *, classes: int = 3, ext: str = "png", size: int = 24
) -> Path:
    directory = run / "shards"
    directory.mkdir(parents=True)
    for number, start in enumerate(range(0, rows, shard_size)):
        write_shard(directory, number, range(start, min(start + shard_size, rows)), classes=classes, ext=ext, size=size)
    return run


def config(**changes: object) -> DistillConfig:
    settings = {"student": "test_resnet", "image_size": 16, "batch_size": 6, "seed": 3, "steps": 12, "warmup_steps": 2}
    return DistillConfig.model_validate({**settings, **changes})
