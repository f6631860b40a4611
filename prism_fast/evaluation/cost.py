"""What a classifier costs whoever runs it: parameters, multiply-adds, bytes on disk, milliseconds."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from prism_engines.backends import backend
from prism_engines.backends.base import Backend
from prism_engines.errors import EngineBuildError
from prism_engines.graph import Graph
from prism_engines.spec import EngineSpec, TensorSpec
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from prism_fast.models.classifier import Classifier, require_input_size

#: One image, as an application asks, and a batch, as a server does.
BATCHES = (1, 32)
#: What most people would run a small network with on a CPU.
BACKENDS = ("eager", "openvino", "onnxruntime")
_MIN_RUN_S = 0.3


@dataclass(frozen=True)
class Latency:
    """The median time of one forward pass of a batch on the CPU."""

    backend: str
    batch: int
    ms: float
    threads: int


@dataclass(frozen=True)
class Cost:
    """What a classifier costs.

    ``gmac``: multiply-adds of one image in matrix products, convolutions and attention, in thousands of millions.
    ``size_bytes`` and ``half_size_bytes``: its tensors in a safetensors file in float32 and float16; the file's header
    comes on top, about 100 bytes a tensor. ``left_out``: why a backend has no latency.
    """

    parameters: int
    gmac: float
    image_size: int
    size_bytes: int
    half_size_bytes: int
    latency: tuple[Latency, ...] = ()
    left_out: tuple[str, ...] = ()


def cost_of(classifier: Classifier, image_size: int | None = None, latency: Sequence[str] = ()) -> Cost:
    """Parameters, multiply-adds, file size and, on this machine's CPU, latency.

    Args:
        classifier: the network, float32.
        image_size: side of the images; the classifier's own when not given.
        latency: ``eager`` and names of compiled backends; one that cannot run here is left out, with its reasons.

    Raises:
        InputError: the network does not take images of this size, or a backend is unknown.
    """
    size = image_size or classifier.config.image_size
    require_input_size(classifier, size, "image_size")
    compiled = [backend(name) for name in latency if name != "eager"]
    times: list[Latency] = []
    refused: list[str] = []
    if latency:
        net = _on_cpu(classifier.net)
        with torch.no_grad():
            times += _eager(net, size) if "eager" in latency else []
            for batch in BATCHES if compiled else ():
                _compiled(net, _spec(batch, size), compiled, times, refused)
    return Cost(
        parameters=sum(weight.numel() for weight in classifier.net.parameters()),
        gmac=multiply_adds(classifier.net, size) / 1e9,
        image_size=size,
        size_bytes=_stored_bytes(classifier.net, torch.float32),
        half_size_bytes=_stored_bytes(classifier.net, torch.float16),
        latency=tuple(sorted(times, key=lambda one: latency.index(one.backend))),
        left_out=tuple(dict.fromkeys(refused)),
    )


@torch.no_grad()
def multiply_adds(net: nn.Module, image_size: int) -> int:
    """Multiply-adds of one image, (1, 3, s, s): half of what torch's FlopCounterMode counts.

    Of attention it counts the two matrix products, which torch's fused kernel for CPUs hides from it.
    """
    weight = next(net.parameters())
    image = torch.zeros(1, 3, image_size, image_size, device=weight.device, dtype=weight.dtype)
    counting = copy.deepcopy(net).eval().requires_grad_(False)  # of weights that are trained it would want gradients
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        counting(image)
    return int(counted.get_total_flops()) // 2


def _stored_bytes(net: nn.Module, dtype: torch.dtype) -> int:
    """As ``save_classifier`` writes it: integer buffers keep their type."""
    state = net.state_dict().values()
    return sum(x.numel() * (dtype.itemsize if x.is_floating_point() else x.element_size()) for x in state)


def _on_cpu(net: nn.Module) -> nn.Module:
    on_cpu = next(net.parameters()).device.type == "cpu"
    return net if on_cpu else copy.deepcopy(net).cpu()


def _spec(batch: int, size: int) -> EngineSpec:
    return EngineSpec("classifier", (TensorSpec("pixels", (batch, 3, size, size)),), ("logits",))


def _images(spec: EngineSpec) -> Tensor:
    return torch.rand(spec.inputs[0].shape, generator=torch.Generator().manual_seed(0))


def _eager(net: nn.Module, size: int) -> Iterator[Latency]:
    for batch in BATCHES:
        yield _timed("eager", batch, net, _images(_spec(batch, size)))


class _Engine(nn.Module):
    """The network as backends want it: a tuple of its outputs."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        return (self.net(pixels),)


def _compiled(
    net: nn.Module, spec: EngineSpec, compiled: Sequence[Backend], times: list[Latency], refused: list[str]
) -> None:
    """One batch size in each backend; they share its ONNX file."""
    images = _images(spec)
    with tempfile.TemporaryDirectory() as folder:
        graph = Graph(spec, lambda precision: _Engine(net), (images,), Path(folder))
        for one in compiled:
            if reasons := one.reasons(spec):
                refused.append(f"{one.name}: {reasons[0]}")
                continue
            built = Path(folder) / one.name
            built.mkdir()
            try:
                one.build(graph, spec, built)
            except EngineBuildError as error:
                refused.append(f"{one.name}: {error}")
                continue
            with one.open(spec, built) as engine:
                times.append(_timed(one.name, spec.batch, engine.run, images))


def _timed(name: str, batch: int, run: Callable[[Tensor], object], images: Tensor) -> Latency:
    from torch.utils.benchmark import Timer  # where nothing is measured it would only warn of a missing GPU

    threads = torch.get_num_threads()
    timer = Timer("run(images)", globals={"run": run, "images": images}, num_threads=threads)
    return Latency(name, batch, timer.blocked_autorange(min_run_time=_MIN_RUN_S).median * 1e3, threads)
