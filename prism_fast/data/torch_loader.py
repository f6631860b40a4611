"""Plain torch loader: no other dependency than Pillow. The same samples and the same pixels as DALI's."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prism_fast.data.ahead import Ahead
from prism_fast.data.batch import Batch
from prism_fast.data.source import Encoded, Source
from prism_fast.data.state import position_of, state_of
from prism_fast.sampling.transfer import to_device
from prism_fast.views.render import render

#: Of decoded pictures, which are kept while they fit.
CACHE_BYTES = 1 << 30
_MAX_THREADS = 4


class TorchLoader:
    """See :class:`prism_fast.data.loader.Loader`. Pictures are kept decoded while they fit in 1 GiB."""

    def __init__(
        self, source: Source, device: torch.device, mean: Sequence[float], std: Sequence[float], side: int
    ) -> None:
        self._source, self._device, self._side = source, device, side
        half = device.type == "cuda" and source.config.precision != "float32"
        self._dtype = torch.float16 if half else torch.float32
        self._mean, self._std = (torch.tensor(x).view(3, 1, 1).to(device) for x in (mean, std))
        self._threads = min(_MAX_THREADS, len(os.sched_getaffinity(0)))
        self._decoders = ThreadPoolExecutor(self._threads, thread_name_prefix="prism-fast-decoder")
        self._cache: dict[int, Tensor] = {}
        self._cached = 0
        self._open(0)

    def _open(self, position: int) -> None:
        self._position = position
        self._ahead = Ahead(self._rendered, position, self._source.step)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        encoded, pixels = self._ahead.take()
        self._position += self._source.step
        given = [pixels, torch.from_numpy(encoded.labels), torch.from_numpy(encoded.logits)]
        images, labels, logits = to_device(given, self._device)
        images = ((images - self._mean) / self._std).to(self._dtype, memory_format=torch.channels_last)
        return Batch(images, labels, logits.float(), encoded.positions)

    def _rendered(self, position: int) -> tuple[Encoded, Tensor]:
        """A step's part and its pixels (n, 3, s, s), in 0..1."""
        encoded = self._source.read(position)
        pixels = torch.empty(len(encoded.positions), 3, self._side, self._side)
        pieces = np.array_split(np.arange(len(encoded.pictures)), self._threads)
        for done in [self._decoders.submit(self._render, encoded, pixels, piece) for piece in pieces]:
            done.result()
        return encoded, pixels

    def _render(self, encoded: Encoded, pixels: Tensor, places: np.ndarray[Any, Any]) -> None:
        views = self._source.config.views_per_decode
        for place in places:
            picture = self._picture(encoded, int(place))
            for row in range(place * views, (place + 1) * views):
                pixels[row] = render(picture, encoded.boxes[row].tolist(), bool(encoded.flips[row]), self._side)

    def _picture(self, encoded: Encoded, place: int) -> Tensor:
        """The decoded picture, uint8 (3, h, w)."""
        row = int(encoded.rows[place])
        picture = self._cache.get(row)
        if picture is None:
            picture = self._source.decoded(encoded, place)
            if self._cached + picture.numel() <= CACHE_BYTES:
                self._cache[row] = picture
                self._cached += picture.numel()
        return picture

    def state_dict(self) -> dict[str, Any]:
        """Pictures given to all ranks so far."""
        return state_of("torch", self._position)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved position.

        Raises:
            DataError: the state is another loader's.
        """
        position = position_of("torch", state)
        self._ahead.close()
        self._open(position)

    def close(self) -> None:
        """End the threads and forget the pictures."""
        self._ahead.close()
        self._decoders.shutdown(wait=True, cancel_futures=True)
        self._source.close()
        self._cache.clear()
