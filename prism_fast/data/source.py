"""What both loaders decode: encoded pictures in the stream's order, with their labels, logits, boxes and flips."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from prism_fast.config import DistillConfig
from prism_fast.data.batch import Positions, require_labels
from prism_fast.data.files import Files, most_open
from prism_fast.data.order import Integers, Order
from prism_fast.data.part import Part
from prism_fast.data.picture import size_of
from prism_fast.data.table import IMAGE, INDEX, LABEL, LOGITS, SIZE, Table, read_table
from prism_fast.dataset.shard import Shard, decode_image
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.errors import DataError
from prism_fast.views.draw import ViewRule, Views, draw_views

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

#: A disk answers several requests at once.
_READERS = 4
#: Fewer samples are not worth another thread.
_FEW = 16
_WINDOWS = 3


class StoredViews(Protocol):
    """The teacher's logits of the first views of each sample of a shard set."""

    @property
    def rule(self) -> ViewRule:
        """What the views were drawn by."""
        ...

    @property
    def count(self) -> int:
        """How many views of each sample there are."""
        ...

    def logits(self, shard: Shard, indices: Integers, views: Integers) -> np.ndarray[Any, Any]:
        """Logits of a view of each of a shard's samples.

        Shapes: indices (n,), views (n,) to (n, classes).
        Dtypes: int64 to float16 or float32.
        """
        ...


@dataclass(frozen=True)
class Encoded:
    """A rank's part of a step before it is decoded: m pictures, k views of each behind one another, n = mk rows.

    ``rows`` names each picture among all samples of the shard set, ``shards`` the place of its shard.

    Shapes: pictures m, rows (m,), shards (m,), indices (m,), boxes (n, 4), flips (n,), labels (n,),
        logits (n, classes), positions (n,).
    Dtypes: pictures uint8; rows, indices, labels and positions int64; shards and boxes int32; flips bool; logits
        float16 or float32.
    """

    pictures: tuple[Bytes, ...]
    rows: Integers
    shards: np.ndarray[Any, np.dtype[np.int32]]
    indices: Integers
    boxes: np.ndarray[Any, np.dtype[np.int32]]
    flips: np.ndarray[Any, np.dtype[np.bool_]]
    labels: Integers
    logits: np.ndarray[Any, Any]
    positions: Positions


@dataclass(frozen=True)
class _Spans:
    """Where samples lie in their tars, each from its first part that is wanted to its last, and in one buffer.

    ``shift`` is what a place in a sample's tar lacks to be one in the buffer.
    """

    shards: np.ndarray[Any, np.dtype[np.int32]]
    starts: Integers
    sizes: Integers
    shift: Integers

    @classmethod
    def of(cls, table: Table, logits: int) -> _Spans:
        """Of a table's samples; ``logits`` are the bytes of each one's logits, 0: they are not wanted."""
        rows = table.rows
        begins = [rows[:, IMAGE], rows[:, LABEL]] + ([rows[:, LOGITS]] if logits else [])
        ends = [rows[:, IMAGE] + rows[:, SIZE], rows[:, LABEL] + 4] + ([rows[:, LOGITS] + logits] if logits else [])
        starts = np.min(begins, axis=0)
        sizes = np.max(ends, axis=0) - starts
        return cls(table.shards, starts, sizes, np.cumsum(sizes) - sizes - starts)


