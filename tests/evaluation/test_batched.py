"""A stream of pictures is seen by a processor some at a time, whatever the batches are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from prism_fast.errors import RunError
from prism_fast.evaluation._batched import stream_logits
from prism_fast.models.at_once import ON_A_PROCESSOR


class Counting(nn.Module):
    """Gives the mean of each colour, and notes how many pictures it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return x.mean(dim=(2, 3))


@pytest.mark.parametrize("count", [1, ON_A_PROCESSOR, ON_A_PROCESSOR + 1, 3 * ON_A_PROCESSOR + 5])
def test_large_batches_are_seen_in_parts(count: int) -> None:
    generator, net = torch.Generator().manual_seed(0), Counting()
    images = torch.randint(0, 256, (count, 3, 4, 4), generator=generator, dtype=torch.uint8)
    ((logits, labels),) = stream_logits(net, [(images, torch.arange(count))], prepare=lambda x: x, device="cpu")
    torch.testing.assert_close(logits, images.float().mean(dim=(2, 3)) / 255)
    assert torch.equal(labels, torch.arange(count))
    assert sum(net.seen) == count
    assert max(net.seen) <= ON_A_PROCESSOR


def test_a_wrong_part_is_an_error_of_the_whole_batch() -> None:
    images = torch.zeros(2 * ON_A_PROCESSOR, 3, 4, 4, dtype=torch.uint8)
    images[-1] = 1
    found = stream_logits(
        Counting(), [(images, images[:, 0, 0, 0])], prepare=lambda x: torch.where(x > 0, torch.nan, x), device="cpu"
    )
    with pytest.raises(RunError, match=rf"NaN or infinity for 1 of {len(images)} images"):
        next(found)
