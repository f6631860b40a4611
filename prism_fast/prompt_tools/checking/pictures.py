"""A checked class as it is read back: what the teacher says of each image, and a small picture of it."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from prism_fast.dataset.shard import Entry, Logits, ShardReader
from prism_fast.prompt_tools.checking.files import ClassFiles
from prism_fast.prompt_tools.checking.jobs import Job

#: Longer side of a picture on the page, and its WebP quality: about 2 kB.
_SIDE, _QUALITY = 96, 60


@dataclass(frozen=True)
class Picture:
    """Image ``turn`` of a sense: what the teacher said, the class's probability, and a thumbnail (WebP)."""

    sense: int
    turn: int
    said: int
    probability: float
    thumbnail: bytes


@dataclass(frozen=True)
class JudgedClass:
    """A class, its key, and its images that are not quarantined."""

    job: Job
    key: str
    pictures: tuple[Picture, ...]


def judged_class(files: ClassFiles, job: Job) -> JudgedClass:
    """A class as it lies there; both numbers of a picture are of the logits as they are stored.

    Raises:
        DataError: the shard cannot be read. InputError: another check has put another one in its place.
    """
    shard = files.open(job)
    with shard.open() as reader:
        pictures = tuple(_picture(job, reader, entry) for entry in shard.entries())
    return JudgedClass(job, shard.record.run_hash, pictures)


def _picture(job: Job, reader: ShardReader, entry: Entry) -> Picture:
    sense, turn = job.place(entry.index)
    logits = reader.logits(entry)
    image = reader.image(entry).permute(1, 2, 0).contiguous().numpy()
    thumbnail = _thumbnail(Image.fromarray(image))
    return Picture(sense, turn, int(logits.argmax()), _probability(logits, job.label), thumbnail)


def _probability(logits: Logits, label: int) -> float:
    """Softmax in float64."""
    weights = np.exp(logits.astype(np.float64) - float(logits.max()))
    return float(weights[label] / weights.sum())


def _thumbnail(image: Image.Image) -> bytes:
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=_QUALITY)
    return buffer.getvalue()
