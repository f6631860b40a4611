"""TensorRT: the data-centre library (``tensorrt``) and the one for RTX GPUs (``tensorrt_rtx``) share one API.

Networks are strongly typed: the precision is that of the ONNX graph. Every shape is static, so no profile is needed.
TensorRT-RTX builds without a GPU and specialises its kernels on the GPU when an engine is opened; the data-centre
library measures its kernels, so it builds on the GPU that will run them.
"""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any, Literal

import torch

from prism_engines.backends.padded import PaddedEngine
from prism_engines.backends.reasons import (
    bf16_gpu_reasons,
    cuda_only_reasons,
    extra,
    module_reasons,
    precision_reasons,
)
from prism_engines.backends.tensorrt_engine import FILE, TensorRtEngine, on_device, quiet_logger
from prism_engines.caches import cache_file, keep_cache, read_cache
from prism_engines.errors import EngineBuildError, EngineInputError
from prism_engines.graph import Graph
from prism_engines.quiet import root_cause
from prism_engines.scratch import ScratchMemory, shared_scratch
from prism_engines.spec import EngineSpec, Precision, is_cuda

REMEDIES = {"tensorrt": f"on data-centre GPUs {extra('tensorrt')}", "tensorrt_rtx": extra("trt")}
#: GPUs that TensorRT-RTX's support matrix (1.0 to 1.5) lists and one portable engine serves. It also lists SM75, for
#: which an engine must be built on purpose. A100 (SM80), H100 (SM90) and B200 (SM100) are not in it.
PORTABLE = ("SM86", "SM89", "SM120", "SM121")


