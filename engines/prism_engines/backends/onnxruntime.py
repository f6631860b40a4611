"""ONNX Runtime on the CPU or, with its GPU wheel, through CUDA or TensorRT."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from prism_engines.backends.padded import PaddedEngine
from prism_engines.backends.reasons import cuda_reasons, extra, module_reasons, precision_reasons
from prism_engines.caches import FOLDER as CACHE_FOLDER
from prism_engines.errors import EngineInputError
from prism_engines.graph import Graph
from prism_engines.onnx_export import IR_VERSION, OPSET, onnx_files
from prism_engines.quiet import root_cause
from prism_engines.spec import EngineSpec, Precision, cuda_index, is_cuda

FILE = "model.onnx"
CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
#: Both wheels hold the module ``onnxruntime``: one overwrites the other.
GPU_WHEEL = f"run: pip uninstall --yes onnxruntime, then {extra('gpu').removeprefix('run: ')}"
#: Only errors: its warnings about where small shape operators run are not for our users.
LOG_ERRORS = 3
#: ONNX Runtime's names of tensor types.
DTYPES = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(double)": torch.float64,
    "tensor(int64)": torch.int64,
    "tensor(int32)": torch.int32,
    "tensor(bool)": torch.bool,
}


class OnnxRuntimeBackend:
    """Microsoft's inference library. The stored engine is the ONNX file itself."""

    name = "onnxruntime"
    precisions: tuple[Precision, ...] = ("fp32", "fp16")

    def version(self) -> str:
        """Version of ONNX Runtime, or an empty string."""
        # Its wheels have several names (onnxruntime, onnxruntime-gpu), so the module is asked.
        missing = module_reasons("onnxruntime", remedy=extra("cpu"))
        return "" if missing else str(importlib.import_module("onnxruntime").__version__)

    def target(self, device: str = "cpu") -> str:
        """The execution provider that does the work."""
        return _provider(device)

    def reasons(self, spec: EngineSpec) -> list[str]:
        """Why it cannot build here."""
        missing = [*module_reasons("onnx", "onnxscript", remedy=extra("cpu")), *self.run_reasons(spec)]
        return missing or _session_reasons()

    def run_reasons(self, spec: EngineSpec) -> list[str]:
        """Why an engine cannot run here."""
        if missing := module_reasons("onnxruntime", remedy=extra("gpu" if spec.on_cuda else "cpu")):
            return missing
        reasons = precision_reasons(self.name, self.precisions, spec)
        if spec.on_cuda and _provider(spec.device) == CPU:
            problem = f"this onnxruntime has no {CUDA}, this run is on {spec.device}; {GPU_WHEEL}"
            return [*reasons, *(cuda_reasons() or [problem])]
        if spec.precision == "fp16" and not spec.on_cuda:
            reasons.append(f"onnxruntime computes fp16 on a GPU only, this run is on {spec.device}; choose fp32")
        return reasons

    def build(self, graph: Graph, spec: EngineSpec, folder: Path) -> None:
        """Copy the ONNX file and its external data."""
        for part in onnx_files(graph.onnx(spec.precision)):
            shutil.copyfile(part, folder / part.name)

    def open(self, spec: EngineSpec, folder: Path, streams: int = 1) -> PaddedEngine:
        """Optimise the stored graph for this machine; one session serves every thread."""
        return _OnnxRuntimeEngine(spec, folder, _provider(spec.device), streams).open()


def open_onnx(graph: Graph, precision: Precision, folder: Path) -> PaddedEngine:
    """The graph's ONNX file on the CPU in any precision it has kernels for: to check what another backend reads."""
    spec = replace(graph.spec, precision=precision, device="cpu")
    OnnxRuntimeBackend().build(graph, spec, folder)
    return _OnnxRuntimeEngine(spec, folder, CPU).open()


class _OnnxRuntimeEngine(PaddedEngine):
    def __init__(self, spec: EngineSpec, folder: Path, provider: str, streams: int = 1) -> None:
        super().__init__(spec, "cpu" if provider == CPU else "cuda", streams)
        self.folder, self.provider = folder, provider

    def _load(self) -> list[Any]:
        runtime = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = max(1, torch.get_num_threads() // self.streams)
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = LOG_ERRORS
        gpu = [(one, self._provider_options(one)) for one in _gpu_providers(self.provider)]
        wanted: list[Any] = [*gpu, CPU]
        try:
            session = runtime.InferenceSession(str(self.folder / FILE), options, providers=wanted)
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise EngineInputError(f"onnxruntime does not open part {self.name}: {root_cause(error)}") from error
        # A provider that fails to load is replaced by the next one without an error.
        if session.get_providers()[0] != self.provider:
            raise EngineInputError(f"onnxruntime did not load {self.provider}; install its CUDA libraries")
        return [session] * self.streams

    def _provider_options(self, provider: str) -> dict[str, Any]:
        """The GPU, and where its TensorRT provider keeps the engines that it builds when a session is made."""
        options: dict[str, Any] = {"device_id": cuda_index(self.spec.device)}
        cache = self.folder / CACHE_FOLDER
        with suppress(OSError):  # a store that cannot be written to: it builds them each time
            cache.mkdir(exist_ok=True)
        if provider == TENSORRT and os.access(cache, os.W_OK):
            for kind in ("engine", "timing"):
                options |= {f"trt_{kind}_cache_enable": True, f"trt_{kind}_cache_path": str(cache)}
        return options

    def _run_full(self, handle: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        session, device = handle, inputs[0].device
        sizes = [(DTYPES[out.type], out.shape) for out in session.get_outputs()]
        outputs = tuple(torch.empty(shape, dtype=dtype, device=device) for dtype, shape in sizes)
        binding = session.io_binding()
        for tensor, x in zip(self.spec.inputs, inputs, strict=True):
            binding.bind_input(tensor.name, *_place(x))
        for name, out in zip(self.spec.outputs, outputs, strict=True):
            binding.bind_output(name, *_place(out))
        # A session's stream is fixed when it is made, and torch's current one is not: ONNX Runtime works on its own, so
        # the host waits before it, and in it until the GPU is done.
        if device.type == "cuda":
            torch.cuda.current_stream(device).synchronize()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return outputs


def _session_reasons() -> list[str]:
    """Why it does not open a graph of one operator, in the formats that :func:`export_onnx` writes."""
    import onnx
    import onnxruntime

    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "probe", value[:1], value[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), providers=[CPU])
    except Exception as error:  # ONNX Runtime's errors share no base class
        return [f"onnxruntime does not open a graph of opset {OPSET} ({root_cause(error)}); {extra('cpu')}"]
    return []


def _place(x: torch.Tensor) -> tuple[str, int, Any, tuple[int, ...], int]:
    """Device, its index, numpy's dtype, shape and address: what a binding asks for."""
    dtype = torch.empty(0, dtype=x.dtype).numpy().dtype
    return x.device.type, x.device.index or 0, dtype, tuple(x.shape), x.data_ptr()


def _gpu_providers(provider: str) -> list[str]:
    """The provider, and what takes the operators that it leaves, on the same GPU."""
    return {CPU: [], CUDA: [CUDA], TENSORRT: [TENSORRT, CUDA]}[provider]


def _provider(device: str) -> str:
    """The fastest execution provider that can work on ``device``."""
    if not is_cuda(device):
        return CPU
    available = importlib.import_module("onnxruntime").get_available_providers()
    if cuda_reasons() or CUDA not in available:
        return CPU
    # Its GPU wheel lists TensorRT even where TensorRT's libraries are absent.
    return TENSORRT if TENSORRT in available and importlib.util.find_spec("tensorrt") else CUDA
