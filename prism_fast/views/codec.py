"""How a view's logits are stored: all of them, or the highest ones and the rest of the classes as one number.

=====================  ==========================================================================================
up to 256 classes      every logit, float16, in order of class
more                   the ``top_k`` highest, falling: their classes (uint16, beyond 65,536 classes uint32), their
                       logits (float16), then log-sum-exp of the logits of all other classes (float16)
=====================  ==========================================================================================

Everything is little endian and lies without a gap, view after view. Read back, each class of the rest has an equal part
of its mass: ``rest - log(classes - top_k)``. So the probabilities of the stored classes come out as they were, at
temperature 1 exactly; the shape of the rest is lost.

Float16 is enough for the rest wherever it is for the logits: it exceeds the highest of them by log(classes) at most,
and what is up to 16 more than 65,504 is still rounded to 65,504.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from prism_fast.config.views import WHOLE_CLASSES

#: Stored views: a structured array of :attr:`ViewCodec.dtype`.
Records = np.ndarray[Any, np.dtype[np.void]]
Dense = np.ndarray[Any, np.dtype[np.float32]]
#: Classes that two bytes number.
_TWO_BYTES = 1 << 16


@dataclass(frozen=True)
class ViewCodec:
    """The form of a view's logits; ``top_k`` None: all are stored."""

    classes: int
    top_k: int | None

    @classmethod
    def of(cls, classes: int, top_k: int) -> ViewCodec:
        """The form for so many classes; ``top_k`` matters only where not all logits are stored."""
        return cls(classes, top_k if classes > WHOLE_CLASSES else None)

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Of one stored view."""
        if self.top_k is None:
            return np.dtype([("logits", "<f2", (self.classes,))])
        number = "<u2" if self.classes <= _TWO_BYTES else "<u4"
        return np.dtype([("numbers", number, (self.top_k,)), ("logits", "<f2", (self.top_k,)), ("rest", "<f2")])

    @property
    def size_bytes(self) -> int:
        """Of one stored view."""
        return self.dtype.itemsize

    def pack(self, logits: Tensor) -> tuple[Tensor, ...]:
        """What is stored of logits, on their device: a tensor for each field of :attr:`dtype`.

        Of equal logits the lower class comes first, on every device.

        Shapes: logits (..., classes); returns numbers (..., top_k), logits (..., top_k) and rest (...), or all logits.
        Dtypes: int32, float16, float16.
        """
        if self.top_k is None:
            return (logits.half(),)
        falling, numbers = logits.float().sort(dim=-1, descending=True, stable=True)
        high, others = falling[..., : self.top_k], falling[..., self.top_k :]
        return numbers[..., : self.top_k].int(), high.half(), others.logsumexp(-1).half()

    def finite(self, packed: Sequence[Tensor]) -> Tensor:
        """Which views can be stored, (...): half precision holds no logit above 65,504.

        Shapes: packed as from :meth:`pack`.
        """
        if self.top_k is None:
            return packed[0].isfinite().all(-1)
        return packed[1].isfinite().all(-1) & packed[2].isfinite()

    def records(self, packed: Sequence[Tensor]) -> Records:
        """Packed tensors of the host as records, (...); ``tobytes()`` of them is what is stored."""
        names = self.dtype.names or ()
        shape = packed[-1].shape if self.top_k else packed[0].shape[:-1]
        made: Records = np.empty(tuple(shape), self.dtype)
        for name, values in zip(names, packed, strict=True):
            made[name] = values.numpy()
        return made

    def encode(self, logits: Tensor) -> Records:
        """Logits as records.

        Shapes: (..., classes) to (...).
        """
        return self.records([x.cpu() for x in self.pack(logits)])

    def decode(self, records: Records) -> Dense:
        """All logits of stored views.

        Shapes: (...) to (..., classes).
        Dtypes: float32.

        Raises:
            IndexError: a record is damaged: it names a class that there is not.
        """
        logits: Dense = records["logits"].astype(np.float32)
        if self.top_k is None:
            return logits
        each = records["rest"].astype(np.float32) - np.float32(math.log(self.classes - self.top_k))
        dense: Dense = np.repeat(each[..., None], self.classes, axis=-1)
        np.put_along_axis(dense, records["numbers"].astype(np.int64), logits, axis=-1)
        return dense
