"""Augmentation copies a batch's draws to the GPU at once and never waits for it: seen on a device that is faked."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from prism_fast.config.augment import AugmentConfig
from prism_fast.data.augment import Augment
from prism_fast.data.augment.rand_augment import RandAugment
from prism_fast.data.batch import Batch
from tests.data.augment.pictures import CPU, batch
from tests.data.toy import MEAN, STD
from tests.gpu.fake import CUDA, Log

COLOURS: dict[str, Any] = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
ALL: dict[str, Any] = {**COLOURS, "rand_augment": 1, "erasing": 0.5, "mixup": 0.8, "cutmix": 1.0}


def on_cuda(given: Batch) -> Batch:
    moved = {name: getattr(given, name).to(CUDA) for name in ("images", "labels", "logits")}
    return replace(given, **moved)


N, SEED = 32, 3


def test_the_batch_has_every_operation() -> None:
    drawn = RandAugment(AugmentConfig(rand_augment=1), SEED, torch.zeros(1, 3, 1, 1)).draw(batch(N).positions, 20, 24)
    assert min(drawn.counts) > 0


def refused(*given: object, **named: object) -> None:
    raise AssertionError("a tensor was made of numbers of the host")


@pytest.mark.parametrize("config", [{"erasing": 0.5}, {"mixup": 1.0}, ALL])
def test_a_batch_is_one_copy_that_nobody_waits_for(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    given = batch(N)
    with FakeTensorMode(allow_non_fake_inputs=True):
        augment, there = Augment(AugmentConfig(**config), SEED, MEAN, STD, CUDA), on_cuda(given)
        augment(there)  # the sheet of noise, once
        # On a real device numbers of the host become a tensor there by a copy that is waited for; the fake shows none.
        monkeypatch.setattr(torch, "tensor", refused)
        with Log() as log:
            for _ in range(2):
                found = augment(there)
    assert not log.waits, log.waits
    copies = Counter[tuple[str, bool]]()
    for (way, blocks, _), n in log.copies.items():
        copies[way, blocks] += n
    assert copies == {("cpu to cuda", False): 2}, log.copies
    assert (found.images.device.type, found.images.shape) == ("cuda", given.images.shape)
    assert found.images.is_contiguous(memory_format=torch.channels_last)
    if config.get("mixup") or config.get("cutmix"):
        assert found.share is not None
        assert (found.share.device.type, found.share.shape) == ("cuda", (N,))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_a_gpu_gives_what_the_cpu_gives_and_torch_sees_no_wait() -> None:
    # Without RandAugment's steps: a last bit may take a pixel over a threshold.
    settings = AugmentConfig(**{**ALL, "rand_augment": 0})
    given = batch(48)
    there, augment = on_cuda(given), Augment(AugmentConfig(**ALL), 3, MEAN, STD, CUDA)
    augment(there)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        augment(there)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    found = Augment(settings, 3, MEAN, STD, CUDA)(there)
    wanted = Augment(settings, 3, MEAN, STD, CPU)(given)
    for name in ("images", "logits", "other_labels", "share"):
        torch.testing.assert_close(getattr(found, name).cpu(), getattr(wanted, name), rtol=0, atol=1e-4)
