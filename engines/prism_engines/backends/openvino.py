"""OpenVINO on the CPU: one float32 graph, computed in float32 or in bfloat16."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Any

import torch

from prism_engines.backends.padded import PaddedEngine
from prism_engines.backends.reasons import cpu_only_reasons, extra, module_reasons, precision_reasons
from prism_engines.errors import EngineBuildError
from prism_engines.graph import Graph
from prism_engines.quiet import quiet
from prism_engines.spec import EngineSpec, Precision

#: OpenVINO's own choice on a CPU with bfloat16 is bfloat16, so float32 must be asked for.
HINTS = {"fp32": "f32", "bf16": "bf16"}
FILE = "model.xml"


class OpenVinoBackend:
    """Intel's inference library. The stored graph is float32; the precision is decided when it is opened."""

    name = "openvino"
    precisions: tuple[Precision, ...] = ("fp32", "bf16")

    def version(self) -> str:
        """Version of OpenVINO, or an empty string."""
        try:
            return distribution_version("openvino")
        except PackageNotFoundError:
            return ""

    def target(self, device: str = "cpu") -> str:
        """The stored graph is compiled when it is opened, so any CPU will do."""
        return "cpu"

    def reasons(self, spec: EngineSpec) -> list[str]:
        """Why it cannot build here."""
        return [*module_reasons("onnx", "onnxscript", remedy=extra("cpu")), *self.run_reasons(spec)]

    def run_reasons(self, spec: EngineSpec) -> list[str]:
        """Why an engine cannot run here."""
        if missing := module_reasons("openvino", remedy=extra("cpu")):
            return missing
        reasons = [*cpu_only_reasons(self.name, spec), *precision_reasons(self.name, self.precisions, spec)]
        return [*reasons, *(_device_reasons() or _bf16_reasons(spec))]

    def build(self, graph: Graph, spec: EngineSpec, folder: Path) -> None:
        """Write OpenVINO's form of the float32 graph."""
        import openvino

        source = graph.onnx("fp32")
        try:
            with quiet():
                model = openvino.Core().read_model(source)
                openvino.save_model(model, folder / FILE, compress_to_fp16=False)
        except RuntimeError as error:
            raise EngineBuildError(f"openvino refuses part {spec.part}: {_reason(error)}") from error

    def open(self, spec: EngineSpec, folder: Path, streams: int = 1) -> PaddedEngine:
        """Compile the stored graph for this CPU; streams share the weights and divide torch's number of threads."""
        return _OpenVinoEngine(spec, folder, streams).open()


class _OpenVinoEngine(PaddedEngine):
    def __init__(self, spec: EngineSpec, folder: Path, streams: int) -> None:
        super().__init__(spec, streams=streams)
        self.folder = folder

    def _load(self) -> list[Any]:
        import openvino

        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": self.streams,
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": HINTS[self.spec.precision],
        }
        compiled = openvino.Core().compile_model(str(self.folder / FILE), "CPU", settings)
        return [compiled.create_infer_request() for _ in range(self.streams)]

    def _run_full(self, handle: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        arrays = {tensor.name: x.numpy() for tensor, x in zip(self.spec.inputs, inputs, strict=True)}
        # Inputs are read in place. Outputs are the request's own memory, which the next run overwrites: copied.
        results = handle.infer(arrays, share_inputs=True, share_outputs=True)
        return tuple(torch.from_numpy(results[name].copy()) for name in self.spec.outputs)


def _reason(error: RuntimeError) -> str:
    """The line of a message that says something; the places in OpenVINO's source that it passed come before."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith("Exception from ")), "no message")


def _device_reasons() -> list[str]:
    import openvino

    try:  # the list of its devices would start every other one too
        openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")
    except RuntimeError as error:
        return [f"openvino has no CPU device ({_reason(error)}); reinstall it, {extra('cpu')}"]
    return []


def _bf16_reasons(spec: EngineSpec) -> list[str]:
    import openvino

    if spec.precision != "bf16" or "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return []
    return ["this CPU has no bfloat16 arithmetic (AVX512_BF16 or AMX); choose fp32"]
