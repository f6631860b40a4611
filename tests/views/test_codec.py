"""What is read back of a view's logits is what was stored of them, and weighs as much."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from prism_fast.config.views import WHOLE_CLASSES, ViewsConfig
from prism_fast.views.codec import ViewCodec


def logits(*shape: int, scale: float = 4.0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * scale


@pytest.mark.parametrize(("classes", "size"), [(2, 4), (16, 32), (256, 512), (257, 258), (1000, 258), (70_000, 386)])
def test_so_many_bytes_are_stored_of_a_view(classes: int, size: int) -> None:
    codec = ViewCodec.of(classes, ViewsConfig().top_k)
    assert codec.size_bytes == size
    assert len(codec.encode(logits(3, 2, classes)).tobytes()) == 3 * 2 * size


@pytest.mark.parametrize("classes", [2, 16, WHOLE_CLASSES])
def test_of_few_classes_every_logit_is_stored(classes: int) -> None:
    given = logits(5, 3, classes)
    codec = ViewCodec.of(classes, 1)
    read = np.frombuffer(codec.encode(given).tobytes(), codec.dtype).reshape(5, 3)
    np.testing.assert_array_equal(codec.decode(read), given.half().float().numpy())
    assert codec.encode(given).tobytes() == given.half().numpy().astype("<f2").tobytes()


@pytest.mark.parametrize(("classes", "top_k"), [(257, 256), (300, 1), (1000, 64), (70_000, 5)])
def test_of_many_the_highest_are_stored_and_the_rest_weighs_what_it_did(classes: int, top_k: int) -> None:
    given = logits(4, 2, classes)
    codec = ViewCodec.of(classes, top_k)
    read = np.frombuffer(codec.encode(given).tobytes(), codec.dtype).reshape(4, 2)
    dense = torch.from_numpy(codec.decode(read))
    assert (dense.shape, dense.dtype) == (given.shape, torch.float32)
    high, places = given.topk(top_k, dim=-1)
    assert torch.equal(dense.gather(-1, places), high.half().float())
    is_high = torch.zeros_like(given, dtype=torch.bool).scatter(-1, places, True)
    others = given.double().masked_fill(is_high, -math.inf).logsumexp(-1)
    mass = dense.double().masked_fill(is_high, -math.inf).logsumexp(-1)
    torch.testing.assert_close(mass, others, atol=0, rtol=2**-11 * 1.01)  # one rounding to float16
    spread = dense.masked_select(~is_high).view(8, -1)
    assert (spread == spread[:, :1]).all()
    before, after = given.double().softmax(-1), dense.double().softmax(-1)
    torch.testing.assert_close(after[is_high], before[is_high], atol=0, rtol=0.02)


def test_of_equal_logits_the_lower_class_is_stored_first() -> None:
    codec = ViewCodec.of(400, 3)
    given = torch.zeros(1, 400)
    given[0, [7, 300]] = 2.0
    (record,) = codec.encode(given)
    assert record["numbers"].tolist() == [7, 300, 0]
    assert record["logits"].tolist() == [2.0, 2.0, 0.0]
    assert record["rest"] == np.float16(math.log(397))


@pytest.mark.parametrize("classes", [3, 300])
def test_what_half_precision_does_not_hold_is_not_finite(classes: int) -> None:
    codec = ViewCodec.of(classes, 2)
    given = torch.zeros(4, 2, classes)
    given[0, 1, 0], given[1, 0, 1], given[2, 0, 2] = 65_504.0, 65_600.0, math.nan
    finite = codec.finite(codec.pack(given))
    assert finite.tolist() == [[True, True], [False, True], [False, True], [True, True]]


def test_the_rest_stays_finite_as_long_as_the_logits_do() -> None:
    codec = ViewCodec.of(100_000, 2)
    assert codec.finite(codec.pack(torch.full((1, 100_000), 65_504.0))).all()
    assert codec.finite(codec.pack(torch.full((1, 100_000), -65_504.0))).all()


def test_a_class_that_there_is_not_is_refused() -> None:
    codec = ViewCodec.of(300, 2)
    made = codec.encode(logits(2, 300))
    made["numbers"][1, 0] = 300
    with pytest.raises(IndexError):
        codec.decode(made)
