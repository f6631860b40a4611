"""Plain torch loader: counter-based shuffling and augmentation, no other dependency than Pillow.

Every draw comes from Philox keyed by (seed, stream, epoch, sample), so the stream can be entered at any batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prism_fast.config import DistillConfig
from prism_fast.data.batch import Batch, require_labels
from prism_fast.dataset.shard import Entry, Logits, Shard
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.errors import DataError
from prism_fast.sampling.transfer import to_device

CACHE_BYTES = 1 << 30
_ATTEMPTS = 10
_ASPECT = (3 / 4, 4 / 3)
_SHUFFLE, _AUGMENT = 0, 1


def _generator(seed: int, stream: int, epoch: int, sample: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed % 2**64, counter=[0, stream, epoch, sample]))


def crop_box(
    rng: np.random.Generator, height: int, width: int, scale: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Top, left, height, width of a random crop: area uniform in ``scale``, aspect log-uniform in 3/4..4/3.

    Reference: Szegedy et al. 2015, Going Deeper with Convolutions, section 6. Like DALI and torchvision, ten attempts,
    then the whole picture.
    """
    for _ in range(_ATTEMPTS):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    return 0, 0, height, width


class _Pictures:
    """Random access to the samples of a shard set."""

    def __init__(self, shards: ShardSet) -> None:
        self._entries: list[tuple[Shard, Entry]] = []
        self._cache: dict[int, Tensor] = {}
        labels: list[int] = []
        logits: list[Logits] = []
        for shard in shards.shards:
            with shard.open() as reader:
                entries = shard.entries()
                found = [reader.label(entry) for entry in entries]
                logits += [reader.logits(entry) for entry in entries]
            require_labels(torch.tensor(found), shards.classes, shard.tar)
            self._entries += [(shard, entry) for entry in entries]
            labels += found
        self.labels = torch.tensor(labels)
        self.logits = torch.from_numpy(np.stack(logits).astype(np.float32))
        self._caching = self._decode(0).numel() * shards.rows < CACHE_BYTES

    def _decode(self, index: int) -> Tensor:
        shard, entry = self._entries[index]
        with shard.open() as reader:
            return reader.image(entry)

    def image(self, index: int) -> Tensor:
        """The decoded picture, uint8 (3, h, w)."""
        if index not in self._cache:
            picture = self._decode(index)
            if not self._caching:
                return picture
            self._cache[index] = picture
        return self._cache[index]


class TorchLoader:
    """See :class:`prism_fast.data.loader.Loader`. Pictures are kept decoded while they fit in 1 GiB."""

    def __init__(
        self, shards: ShardSet, config: DistillConfig, device: torch.device, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self._config, self._device, self._rows = config, device, shards.rows
        self._pictures = _Pictures(shards)
        self._mean, self._std = (torch.tensor(x).view(3, 1, 1).to(device) for x in (mean, std))
        self._position = 0
        self._order: tuple[int, np.ndarray[Any, Any]] = (-1, np.empty(0, np.int64))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        positions = range(self._position, self._position + self._config.batch_size)
        draws = [self._draw(position) for position in positions]
        images = torch.stack([self._image(epoch, index) for epoch, index in draws])
        rows = torch.tensor([index for _, index in draws])
        self._position = positions.stop
        # A GPU gets bytes, a quarter of the floats, in one copy that nobody waits for.
        given = [images, self._pictures.labels[rows], self._pictures.logits[rows]]
        pixels, labels, logits = to_device(given, self._device)
        return Batch((pixels.float() / 255 - self._mean) / self._std, labels, logits)

    def _draw(self, position: int) -> tuple[int, int]:
        epoch, place = divmod(position, self._rows)
        if self._order[0] != epoch:
            self._order = (epoch, _generator(self._config.seed, _SHUFFLE, epoch, 0).permutation(self._rows))
        return epoch, int(self._order[1][place])

    def _image(self, epoch: int, index: int) -> Tensor:
        from torchvision.transforms.v2 import functional as transforms

        picture = self._pictures.image(index)
        rng = _generator(self._config.seed, _AUGMENT, epoch, index)
        flip = bool(rng.random() < 0.5) and self._config.flip
        box = crop_box(rng, picture.shape[1], picture.shape[2], self._config.crop_scale)
        size = [self._config.image_size, self._config.image_size]
        crop: Tensor = transforms.resized_crop(picture, *box, size, antialias=True)
        return crop.flip(2) if flip else crop

    def state_dict(self) -> dict[str, Any]:
        """Samples drawn so far."""
        return {"loader": "torch", "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved position.

        Raises:
            DataError: the state is another loader's.
        """
        if state.get("loader") != "torch":
            raise DataError(f"loader state was saved by {state.get('loader')!r}, this is the torch loader")
        self._position = int(state["position"])

    def close(self) -> None:
        """Nothing is held open."""
