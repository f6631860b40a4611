"""Images are encoded on threads while their shard is still made; its bytes are the same."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from benchmarks.stub import Stub
from prism_fast.config import RunConfig, SynthesisConfig, assign
from prism_fast.dataset.sample import Sample
from prism_fast.dataset.writer import EncodedSample, encode_sample, tar_bytes
from prism_fast.prompts.row import PlanRow
from prism_fast.synthesis.synthesizer import Made
from prism_fast.workers import encoding
from prism_fast.workers.encoding import Encoder
from tests.stubbed import open_worker


def sample(index: int) -> Sample:
    return Sample(index, torch.full((3, 8, 8), index, dtype=torch.uint8), 0, torch.zeros(2), {"index": index})


def threads() -> int:
    return sum(thread.name.startswith("encode") for thread in threading.enumerate())


class Keeping(Stub):
    """Remembers what it made."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.made: list[Sample] = []

    def finish(self, rows: Sequence[PlanRow], sampled: None) -> Made:
        made = super().finish(rows, sampled)
        self.made += made.samples
        return made


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("image_format", ["png", "jpg"])
def test_a_shard_is_that_of_its_samples_in_their_order(
    stubbed: RunConfig, tmp_path: Path, image_format: str, depth: int
) -> None:
    changes = {"synthesis.image_format": image_format, "synthesis.shard_size": 7, "launch.pipeline_depth": depth}
    generator = Keeping(assign(stubbed, changes))
    assert open_worker(generator.config, tmp_path / "run", generator=generator).make(0) is not None
    tar, index = tar_bytes(generator.made, image_format, 95)
    shards = tmp_path / "run" / "shards"
    assert ((shards / "000000.tar").read_bytes(), (shards / "000000.idx").read_text()) == (tar, index)
    assert len(generator.made) == 7
    assert threads() == 0


def test_samples_are_encoded_at_once_and_kept_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that wait for each other: one after the other would never end. The first is ready last."""
    meet, second_is_done = threading.Barrier(2, timeout=20), threading.Event()

    def slowly(given: Sample, extension: str, quality: int) -> EncodedSample:
        meet.wait()
        if given.index == 0:
            assert second_is_done.wait(20)
        made = encode_sample(given, extension, quality)
        if given.index == 1:
            second_is_done.set()
        return made

    monkeypatch.setattr(encoding, "encode_sample", slowly)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    encoder = Encoder(SynthesisConfig())
    with encoder.threads():
        encoder.add([sample(0), sample(1)])
        assert [one.index for one in encoder.close_shard()] == [0, 1]
        assert encoder.close_shard() == []


def test_one_core_has_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5})
    encoder = Encoder(SynthesisConfig())
    with encoder.threads():
        encoder.add([sample(i) for i in range(9)])
        assert threads() == 1
        assert [one.index for one in encoder.close_shard()] == list(range(9))
    assert threads() == 0


def test_what_encoding_raises_comes_out_where_the_shard_is_closed(
    stubbed: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No shard is committed without it, the same worker makes the shard later, and no thread is left."""
    broken = [True]

    def encode(given: Sample, extension: str, quality: int) -> EncodedSample:
        if broken[0] and given.index == 2:
            raise MemoryError
        return encode_sample(given, extension, quality)

    monkeypatch.setattr(encoding, "encode_sample", encode)
    worker = open_worker(stubbed, tmp_path / "run")
    assert worker.make(0) is not None
    with pytest.raises(MemoryError):
        worker.make(1)
    assert threads() == 0
    assert worker.directory.done() == {0}
    broken[0] = False
    worker.leases.release("000001")
    record = worker.make(1)
    assert record is not None
    assert (record.rows, record.planned, record.quarantined) == (2, 2, ())


def test_a_shard_that_is_abandoned_is_no_part_of_the_next() -> None:
    encoder = Encoder(SynthesisConfig())
    with encoder.threads():
        encoder.add([sample(0)])
    with encoder.threads():
        encoder.add([sample(1)])
        assert [one.index for one in encoder.close_shard()] == [1]


def test_pixels_are_let_go_before_the_shard_is_closed() -> None:
    encoder = Encoder(SynthesisConfig())
    with encoder.threads():
        image = torch.zeros(3, 8, 8, dtype=torch.uint8)
        pixels = weakref.ref(image)
        encoder.add([Sample(0, image, 0, torch.zeros(2), {})])
        del image
        encoder._samples[0].result()
        encoder.add([sample(1)])  # a thread drops its last piece of work when it takes another
        encoder._samples[1].result()
        gc.collect()
        assert pixels() is None
        assert len(encoder.close_shard()) == 2
