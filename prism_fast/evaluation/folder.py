"""Labelled pictures of a folder, decoded batch by batch: only what is looked at is in memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset, pil_loader

from prism_fast.errors import DataError
from prism_fast.models.classifier_config import ClassifierConfig

_SHARED = Path("/dev/shm")
_MAX_WORKERS = 16
_FEW = 1024  # pictures that are decoded before workers have started


@dataclass(frozen=True)
class Crop:
    """How a picture becomes the network's input: the shorter side to ``size / crop_pct``, then the centre."""

    size: int
    crop_pct: float = 0.875
    interpolation: str = "bilinear"
    crop_mode: str = "center"


def crop_of(config: ClassifierConfig) -> Crop:
    """The crop that timm evaluates these weights with; where nothing is said an eighth of the side is cut away."""
    standard = Crop(config.image_size)
    return Crop(
        config.image_size,
        config.crop_pct or standard.crop_pct,
        config.interpolation or standard.interpolation,
        config.crop_mode or standard.crop_mode,
    )


@dataclass(frozen=True)
class PictureFolder:
    """An ImageFolder directory: the names of its class folders, and (path, place of the folder) of each picture."""

    path: Path
    folders: tuple[str, ...]
    samples: tuple[tuple[str, int], ...]

    def only(self, kept: Mapping[int, str]) -> PictureFolder:
        """Of some class folders, by their place, under the names given there."""
        places = {old: new for new, old in enumerate(kept)}
        samples = tuple((path, places[place]) for path, place in self.samples if place in places)
        return replace(self, folders=tuple(kept.values()), samples=samples)

    def __len__(self) -> int:
        return len(self.samples)

    def batches(self, crop: Crop, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pictures, uint8 (n, 3, size, size), and the places of their folders, int64 (n,).

        Raises:
            DataError: a picture that cannot be read, by its path.
        """
        workers = _workers(len(self), 3 * crop.size**2 * batch_size)
        loader: DataLoader[_Decoded] = DataLoader(
            _Pictures(self.samples, crop),
            batch_size,
            num_workers=workers,
            collate_fn=_collated,
            prefetch_factor=1 if workers else None,
        )
        for batch in loader:
            if isinstance(batch, str):
                raise DataError(batch)
            yield batch


def open_folder(path: Path) -> PictureFolder:
    """List an ImageFolder directory; hidden folders are no classes, empty ones are.

    Raises:
        DataError: no such directory, or no class folders with pictures in it.
    """
    try:
        names = [name for name in find_classes(str(path))[0] if not name.startswith(".")]
        places = {name: place for place, name in enumerate(names)}
        samples = make_dataset(str(path), places, IMG_EXTENSIONS, allow_empty=True) if names else []
    except OSError as error:
        raise DataError(
            f"{path} is not an ImageFolder (one folder a class): {error.strerror or error}; for pictures side by side "
            "give their classes with --ground-truth FILE"
        ) from error
    if not samples:
        raise DataError(f"{path} holds no picture in its {len(names)} class folders (one folder a class is expected)")
    return PictureFolder(path, tuple(names), tuple(samples))


_Decoded = tuple[Tensor, int] | str


class _Pictures(Dataset[_Decoded]):
    """A picture and its folder's place; in its stead what is wrong with it, as workers' exceptions span many lines."""

    def __init__(self, samples: Sequence[tuple[str, int]], crop: Crop) -> None:
        self._samples = samples
        self._transform: Any = timm.data.create_transform(
            crop.size,
            crop_pct=crop.crop_pct,
            interpolation=crop.interpolation,
            crop_mode=crop.crop_mode,
            normalize=False,
        )

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, place: int) -> _Decoded:
        path, folder = self._samples[place]
        try:
            return self._transform(pil_loader(path)), folder
        except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, DecompressionBombError and others
            why = "it is empty" if not _size(path) else str(error).replace(f" {path!r}", "") or type(error).__name__
            return f"the picture {path} cannot be read ({why}); replace or delete it"


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return -1


def _collated(batch: list[_Decoded]) -> tuple[Tensor, Tensor] | str:
    pairs = []
    for item in batch:
        if isinstance(item, str):
            return item
        pairs.append(item)
    images, places = zip(*pairs, strict=True)
    return torch.stack(images), torch.tensor(places)


def _workers(pictures: int, batch_bytes: int) -> int:
    """Decoding processes beside this one: none for a few pictures, no more than shared memory holds batches of.

    Containers often have 64 MB of it, and a worker that finds it full is killed.
    """
    if pictures <= _FEW or not _SHARED.is_dir():
        return 0
    cores = len(os.sched_getaffinity(0))
    return int(min(cores, _MAX_WORKERS, shutil.disk_usage(_SHARED).free // (4 * batch_bytes)))
