"""What an engine computes and what identifies it: static shapes, precision, content hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from prism_engines.errors import EngineInputError

Precision = Literal["fp32", "bf16", "fp16"]
#: Compute type of each precision; inputs and outputs of an engine keep the dtypes of its spec.
TORCH_DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class TensorSpec:
    """Name, static shape (batch first) and dtype (``float32``, ``int64``, …) of one input."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch knows it."""
        dtype = getattr(torch, self.dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise EngineInputError(f"tensor {self.name}: torch knows no dtype {self.dtype!r}")
        return dtype


@dataclass(frozen=True)
class EngineSpec:
    """One part of a run at one batch size. A smaller batch is padded, so a sample's arithmetic never changes.

    ``device`` is where its inputs lie and its outputs will: ``cpu``, ``cuda`` or ``cuda:1``. In a key, ``target`` says
    what kind of device that is.
    """

    part: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    precision: Precision = "fp32"
    device: str = "cpu"

    @property
    def batch(self) -> int:
        """Rows that one run takes."""
        return self.inputs[0].shape[0]

    @property
    def on_cuda(self) -> bool:
        """Whether its tensors lie on a GPU."""
        return is_cuda(self.device)


@dataclass(frozen=True)
class EngineKey:
    """Everything that decides what an engine is. ``graph`` and ``weights`` are SHA-256, ``inputs`` canonical JSON."""

    part: str
    graph: str
    weights: str
    inputs: str
    precision: str
    backend: str
    backend_version: str
    target: str

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of all fields: the engine's name in a store."""
        return hashlib.sha256(canonical_json(asdict(self)).encode()).hexdigest()


def is_cuda(device: str) -> bool:
    """Whether a device, by name, is a GPU of CUDA."""
    return torch.device(device).type == "cuda"


def cuda_index(device: str) -> int:
    """The number of a CUDA device; without one, the current device's."""
    index = torch.device(device).index
    return torch.cuda.current_device() if index is None else index


def canonical_json(data: Any) -> str:
    """JSON with one spelling for one value: sorted keys, no spaces."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


def inputs_json(spec: EngineSpec) -> str:
    """The part of a key that names inputs and outputs."""
    return canonical_json({"inputs": [asdict(t) for t in spec.inputs], "outputs": list(spec.outputs)})