class TensorRtBackend:
    """NVIDIA's inference library.

    Args:
        module: which of the two libraries.
        workspace_bytes: memory a layer may use for intermediate results; 4 GiB is our choice, not a measurement.
        compute_capabilities: GPUs that a TensorRT-RTX engine serves, such as ``("SM89", "SM120")``. Empty for the
            portable engine (:data:`PORTABLE`). ``SM75`` must be asked for: it has no float32 matrix product.
        cache: folder in which the data-centre library keeps its measurements from build to build, a file a GPU.
        scratch: what the engines that it opens compute in; the device's own, shared by all of them, when not given.
    """

    precisions: tuple[Precision, ...] = ("fp32", "fp16", "bf16")

    def __init__(
        self,
        module: Literal["tensorrt", "tensorrt_rtx"],
        workspace_bytes: int = 4 * 2**30,
        compute_capabilities: tuple[str, ...] = (),
        cache: Path | None = None,
        scratch: ScratchMemory | None = None,
    ) -> None:
        self.name: str = module
        self.workspace_bytes, self.compute_capabilities = workspace_bytes, compute_capabilities
        self.cache, self.scratch = cache, scratch

    def version(self) -> str:
        """Version of the library, or an empty string."""
        return "" if self._missing() else str(importlib.import_module(self.name).__version__)

    def target(self, device: str = "cuda") -> str:
        """The GPUs that an engine built here serves."""
        if self.name == "tensorrt_rtx":
            return "+".join(self.compute_capabilities) or "SM80 and later"
        if not torch.cuda.is_available():
            return "cuda"
        device = device if is_cuda(device) else "cuda"
        return f"{torch.cuda.get_device_name(device)} {_compute_capability(device)}"

    def reasons(self, spec: EngineSpec) -> list[str]:
        """Why it cannot build here."""
        exporter = extra("trt" if self.name == "tensorrt_rtx" else "tensorrt")
        missing = [*self._missing(), *module_reasons("onnx", "onnxscript", remedy=exporter)]
        gpu = [*cuda_only_reasons(self.name, spec), *bf16_gpu_reasons(spec)] if self.name == "tensorrt" else []
        builds = [f"data-centre TensorRT builds on its target GPU only: {reason}" for reason in gpu]
        reasons = [*missing, *precision_reasons(self.name, self.precisions, spec), *builds]
        return reasons or _builder_reasons(self.name)

    def run_reasons(self, spec: EngineSpec) -> list[str]:
        """Why an engine cannot run here."""
        reasons = [*self._missing(), *(cuda_only_reasons(self.name, spec) or bf16_gpu_reasons(spec))]
        if reasons or self.name == "tensorrt" or _compute_capability(spec.device) in self._served():
            return reasons
        capability, remedy = _compute_capability(spec.device), f"choose tensorrt; {REMEDIES['tensorrt']}"
        return [f"a TensorRT-RTX engine for {', '.join(self._served())} does not serve {capability}; {remedy}"]

    def build(self, graph: Graph, spec: EngineSpec, folder: Path) -> None:
        """Build from the ONNX graph of the wanted precision."""
        trt = importlib.import_module(self.name)
        source = graph.onnx(spec.precision)
        logger = quiet_logger(trt)
        builder = trt.Builder(logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, logger)
        if not parser.parse_from_file(str(source)):
            raise EngineBuildError(f"{self.name} cannot read part {spec.part}: {_first_error(parser)}")
        with on_device(spec.device):
            config = self._config(trt, builder)
            timings = self._timings(trt, config, spec.device)
            plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise EngineBuildError(f"{self.name} cannot build part {spec.part}: {logger.first_error}")
        (folder / FILE).write_bytes(plan)
        if timings is not None:
            keep_cache(timings[0], bytes(timings[1].serialize()))

    def open(self, spec: EngineSpec, folder: Path, streams: int = 1) -> PaddedEngine:
        """Load the engine onto the GPU of ``spec.device``; streams share its weights, and engines their scratch memory.

        TensorRT-RTX keeps the kernels that it compiles for this GPU below ``folder``, for the next time.
        """
        scratch = self.scratch or shared_scratch(spec.device)
        return TensorRtEngine(importlib.import_module(self.name), spec, folder, streams, scratch).open()

    def _missing(self) -> list[str]:
        return module_reasons(self.name, remedy=REMEDIES[self.name])

    def _served(self) -> tuple[str, ...]:
        """GPUs that its engines run on, as far as the installed TensorRT-RTX knows them."""
        if self.compute_capabilities:
            return self.compute_capabilities
        known = importlib.import_module(self.name).ComputeCapability
        return tuple(one for one in PORTABLE if hasattr(known, one))

    def _config(self, trt: Any, builder: Any) -> Any:
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, self.workspace_bytes)
        if self.name == "tensorrt_rtx":
            config.num_compute_capabilities = len(self.compute_capabilities)
            for i, capability in enumerate(self.compute_capabilities):
                config.set_compute_capability(_known_capability(trt, capability), i)
        return config

    def _timings(self, trt: Any, config: Any, device: str) -> tuple[Path, Any] | None:
        """Earlier builds' measurements, and their file: the build reads and adds to them. TensorRT-RTX takes none."""
        if self.cache is None or self.name != "tensorrt":
            return None
        file = cache_file(self.cache, self.name, str(trt.__version__), f"{self.target(device)}.timing")
        seen = config.create_timing_cache(read_cache(file))
        if seen is None or not config.set_timing_cache(seen, False):  # damaged, or another GPU's
            seen = config.create_timing_cache(b"")
            config.set_timing_cache(seen, False)
        return file, seen  # which must outlive the build


@functools.cache
def _builder_problem(module: str) -> str:
    """What the library says when it is asked for a builder, which takes it seconds; empty when it makes one."""
    trt = importlib.import_module(module)
    logger = quiet_logger(trt)
    try:
        trt.Builder(logger).create_network(0)
    except Exception as error:  # the binding's own, when the library gave it nothing
        return root_cause(error) if logger.first_error == "no message" else str(logger.first_error)
    return ""


def _builder_reasons(module: str) -> list[str]:
    problem = _builder_problem(module)
    return [f"{module} makes no builder ({problem}); mend the NVIDIA driver, or {REMEDIES[module]}"] if problem else []


def _first_error(parser: Any) -> str:
    if parser.num_errors == 0:
        return "no message"
    error = parser.get_error(0)
    where = f"node {error.node_name()} ({error.node_operator()}): " if error.node_operator() else ""
    return where + str(error.desc()).strip().splitlines()[0]


def _known_capability(trt: Any, name: str) -> Any:
    known = [one for one in dir(trt.ComputeCapability) if one.startswith("SM")]
    if name not in known:
        raise EngineInputError(f"compute capability {name!r} is unknown to TensorRT-RTX, expected: {', '.join(known)}")
    return getattr(trt.ComputeCapability, name)


def _compute_capability(device: str) -> str:
    return "SM{}{}".format(*torch.cuda.get_device_capability(device))
