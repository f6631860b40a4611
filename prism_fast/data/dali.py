"""NVIDIA DALI: decode a view's box, resize it in float, mirror, normalise; several views of a picture from one decode.

On the CPU by default; on a CUDA device the decoder becomes DALI's ``mixed`` one and the rest runs on the GPU. DALI is
imported when a loader is made, never before. It is given encoded bytes and boxes, so that it has no state to save.
"""

from __future__ import annotations

import importlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from prism_fast.data.ahead import Ahead
from prism_fast.data.batch import Batch
from prism_fast.data.source import Encoded, Source
from prism_fast.data.state import position_of, state_of
from prism_fast.errors import DataError
from prism_fast.sampling.transfer import to_device

#: On the CPU the student needs the other cores; under a GPU the host has nothing else to do than to decode.
_MAX_THREADS = 4


def _pipeline(
    feed: Any, source: Source, device: torch.device, mean: Sequence[float], std: Sequence[float], side: int
) -> Any:
    # Untyped on purpose: DALI's annotations leave out its enums and device_id=None.
    dali: Any = importlib.import_module("nvidia.dali")
    fn: Any = importlib.import_module("nvidia.dali.fn")
    types: Any = importlib.import_module("nvidia.dali.types")

    gpu, views = device.type == "cuda", source.config.views_per_decode
    half = gpu and source.config.precision != "float32"
    # Fancy upsampling: a GPU's chroma as the CPU's decoders make it, which is what a teacher was shown.
    decoding = {"adjust_orientation": False, **({"device": "mixed", "jpeg_fancy_upsampling": True} if gpu else {})}
    cores = len(os.sched_getaffinity(0))

    def seen(pixels: Any, flip: Any) -> Any:
        resized = fn.resize(pixels, size=[side, side], antialias=True, dtype=types.FLOAT)
        return fn.crop_mirror_normalize(
            resized,
            dtype=types.FLOAT16 if half else types.FLOAT,
            output_layout="HWC",
            mean=[255 * value for value in mean],
            std=[255 * value for value in std],
            mirror=flip,
        )

    @dali.pipeline_def(  # type: ignore[untyped-decorator]
        batch_size=len(source.part),
        num_threads=cores if gpu else min(_MAX_THREADS, cores),
        device_id=(device.index or 0) if gpu else None,
        seed=0,
    )
    def training() -> tuple[Any, ...]:
        raw, *drawn = fn.external_source(source=feed, num_outputs=1 + 3 * views, batch=True, no_copy=True)
        places = [{"start": drawn[at], "shape": drawn[at + 1], "axes": [0, 1]} for at in range(0, 3 * views, 3)]
        if views == 1:
            return (seen(fn.decoders.image_slice(raw, **places[0], **decoding), drawn[2]),)
        whole = fn.decoders.image(raw, **decoding)
        return tuple(seen(fn.slice(whole, **place), flip) for place, flip in zip(places, drawn[2::3], strict=True))

    return training()


class DaliLoader:
    """See :class:`prism_fast.data.loader.Loader`."""

    def __init__(
        self, source: Source, device: torch.device, mean: Sequence[float], std: Sequence[float], side: int
    ) -> None:
        self._source, self._device = source, device
        self._settings = (tuple(mean), tuple(std), side)
        self._pipe: Any = None
        self._copied: torch.cuda.Event | None = None
        #: Given to DALI, not yet given out.
        self._inside: deque[Encoded] = deque()
        self._open(0)

    def _open(self, position: int) -> None:
        self._position, self._pipe = position, None
        self._inside.clear()
        self._ahead = Ahead(self._source.read, position, self._source.step)
        try:
            self._pipe = _pipeline(self._feed, self._source, self._device, *self._settings)
            self._pipe.build()
        except RuntimeError as error:
            raise DataError(f"DALI cannot open {self._source.folder}: {_reason(error)}") from error

    def _feed(self) -> tuple[Any, ...]:
        """The next step for DALI, which asks two steps ahead, in the thread that runs it."""
        encoded = self._ahead.take()
        self._inside.append(encoded)
        return _given(encoded, self._source.config.views_per_decode)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._copied is not None:  # DALI writes its next batch where the last one was copied from
            self._copied.synchronize()
        try:
            views = [_view(output) for output in self._pipe.run()]
        except RuntimeError as error:
            raise self._fault(error) from error
        encoded = self._inside.popleft()
        labels, logits = to_device([torch.from_numpy(encoded.labels), torch.from_numpy(encoded.logits)], self._device)
        images = _joined(views, self._device)
        self._copied = _mark(self._device)
        self._position += self._source.step
        return Batch(images, labels, logits.float(), encoded.positions)

    def _fault(self, error: RuntimeError) -> Exception:
        """What an error of DALI's is due to: the first picture that Pillow cannot read either, else DALI's own word."""
        for encoded in self._inside:
            for place in range(len(encoded.pictures)):
                try:
                    self._source.decoded(encoded, place)
                except DataError as broken:
                    return broken
        return DataError(f"DALI cannot read {self._source.folder}: {_reason(error)}")

    def state_dict(self) -> dict[str, Any]:
        """Pictures given to all ranks so far."""
        return state_of("dali", self._position)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved position.

        Raises:
            DataError: the state is another loader's.
        """
        position = position_of("dali", state)
        self._ahead.close()
        self._open(position)

    def close(self) -> None:
        """Drop the pipeline, its threads and the source's."""
        self._pipe = None
        self._ahead.close()
        self._inside.clear()
        self._source.close()


def _given(encoded: Encoded, views: int) -> tuple[Any, ...]:
    """What DALI's source gives: the encoded pictures, then of each view start, shape and flip."""
    boxes = encoded.boxes.reshape(-1, views, 4)
    flips = encoded.flips.reshape(-1, views).astype(np.int32)
    parts = [(boxes[:, v, :2], boxes[:, v, 2:], flips[:, v]) for v in range(views)]
    return list(encoded.pictures), *(np.ascontiguousarray(part) for part in chain.from_iterable(parts))


def _view(output: Any) -> Tensor:
    """A batch of DALI's, (m, s, s, 3), as it lies in a buffer that the next run reuses."""
    view: Tensor = from_dlpack(output.as_tensor())
    return view


def _joined(views: Sequence[Tensor], device: torch.device) -> Tensor:
    """A copy (n, 3, s, s) in channels-last memory on the device; the views of a picture behind one another."""
    if len(views) == 1:
        return views[0].permute(0, 3, 1, 2).to(device, copy=True)
    return torch.stack([view.to(device, non_blocking=True) for view in views], dim=1).flatten(0, 1).permute(0, 3, 1, 2)


def _mark(device: torch.device) -> torch.cuda.Event | None:
    """An event that has happened when a GPU has done what it was given so far."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event


def _reason(error: RuntimeError) -> str:
    """The most telling line of DALI's many-line message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "Current pipeline object" not in line and not line.startswith("Critical")]
    after = next((i for i, line in enumerate(telling) if line.startswith("encountered")), None)
    return telling[after + 1] if after is not None and after + 1 < len(telling) else (telling or lines or ["?"])[0]
