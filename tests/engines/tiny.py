"""A small network with a convolution, a normalisation, a matrix product and an integer input."""

from __future__ import annotations

from pathlib import Path

import torch
from prism_engines.graph import Graph
from prism_engines.spec import TORCH_DTYPES, EngineSpec, Precision, TensorSpec
from torch import Tensor, nn

BATCH = 4


class TinyNet(nn.Module):
    """Image and class in; features and logits out, in float32 whatever the precision inside."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.classes = nn.Embedding(10, 8)
        self.head = nn.Linear(8 * 36, 5)

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        h = self.norm(self.conv(x.to(self.head.weight.dtype))) + self.classes(labels)[:, :, None, None]
        h = nn.functional.silu(h)
        return h.float(), self.head(h.flatten(1)).float()


def net(precision: Precision = "fp32") -> TinyNet:
    """The same weights each time, in any precision."""
    torch.manual_seed(0)
    return TinyNet().eval().requires_grad_(False).to(TORCH_DTYPES[precision])


def spec(precision: Precision = "fp32") -> EngineSpec:
    """The specification of one engine of the tiny network."""
    inputs = (TensorSpec("x", (BATCH, 3, 6, 6)), TensorSpec("labels", (BATCH,), "int64"))
    return EngineSpec("tiny", inputs, ("features", "logits"), precision)


def batch(rows: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Inputs of any number of rows."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 3, 6, 6, generator=generator), torch.randint(0, 10, (rows,), generator=generator)


def graph(scratch: Path, precision: Precision = "fp32") -> Graph:
    """The graph that backends build from."""
    return Graph(spec(precision), net, batch(BATCH), scratch)
