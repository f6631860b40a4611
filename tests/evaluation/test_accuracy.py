"""Accuracy, its interval, and the shared batching."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from prism_fast.errors import InputError, RunError
from prism_fast.evaluation.accuracy import evaluate_classifier, score_logits, wilson_interval


class _Channel(nn.Module):
    """Logits are the mean of each channel; asserts that it runs in eval mode."""

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        return x.mean(dim=(2, 3))


def _pictures() -> tuple[Tensor, Tensor]:
    labels = torch.arange(7) % 3
    images = torch.zeros(7, 3, 4, 5, dtype=torch.uint8)
    images[torch.arange(7), labels] = 200
    return images, labels


def test_perfect_and_order_kept() -> None:
    images, labels = _pictures()
    model = _Channel().train()
    result = evaluate_classifier(model, images, labels, prepare=lambda x: x * 2 - 1, batch_size=3)
    assert (result.top1, result.top5, result.n) == (1.0, 1.0, 7)
    assert result.per_class == (1.0, 1.0, 1.0)
    assert torch.equal(result.confusion, torch.diag(torch.tensor([3, 2, 2])))
    assert result.logits.dtype == torch.float32
    assert result.logits[1, 1] == pytest.approx(200 / 255 * 2 - 1)
    assert model.training


def test_against_by_hand() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(83, 11), torch.randint(0, 10, (83,))
    result = score_logits(logits, labels)
    ranks = (logits > logits.gather(1, labels[:, None])).sum(dim=1)
    assert result.top1 == pytest.approx(float((ranks < 1).double().mean()))
    assert result.top5 == pytest.approx(float((ranks < 5).double().mean()))
    assert result.per_class[10] is None
    assert result.per_class[3] == pytest.approx(float((ranks[labels == 3] < 1).double().mean()))
    assert int(result.confusion.sum()) == 83
    low, high = result.top1_interval
    assert low < result.top1 < high


def test_wilson_known_values() -> None:
    # Newcombe 1998, table I, method 3: 81 of 263 -> 0.2553 to 0.3662; 0 of 20 -> 0 to 0.1611.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson_interval(20, 20)[1] == 1.0


def test_bad_input() -> None:
    images, labels = _pictures()
    model = _Channel()
    for bad_images, bad_labels, words in (
        (images.float(), labels, "uint8"),
        (images[:0], labels[:0], "no images"),
        (images, labels[:3], "7 images but 3 labels"),
        (images, labels + 5, "0..2"),
    ):
        with pytest.raises(InputError, match=words):
            evaluate_classifier(model, bad_images, bad_labels, prepare=lambda x: x)
    with pytest.raises(InputError, match="0 of 0"):
        wilson_interval(0, 0)


def test_nan_is_refused_and_mode_restored() -> None:
    images, labels = _pictures()
    model = _Channel().train()
    with pytest.raises(RunError, match="NaN or infinity for 7 of 7"):
        evaluate_classifier(model, images, labels, prepare=lambda x: x * float("nan"))
    assert model.training
