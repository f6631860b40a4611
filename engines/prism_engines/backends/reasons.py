"""Why something cannot run here: the sentences that several backends share."""

from __future__ import annotations

import importlib

import torch

from prism_engines.quiet import quiet
from prism_engines.spec import EngineSpec, Precision


def module_reasons(*modules: str, remedy: str) -> list[str]:
    """One sentence for each module that does not import."""
    reasons = []
    for module in modules:
        try:
            with quiet():
                importlib.import_module(module)
        except ModuleNotFoundError as error:
            reasons.append(f"the Python module {error.name or module} is not installed; {remedy}")
        except Exception as error:  # a broken binary raises what it likes
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            reasons.append(f"{module} is installed but does not import ({first}); {remedy}")
    return reasons


def extra(name: str) -> str:
    """The command that installs one of our extras."""
    return f"run: pip install 'prism-fast[{name}]'"


def precision_reasons(backend: str, precisions: tuple[Precision, ...], spec: EngineSpec) -> list[str]:
    """A sentence when the backend does not know the spec's precision."""
    if spec.precision in precisions:
        return []
    return [f"{backend} does not build {spec.precision}; choose {' or '.join(precisions)}"]


def cpu_only_reasons(backend: str, spec: EngineSpec) -> list[str]:
    """A sentence when the spec's tensors lie on a GPU and the backend computes on the CPU alone."""
    if not spec.on_cuda:
        return []
    return [f"{backend} runs on the CPU only, this run is on {spec.device}; choose tensorrt or inductor"]


def cuda_only_reasons(backend: str, spec: EngineSpec) -> list[str]:
    """Why a backend that computes on a GPU alone cannot run the spec."""
    if not spec.on_cuda and torch.cuda.is_available():
        return [f"{backend} runs on a GPU only, this run is on {spec.device}; set sampling.device to cuda"]
    return cuda_reasons()


def bf16_gpu_reasons(spec: EngineSpec) -> list[str]:
    """A sentence when the GPU is older than bfloat16 arithmetic, which came with compute capability 8.0."""
    if spec.precision != "bf16" or not spec.on_cuda or not torch.cuda.is_available():
        return []
    major, minor = torch.cuda.get_device_capability(spec.device)
    return (
        [] if major >= 8 else [f"a GPU of compute capability {major}.{minor} has no bfloat16 arithmetic; choose fp16"]
    )


def cuda_reasons() -> list[str]:
    """A sentence when torch cannot use a GPU."""
    if torch.cuda.is_available():
        return []
    if torch.version.cuda is None:
        return ["torch sees no CUDA GPU, for it is built without CUDA; install the CUDA build from its package index"]
    machine = f"an NVIDIA GPU and a driver for CUDA {torch.version.cuda}"
    return [f"torch sees no CUDA GPU; run on a machine with {machine}"]
