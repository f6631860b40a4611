"""A shard's samples on their way into its tar: encoded on threads as soon as their batch is finished."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from prism_fast.config import SynthesisConfig
from prism_fast.dataset.sample import Sample
from prism_fast.dataset.writer import EncodedSample, encode_sample


class Encoder:
    """Encodes the samples of one shard after another.

    What waits for the end of a shard is its encoded samples: of a batch that is encoded, pixels and logits are let go.
    """

    def __init__(self, config: SynthesisConfig) -> None:
        self.config = config
        self._pool: ThreadPoolExecutor | None = None
        self._samples: list[Future[EncodedSample]] = []

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Meanwhile there is a thread for each core of this process; what is not encoded at the end never will be."""
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)), "encode") as self._pool:
            self._samples = []
            try:
                yield
            finally:
                self._pool.shutdown(wait=False, cancel_futures=True)

    def add(self, samples: Sequence[Sample]) -> None:
        """Begin to encode the shard's next samples."""
        assert self._pool is not None
        image = (self.config.image_format, self.config.quality)
        self._samples += [self._pool.submit(encode_sample, sample, *image) for sample in samples]

    def close_shard(self) -> list[EncodedSample]:
        """The samples since the shard before, in their order; what the first of them raised is raised here."""
        samples, self._samples = self._samples, []
        return [sample.result() for sample in samples]
