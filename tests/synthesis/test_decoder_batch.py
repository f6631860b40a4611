"""The final images are decoded in chunks where memory asks for it, and never where the bytes of a run would change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from prism_engines.backends.eager import InChunks

from prism_fast.config import RunConfig, assign
from prism_fast.dataset.plan import build_plan
from prism_fast.estimate.outline import outline_run
from prism_fast.synthesis.synthesizer import Synthesizer


@contextmanager
def rows_decoded(run: Synthesizer) -> Iterator[list[int]]:
    """How many latents the decoder is given at each call."""
    seen: list[int] = []
    decoder: Any = run.model.vae.decoder
    handle = decoder.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    yield seen
    handle.remove()


def test_on_a_cpu_in_float32_the_whole_batch_is_decoded_as_ever(config: RunConfig) -> None:
    rows = build_plan(config, 4)
    wanted = Synthesizer.load(config).make(rows).samples
    run = Synthesizer.load(assign(config, {"engines.decoder_batch": 1}))
    with rows_decoded(run) as seen:
        found = run.make(rows).samples
    assert max(seen) == 4
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.logits, b.logits)


@pytest.mark.parametrize(("rows", "calls"), [(None, [4]), (2, [2, 2]), (3, [3, 1]), (9, [4])])
def test_in_half_precision_it_is_decoded_in_chunks(config: RunConfig, rows: int | None, calls: list[int]) -> None:
    run = Synthesizer.load(assign(config, {"engines.decoder_batch": rows, "sampling.dtype": "bfloat16"}))
    plan = build_plan(config, 4)
    sampled = run.denoise(plan)
    with rows_decoded(run) as seen:
        assert len(run.finish(plan, sampled).samples) == 4
    assert seen == calls


def test_off_the_cpu_it_is_in_float32_too(config: RunConfig) -> None:
    """The gradient by its own number of rows, and each is the other's business."""
    run = outline_run(assign(config, {"engines.decoder_batch": 2, "engines.gradient_batch": 3}))  # device meta
    parts = (run.engines.decoder, run.engines.energy_gradient)
    assert [part.rows for part in parts if isinstance(part, InChunks)] == [2, 3]
