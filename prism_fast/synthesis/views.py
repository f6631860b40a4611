"""The teacher's logits of views: what the loaders cut from a stored picture later, the teacher sees beforehand.

One view of every picture of a batch is one pass, so that what is on the device at once does not grow with the number of
views, and the views of a sample do not depend on how many there are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from prism_engines.backends.eager import EagerEngine, InChunks
from prism_engines.base import Engine
from torch import Tensor

from prism_fast.config import SynthesisConfig
from prism_fast.dataset.shard import decode_image
from prism_fast.dataset.view_files import Labelling
from prism_fast.dataset.writer import encode_image
from prism_fast.guidance.network import ImageClassifier
from prism_fast.models.at_once import ON_A_PROCESSOR
from prism_fast.models.classifier import Classifier
from prism_fast.sampling.transfer import to_device, to_host
from prism_fast.views.codec import Records
from prism_fast.views.draw import draw_views
from prism_fast.views.render import render_all

_LOSSLESS = ("png",)


def eager_teacher(teacher: Classifier, side: int) -> Engine:
    """The teacher of square pictures in 0..1, (n, 3, side, side), resized to its own size where that is another."""
    engine = EagerEngine(ImageClassifier(teacher, (side, side)), "teacher")
    return InChunks(engine, ON_A_PROCESSOR) if next(teacher.net.parameters()).device.type == "cpu" else engine


class ViewLabeller:
    """Gives packed logits of views.

    Args:
        labelling: how they are drawn and stored.
        side: what a view is resized to.
        teacher: engine of such pictures.
    """

    def __init__(self, labelling: Labelling, side: int, teacher: Engine) -> None:
        self.rule, self.codec = labelling.rule, labelling.codec
        self.side, self.teacher = side, teacher

    @torch.no_grad()
    def label(self, indices: Sequence[int], images: Tensor, turns: Sequence[int]) -> tuple[Tensor, ...]:
        """What is stored of the given views of each picture, on the pictures' device.

        Shapes: indices (n,), images (n, 3, h, w); returns tensors (n, turns, ...), as :meth:`ViewCodec.pack` says.
        Dtypes: images uint8.
        """
        passes = [self._pass(indices, images, turn) for turn in turns]
        return tuple(torch.stack(parts, 1) for parts in zip(*passes, strict=True))

    def _pass(self, indices: Sequence[int], images: Tensor, turn: int) -> tuple[Tensor, ...]:
        sizes = np.tile(np.array(images.shape[-2:], np.int32), (len(indices), 1))
        views = draw_views(self.rule, np.array(indices, np.int64), np.full(len(indices), turn, np.int64), sizes)
        return self.codec.pack(self.teacher.run(render_all(images, views, self.side))[0])

    def finite(self, packed: Sequence[Tensor]) -> Tensor:
        """Of which pictures every view can be stored (n,)."""
        return self.codec.finite(packed).all(1)

    def records(self, packed: Sequence[Tensor]) -> Records:
        """Packed logits of the host as they are stored (n, turns)."""
        return self.codec.records(packed)

    def stored(self, packed: Sequence[Tensor]) -> list[bytes]:
        """The same as each sample's bytes."""
        return [record.tobytes() for record in self.records(packed)]


def as_stored(pixels: Tensor, config: SynthesisConfig) -> tuple[Tensor, tuple[bytes, ...] | None]:
    """Pictures as whoever reads the shard will see them, on their device, and their bytes if that took encoding.

    PNG keeps every pixel. JPEG and WebP do not: there each picture is encoded here, on a thread for each core, and
    decoded again; the bytes are what the shard gets, so that nothing is encoded twice. What it costs is the decoding,
    and that the device waits meanwhile.

    Shapes: (n, 3, h, w).
    Dtypes: uint8.
    """
    if config.image_format in _LOSSLESS:
        return pixels, None

    def there_and_back(picture: Tensor) -> tuple[bytes, Tensor]:
        data = encode_image(picture, config.image_format, config.quality)
        return data, decode_image(data)

    (host,) = to_host([pixels])
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)), "encode") as pool:
        encoded, decoded = zip(*pool.map(there_and_back, host), strict=True)
    (seen,) = to_device([torch.stack(decoded)], pixels.device)
    return seen, encoded
