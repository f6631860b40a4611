"""A shard is byte for byte what it was when one thread encoded it as a whole."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from prism_fast.dataset.sample import Sample
from prism_fast.dataset.writer import encode_image, encode_sample, join_samples, make_record, tar_bytes


def picture(sample: Sample, extension: str, quality: int) -> bytes:
    """An image as it always was encoded, into a buffer."""
    buffer = io.BytesIO()
    image = Image.fromarray(sample.image.permute(1, 2, 0).contiguous().numpy())
    if extension == "png":
        image.save(buffer, "PNG", compress_level=4)
    else:
        image.save(buffer, {"jpg": "JPEG", "webp": "WEBP"}[extension], quality=quality)
    return buffer.getvalue()


def as_before(samples: Sequence[Sample], extension: str, quality: int) -> tuple[bytes, str]:
    """The function that wrote every shard up to version 1.1."""
    buffer = io.BytesIO()
    lines = [f"v1.2 {len(samples)}"]
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            entries = []
            for name, data in (
                (extension, picture(sample, extension, quality)),
                ("cls", str(sample.label).encode()),
                ("label", np.int32(sample.label).tobytes()),
                ("json", json.dumps(sample.meta, sort_keys=True, ensure_ascii=False).encode()),
                ("logits", sample.logits.to(torch.float16).numpy().astype("<f2").tobytes()),
            ):
                info = tarfile.TarInfo(f"{sample.index:09d}.{name}")
                info.size, info.mode = len(data), 0o644
                offset = buffer.tell() + 512
                tar.addfile(info, io.BytesIO(data))
                entries.append(f"{name} {offset} {len(data)} {info.name}")
            lines.append(" ".join(entries))
    return buffer.getvalue(), "\n".join(lines) + "\n"


def samples(height: int, width: int) -> list[Sample]:
    """Smooth and noisy, one of them a view turned on its side."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (3, 3, height, width), dtype=torch.uint8, generator=generator)
    smooth = torch.arange(height * width).remainder(256).to(torch.uint8).view(1, height, width).expand(3, -1, -1)
    images = [*noise, smooth, torch.zeros(3, width, height, dtype=torch.uint8).transpose(1, 2)]
    metas: list[dict[str, Any]] = [{"index": 100 - i, "prompt": f"é {i}", "x": None} for i in range(len(images))]
    return [
        Sample(100 - i, image, i, torch.randn(5, generator=generator), meta)
        for i, (image, meta) in enumerate(zip(images, metas, strict=True))
    ]


@pytest.mark.parametrize("size", [(8, 8), (64, 40), (512, 512)])
@pytest.mark.parametrize(("extension", "quality"), [("png", 95), ("jpg", 95), ("jpg", 100), ("jpg", 30), ("webp", 80)])
def test_a_shard_is_as_it_was(extension: str, quality: int, size: tuple[int, int]) -> None:
    given = samples(*size)
    wanted = as_before(given, extension, quality)
    encoded = [encode_sample(sample, extension, quality) for sample in given]
    assert join_samples(encoded) == wanted
    assert tar_bytes(given, extension, quality) == wanted


def test_a_record_is_the_same_of_samples_and_of_encoded_ones() -> None:
    given = samples(8, 8)
    given = [Sample(s.index, s.image, s.label, s.logits, {**s.meta, "energy_after": s.index / 7}) for s in given]
    tar, index = tar_bytes(given, "png", 95)
    facts: dict[str, Any] = {"run_hash": "r", "models": dict[str, str](), "classes": 5, "image_ext": "png"}
    facts |= {"first_index": 0, "planned": 5}
    encoded = [encode_sample(sample, "png", 95) for sample in given]
    assert make_record(0, encoded, tar, index, **facts) == make_record(0, given, tar, index, **facts)


def test_an_encoded_sample_keeps_no_tensor() -> None:
    encoded = encode_sample(samples(8, 8)[0], "png", 95)
    assert not [value for value in vars(encoded).values() if isinstance(value, torch.Tensor)]


def test_an_image_that_cannot_be_encoded_leaves_no_file_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(ValueError, match="empty"):
            encode_image(torch.zeros(3, 0, 8, dtype=torch.uint8), "jpg", 95)
    assert len(os.listdir("/proc/self/fd")) == before
