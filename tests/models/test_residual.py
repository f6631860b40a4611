"""Which modules are residual blocks, and networks without some."""

from __future__ import annotations

import pytest
import timm
import torch

from prism_fast.errors import InputError
from prism_fast.models.structure.anatomy import examine
from prism_fast.models.structure.residual import leave_out, residual_blocks, without

KNOWN = {
    "resnet18": (64, ("layer1.0", "layer1.1", "layer2.1", "layer3.1", "layer4.1")),
    "test_vit": (160, tuple(f"blocks.{number}" for number in range(6))),
    "convnext_atto": (
        64,
        tuple(f"stages.{s}.blocks.{b}" for s, count in enumerate((2, 2, 6, 2)) for b in range(count)),
    ),
    "efficientnet_lite0": (
        64,
        tuple(f"blocks.{s}.{b}" for s, count in ((1, 2), (2, 2), (3, 3), (4, 3), (5, 4)) for b in range(1, count)),
    ),
    "vgg11": (32, ()),
    "densenet121": (64, ()),
}


@pytest.mark.parametrize("name", KNOWN)
def test_blocks_that_add_their_input(name: str) -> None:
    """Projections, poolings, attention without its sum and plain convolutions are none."""
    side, wanted = KNOWN[name]
    net = timm.create_model(name, num_classes=2).eval()
    assert residual_blocks(net, examine(net, side).groups, side) == wanted


def test_a_network_without_a_block() -> None:
    net = timm.create_model("test_vit", num_classes=2).eval()
    picture = torch.rand(1, 3, 160, 160)
    whole = net(picture)
    with without(net, "blocks.2"):
        shallower = net(picture)
    assert torch.equal(net(picture), whole)
    leave_out(net, ["blocks.2"])
    assert torch.equal(net(picture), shallower)
    assert not torch.equal(shallower, whole)
    with pytest.raises(InputError, match=r"VisionTransformer has no block blocks\.7"):
        leave_out(net, ["blocks.7"])