class Source:
    """The stream of a shard set. Position p is the p-th picture that all ranks together decode.

    A step takes ``batch_size / views_per_decode`` pictures; each rank its own of the equal parts, in order of rank.
    """

    def __init__(
        self, shards: ShardSet, config: DistillConfig, part: Part | None = None, stored: StoredViews | None = None
    ) -> None:
        self.shards, self.config, self._stored = shards, config, stored
        self.step = config.batch_size // config.views_per_decode
        self.part = (part or Part()).of(self.step)
        self._rule = stored.rule if stored else ViewRule(config.seed, config.crop_scale, config.flip)
        self._order = Order(shards, config.seed, config.shuffle_bytes)
        self._tables: dict[tuple[int, ...], Table] = {}
        self._files = [Files(shards.shards, most_open(_READERS)) for _ in range(_READERS)]
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="prism-fast-reader")

    @property
    def folder(self) -> Path:
        """Where the shards lie."""
        return self.shards.shards[0].tar.parent

    def read(self, position: int) -> Encoded:
        """This rank's part of the step that begins at a position. One thread may ask at a time.

        Raises:
            DataError: a shard cannot be read, a picture is none, or a label is no class.
        """
        positions = np.arange(position + self.part.start, position + self.part.stop, dtype=np.int64)
        table, rows = self._located(positions)
        spans = _Spans.of(table, 0 if self._stored else 2 * self.shards.classes)
        buffer = self._read_all(spans)
        labels = _gathered(buffer, table.rows[:, LABEL] + spans.shift, 4).view("<i4")[:, 0].astype(np.int64)
        self._require_labels(table, labels)
        begins = (table.rows[:, IMAGE] + spans.shift).tolist()
        pictures = [buffer[a : a + size] for a, size in zip(begins, table.rows[:, SIZE].tolist(), strict=True)]
        turns = self._turns(positions)
        drawn = self._views(table, pictures, turns)
        views = self.config.views_per_decode
        return Encoded(
            pictures=tuple(pictures),
            rows=rows,
            shards=table.shards,
            indices=table.rows[:, INDEX],
            boxes=drawn.boxes,
            flips=drawn.flips,
            labels=np.repeat(labels, views),
            logits=self._logits(table, spans, buffer, turns),
            positions=np.add.outer(positions * views, np.arange(views)).ravel(),
        )

    def _located(self, positions: Positions) -> tuple[Table, Integers]:
        """A table of the samples at consecutive positions, and their rows among all samples of the shard set."""
        parts, rows, at, end = [], [], int(positions[0]), int(positions[-1]) + 1
        while at < end:
            epoch, place = divmod(at, self.shards.rows)
            window = self._order.window(epoch, place)
            take = min(end - at, window.end - place)
            picks = window.picks[place - window.start :][:take]
            parts.append((self._table(window.shards), picks))
            rows.append(self._rows(window.shards, picks))
            at += take
        found = Table(*(np.concatenate([getattr(t, name)[p] for t, p in parts]) for name in ("rows", "shards")))
        return found, np.concatenate(rows)

    def _table(self, places: tuple[int, ...]) -> Table:
        if places not in self._tables:
            while len(self._tables) >= _WINDOWS:
                del self._tables[next(iter(self._tables))]
            self._tables[places] = read_table(self.shards.shards, places)
        return self._tables[places]

    def _rows(self, places: tuple[int, ...], picks: Integers) -> Integers:
        first = self._order.first
        ends = np.cumsum([first[place + 1] - first[place] for place in places])
        which = np.searchsorted(ends, picks, side="right")
        chosen = np.array(places)[which]
        found: Integers = first[chosen + 1] - ends[which] + picks
        return found

    def _read_all(self, spans: _Spans) -> Bytes:
        """All of the spans, one after another in one buffer: many small ones would cost more than reading them."""
        buffer = np.empty(int(spans.sizes.sum()), np.uint8)
        count = len(spans.shards)
        pieces = np.array_split(np.arange(count), min(_READERS, -(-count // _FEW)))
        readers = zip(self._files, pieces, strict=False)
        for done in [self._readers.submit(_read_some, files, spans, piece, buffer) for files, piece in readers]:
            done.result()
        return buffer

    def _size(self, shard: int, index: int, image: Bytes) -> tuple[int, int]:
        try:
            return size_of(image.data)
        except (OSError, ValueError) as error:
            raise self._no_picture(shard, index, error) from error

    def decoded(self, encoded: Encoded, place: int) -> torch.Tensor:
        """One of the pictures, uint8 (3, h, w), as Pillow decodes it.

        Raises:
            DataError: it is none.
        """
        try:
            return decode_image(encoded.pictures[place].tobytes())
        except (OSError, ValueError) as error:
            raise self._no_picture(int(encoded.shards[place]), int(encoded.indices[place]), error) from error

    def _no_picture(self, shard: int, index: int, error: object) -> DataError:
        where = self.shards.shards[shard]
        return where.unreadable(f"sample {index} is no {where.record.image_ext}: {error}")

    def _require_labels(self, table: Table, labels: Integers) -> None:
        for place in np.flatnonzero((labels < 0) | (labels >= self.shards.classes))[:1]:
            tar = self.shards.shards[table.shards[place]].tar
            require_labels(torch.from_numpy(labels[place : place + 1]), self.shards.classes, tar)

    def _turns(self, positions: Positions) -> Integers:
        """Which of its sample's views each is: (m, k)."""
        views = self.config.views_per_decode
        turns: Integers = np.add.outer(positions // self.shards.rows * views, np.arange(views))
        return turns % self._stored.count if self._stored else turns

    def _views(self, table: Table, pictures: Sequence[Bytes], turns: Integers) -> Views:
        indices, views = table.rows[:, INDEX], turns.shape[1]
        named = zip(table.shards.tolist(), indices.tolist(), pictures, strict=True)
        sizes = np.array([self._size(*one) for one in named], np.int32)
        return draw_views(self._rule, np.repeat(indices, views), turns.ravel(), np.repeat(sizes, views, axis=0))

    def _logits(self, table: Table, spans: _Spans, buffer: Bytes, turns: Integers) -> np.ndarray[Any, Any]:
        if self._stored:
            return _stored_logits(self._stored, self.shards, table, turns)
        found = _gathered(buffer, table.rows[:, LOGITS] + spans.shift, 2 * self.shards.classes).view("<f2")
        return np.repeat(found, turns.shape[1], axis=0)

    def close(self) -> None:
        """Close the files and end the threads."""
        self._readers.shutdown(wait=True, cancel_futures=True)
        for files in self._files:
            files.close()


def _read_some(files: Files, spans: _Spans, places: Integers, buffer: Bytes) -> None:
    into, shifts = buffer.data, spans.shift[places].tolist()
    starts, sizes = spans.starts[places].tolist(), spans.sizes[places].tolist()
    for shard, start, size, shift in zip(spans.shards[places].tolist(), starts, sizes, shifts, strict=True):
        files.read(shard, start, into[start + shift : start + shift + size])


def _gathered(buffer: Bytes, begins: Integers, size: int) -> Bytes:
    """Pieces of one size: (n, size)."""
    return np.stack([buffer[begin : begin + size] for begin in begins.tolist()])


def _stored_logits(stored: StoredViews, shards: ShardSet, table: Table, turns: Integers) -> np.ndarray[Any, Any]:
    """Logits of the views ``turns`` (m, k) of a table's samples, (mk, classes); each shard is asked once."""
    found: np.ndarray[Any, Any] | None = None
    for place in np.unique(table.shards):
        mine = np.flatnonzero(table.shards == place)
        indices = np.repeat(table.rows[mine, INDEX], turns.shape[1])
        logits = stored.logits(shards.shards[place], indices, turns[mine].ravel())
        if found is None:
            found = np.empty((*turns.shape, logits.shape[1]), logits.dtype)
        found[mine] = logits.reshape(len(mine), turns.shape[1], -1)
    assert found is not None
    return found.reshape(turns.size, -1)
