"""TensorRT: the data-centre library (``tensorrt``) and the one for RTX GPUs (``tensorrt_rtx``) share one API.

Networks are strongly typed: the precision is that of the ONNX graph. Every shape is static, so no profile is needed.
TensorRT-RTX builds without a GPU and specialises its kernels on the GPU when an engine is opened; the data-centre
library measures its kernels, so it builds on the GPU that will run them.
"""

from __future__ import annotations

import functools
import importlib
from contextlib import AbstractContextManager, nullcontext
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
from prism_engines.errors import EngineBuildError, EngineError, EngineInputError
from prism_engines.graph import Graph
from prism_engines.quiet import root_cause
from prism_engines.spec import EngineSpec, Precision, is_cuda

FILE = "model.engine"
REMEDIES = {
    "tensorrt": "on H100 and newer data-centre GPUs run: pip install tensorrt-cu13",
    "tensorrt_rtx": extra("trt"),
}
#: TensorRT's names of element types.
DTYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT64": torch.int64,
    "INT32": torch.int32,
    "BOOL": torch.bool,
}


class TensorRtBackend:
    """NVIDIA's inference library.

    Args:
        module: which of the two libraries.
        workspace_bytes: memory a layer may use for intermediate results; 4 GiB is our choice, not a measurement.
        compute_capabilities: GPUs that a TensorRT-RTX engine serves, such as ``("SM89", "SM120")``. Empty for the
            portable engine of Ampere and later. ``SM75`` must be asked for: it has no float32 matrix product.
        timing_cache: file in which the data-centre library keeps its measurements from build to build.
    """

    precisions: tuple[Precision, ...] = ("fp32", "fp16", "bf16")

    def __init__(
        self,
        module: Literal["tensorrt", "tensorrt_rtx"],
        workspace_bytes: int = 4 * 2**30,
        compute_capabilities: tuple[str, ...] = (),
        timing_cache: Path | None = None,
    ) -> None:
        self.name: str = module
        self.workspace_bytes, self.timing_cache = workspace_bytes, timing_cache
        self.compute_capabilities = compute_capabilities

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
        missing = [*self._missing(), *module_reasons("onnx", "onnxscript", remedy=extra("trt"))]
        gpu = [*cuda_only_reasons(self.name, spec), *bf16_gpu_reasons(spec)] if self.name == "tensorrt" else []
        builds = [f"data-centre TensorRT builds on its target GPU only: {reason}" for reason in gpu]
        reasons = [*missing, *precision_reasons(self.name, self.precisions, spec), *builds]
        return reasons or _builder_reasons(self.name)

    def run_reasons(self, spec: EngineSpec) -> list[str]:
        """Why an engine cannot run here."""
        reasons = [*self._missing(), *(cuda_only_reasons(self.name, spec) or bf16_gpu_reasons(spec))]
        if reasons or self.name == "tensorrt" or self._serves(_compute_capability(spec.device)):
            return reasons
        capability, remedy = _compute_capability(spec.device), f"build for it, or {REMEDIES['tensorrt']}"
        return [f"a TensorRT-RTX engine for {self.target()} does not serve {capability}; {remedy}"]

    def build(self, graph: Graph, spec: EngineSpec, folder: Path) -> None:
        """Build from the ONNX graph of the wanted precision."""
        trt = importlib.import_module(self.name)
        source = graph.onnx(spec.precision)
        logger = _logger(trt)
        builder = trt.Builder(logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, logger)
        if not parser.parse_from_file(str(source)):
            raise EngineBuildError(f"{self.name} cannot read part {spec.part}: {_first_error(parser)}")
        config = self._config(trt, builder)
        with _on(spec.device):
            plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise EngineBuildError(f"{self.name} cannot build part {spec.part}: {logger.first_error}")
        (folder / FILE).write_bytes(plan)
        self._keep_timings(config)

    def open(self, spec: EngineSpec, folder: Path, streams: int = 1) -> PaddedEngine:
        """Load the engine onto the GPU of ``spec.device``; each stream takes a context's memory."""
        return _TensorRtEngine(self.name, spec, folder, streams).open()

    def _missing(self) -> list[str]:
        return module_reasons(self.name, remedy=REMEDIES[self.name])

    def _serves(self, capability: str) -> bool:
        """Whether engines run on a GPU; the portable one serves what TensorRT-RTX knows, from Ampere on."""
        if self.compute_capabilities:
            return capability in self.compute_capabilities
        known = importlib.import_module(self.name).ComputeCapability
        return capability != "SM75" and hasattr(known, capability)

    def _config(self, trt: Any, builder: Any) -> Any:
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, self.workspace_bytes)
        if self.name == "tensorrt_rtx":
            config.num_compute_capabilities = len(self.compute_capabilities)
            for i, capability in enumerate(self.compute_capabilities):
                config.set_compute_capability(_known_capability(trt, capability), i)
        elif self.timing_cache is not None:
            seen = self.timing_cache.read_bytes() if self.timing_cache.exists() else b""
            config.set_timing_cache(config.create_timing_cache(seen), False)
        return config

    def _keep_timings(self, config: Any) -> None:
        if self.name == "tensorrt" and self.timing_cache is not None:
            self.timing_cache.write_bytes(config.get_timing_cache().serialize())


