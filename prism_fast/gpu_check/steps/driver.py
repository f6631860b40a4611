"""What is there: the card, its driver, CUDA's headers, and the libraries that later steps need."""

from __future__ import annotations

import shutil
import subprocess

import torch
from prism_engines.backends import backends
from prism_engines.backends.inductor import toolkit_reasons

from prism_fast.data.loader import reasons as loader_reasons
from prism_fast.doctor import version_of
from prism_fast.gpu_check.finding import Finding, Options, failed

#: The oldest GPU that the kernels and bfloat16 run on.
OLDEST = (8, 0)
_SIDE = 256


def check(options: Options) -> Finding:
    """The card and the libraries; FAIL only where torch itself does not compute."""
    device = torch.device(options.device)
    a, b = (torch.randn(_SIDE, _SIDE, dtype=torch.float64, generator=_generator(seed)) for seed in (0, 1))
    error = float(((a.to(device) @ b.to(device)).cpu() - a @ b).abs().max())
    if not error < 1e-8:
        return failed(f"a matrix product on {device} is wrong by {error:.3g}", "reinstall torch for this card")
    facts = {"device": name_of(device), "driver": driver_version() if options.cuda else "none"}
    words = [facts["device"], f"driver {facts['driver']}", f"torch {torch.__version__}, CUDA {torch.version.cuda}"]
    if options.cuda and torch.cuda.get_device_capability(device) < OLDEST:
        return Finding("FAIL", ", ".join(words), "the kernels need compute capability 8.0: take a newer card", facts)
    missing = [*toolkit_reasons(), *loader_reasons("dali", device)] if options.cuda else []
    versions = {name: one.version() for name, one in backends().items()}
    versions |= {"dali": version_of("nvidia-dali-cuda130"), "triton": version_of("triton")}
    words += [f"{name} {version or 'is not installed'}" for name, version in versions.items()]
    return Finding("PASS", ", ".join(words), "; ".join(missing), facts)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def name_of(device: torch.device) -> str:
    """A card by its name, compute capability and memory; another device by its own."""
    if device.type != "cuda":
        return str(device)
    card = torch.cuda.get_device_properties(device)
    return f"{card.name} ({card.major}.{card.minor}, {card.total_memory / 2**30:.0f} GiB)"


def driver_version() -> str:
    """NVIDIA's driver as nvidia-smi says it."""
    if program := shutil.which("nvidia-smi"):
        command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.split()[0]
    return "unknown"
