"""AOTInductor: torch's own compiler, run ahead of time; opening an engine needs no compiler."""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import platform
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import torch

from prism_engines.backends.padded import PaddedEngine
from prism_engines.backends.reasons import bf16_gpu_reasons, cuda_reasons, precision_reasons
from prism_engines.errors import EngineBuildError
from prism_engines.graph import Graph
from prism_engines.quiet import quiet, root_cause
from prism_engines.spec import EngineSpec, Precision, cuda_index, is_cuda

FILE = "model.pt2"
#: Where the CUDA toolkit lies when nothing says so: torch's own guess.
CUDA_FOLDER = Path("/usr/local/cuda")
#: How long the compiler may take to read two headers; a busy machine is slow.
COMPILER_TIMEOUT_S = 120


class InductorBackend:
    """One shared library a part, for the GPU of the run's device, else for this CPU."""

    name = "inductor"
    precisions: tuple[Precision, ...] = ("fp32", "bf16", "fp16")

    def version(self) -> str:
        """Version of torch."""
        return str(torch.__version__)

    def target(self, device: str = "cpu") -> str:
        """The GPU's compute capability, or a digest of the CPU's instruction sets; code is compiled for these."""
        if is_cuda(device):
            gpu = " {}.{}".format(*torch.cuda.get_device_capability(device)) if not cuda_reasons() else ""
            return f"cuda{gpu} autotuned"
        sets = sorted(name for name, has in torch.cpu.get_capabilities().items() if has is True)
        digest = hashlib.sha256(" ".join(sets).encode()).hexdigest()[:12]
        return f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()} {digest}"

    def reasons(self, spec: EngineSpec) -> list[str]:
        """Why it cannot build here."""
        return [*compiler_reasons(), *(toolkit_reasons() if spec.on_cuda else []), *self.run_reasons(spec)]

    def run_reasons(self, spec: EngineSpec) -> list[str]:
        """Why an engine cannot run here."""
        reasons = precision_reasons(self.name, self.precisions, spec)
        if spec.on_cuda:
            return [*reasons, *(cuda_reasons() or bf16_gpu_reasons(spec))]
        if spec.precision == "fp16":
            reasons.append(f"inductor builds fp16 for a CUDA GPU only, this run is on {spec.device}; choose bf16")
        return reasons

    def build(self, graph: Graph, spec: EngineSpec, folder: Path) -> None:
        """Compile to one package. Intermediate files go to torch's cache (``TORCHINDUCTOR_CACHE_DIR``, else /tmp)."""
        inductor = importlib.import_module("torch._inductor")
        settings = compiler_settings(graph.inputs[0].device)
        try:
            with quiet(), torch.no_grad():
                program = torch.export.export(graph.module(spec.precision), graph.inputs)
                inductor.aoti_compile_and_package(program, package_path=str(folder / FILE), inductor_configs=settings)
        except Exception as error:  # torch.export and the compiler share no base class
            raise EngineBuildError(f"inductor cannot compile part {spec.part}: {root_cause(error)}") from error

    def open(self, spec: EngineSpec, folder: Path, streams: int = 1) -> PaddedEngine:
        """Load the compiled package; threads take turns in it, whatever ``streams`` says.

        On a GPU a turn is over when all work is started, so runs on several streams overlap there.
        """
        return _InductorEngine(spec, folder).open()


class _InductorEngine(PaddedEngine):
    def __init__(self, spec: EngineSpec, folder: Path) -> None:
        super().__init__(spec)
        self.folder = folder

    def _load(self) -> list[Any]:
        options: dict[str, Any] = {}
        if self.spec.on_cuda:
            # Left to itself, a package lets the host wait at each run until the GPU has finished the one before. That
            # guards what only threads could mix up, and they have one handle. Runs share nothing but the weights: what
            # they compute in, they get from torch, on its current stream.
            options = {"device_index": cuda_index(self.spec.device), "run_single_threaded": True}
        package = importlib.import_module("torch._inductor").aoti_load_package(str(self.folder / FILE), **options)
        self.device_type = package.get_metadata()["AOTI_DEVICE_KEY"]
        return [package]

    def _run_full(self, handle: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(handle(*inputs))


def compiler_settings(device: torch.device) -> dict[str, Any]:
    """What Inductor is told for a device.

    Freezing packs weights for the CPU's matrix units; on a GPU it would only bake them into the library. There kernels
    for convolutions and matrix products are measured and the fastest kept. CUDA graphs are not to be had: Inductor
    turns them off when it compiles ahead of time.
    """
    return {"freezing": True} if device.type == "cpu" else {"freezing": False, "max_autotune": True}


def toolkit_reasons() -> list[str]:
    """Why CUDA's headers, which the code for a GPU includes, are not found where Inductor looks for them."""
    home = _cuda_home()
    if home is not None and (home / "include" / "cuda_fp16.h").is_file():
        return []
    where = "CUDA_HOME is not set and there is no nvcc" if home is None else f"{home} holds no include/cuda_fp16.h"
    return [f"inductor needs the CUDA toolkit for a GPU ({where}); install it and set CUDA_HOME to its folder"]


def _cuda_home() -> Path | None:
    """Where torch looks for the CUDA toolkit."""
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if named:
        return Path(named)
    if nvcc := shutil.which("nvcc"):
        return Path(nvcc).parent.parent
    return CUDA_FOLDER if CUDA_FOLDER.exists() else None


def compiler_reasons() -> list[str]:
    """Why the C++ compiler cannot build what Inductor writes."""
    remedy = "install a C++ compiler with OpenMP and Python's headers; on Debian: apt-get install g++ python3-dev"
    compiler = os.environ.get("CXX", "g++")  # Inductor's own default
    path = shutil.which(compiler)
    if path is None:
        return [f"the C++ compiler {compiler} is not on the path; {remedy}"]
    problem = _compiler_problem(path)
    return [f"{compiler} fails: {problem}; {remedy}"] if problem else []


@functools.cache
def _compiler_problem(path: str) -> str:
    """What a compiler says against the headers that all of Inductor's sources include; empty when it takes them."""
    command = [path, "-x", "c++", "-fopenmp", "-fsyntax-only", f"-I{sysconfig.get_path('include')}", "-"]
    source = "#include <Python.h>\n#include <omp.h>\n"
    try:
        done = subprocess.run(command, input=source, capture_output=True, text=True, timeout=COMPILER_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"it took more than {COMPILER_TIMEOUT_S} s to read two headers"
    except OSError as error:
        return error.strerror or str(error)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no message"])[-1]