class _TensorRtEngine(PaddedEngine):
    def __init__(self, module: str, spec: EngineSpec, folder: Path, streams: int) -> None:
        super().__init__(spec, "cuda", streams)
        self.module, self.folder = module, folder

    def _load(self) -> list[Any]:
        trt = importlib.import_module(self.module)
        logger = _logger(trt)
        with _on(self.spec.device):
            runtime = trt.Runtime(logger)
            engine = runtime.deserialize_cuda_engine((self.folder / FILE).read_bytes())
            if engine is None:
                raise EngineInputError(f"{self.module} does not open part {self.name}: {logger.first_error}")
            contexts = [engine.create_execution_context() for _ in range(self.streams)]
        if None in contexts:  # it allocates a context's memory at once, and says what is wrong to the logger alone
            raise EngineError(f"{self.module} gives no context for part {self.name}: {logger.first_error}")
        # A context needs its engine, and the engine its runtime.
        return [(runtime, engine, context) for context in contexts]

    def _run_full(self, handle: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        _, engine, context = handle
        outputs = tuple(self._empty(engine, name, inputs[0].device) for name in self.spec.outputs)
        names = (*(tensor.name for tensor in self.spec.inputs), *self.spec.outputs)
        for name, tensor in zip(names, (*inputs, *outputs), strict=True):
            context.set_tensor_address(name, tensor.data_ptr())
        # torch frees in stream order, so padded inputs may go out of scope before the GPU has read them.
        with _on(str(inputs[0].device)):
            done = context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
        if not done:
            raise EngineInputError(f"{self.module} did not run part {self.name}; rebuild the engine on this machine")
        return outputs

    def _empty(self, engine: Any, name: str, device: torch.device) -> torch.Tensor:
        dtype = DTYPES[engine.get_tensor_dtype(name).name]
        return torch.empty(tuple(engine.get_tensor_shape(name)), dtype=dtype, device=device)


def _logger(trt: Any) -> Any:
    """A logger that prints nothing and keeps the first error: the library's calls return only None or False."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # its base class exists only once the library is imported
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.first_error = "no message"

        def log(self, severity: Any, message: str) -> None:
            serious = severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)
            if serious and self.first_error == "no message":
                self.first_error = message.strip().splitlines()[0]

    return Logger()


@functools.cache
def _builder_problem(module: str) -> str:
    """What the library says when it is asked for a builder, which takes it seconds; empty when it makes one."""
    trt = importlib.import_module(module)
    logger = _logger(trt)
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


def _on(device: str) -> AbstractContextManager[object]:
    """The library works on the thread's current GPU: the run's own while inside."""
    return torch.cuda.device(device) if is_cuda(device) and torch.cuda.is_available() else nullcontext()
