"""Workers of one machine share its cores and GPUs."""

from __future__ import annotations

import os


def cores_of(number: int, workers: int) -> set[int]:
    """Cores for worker ``number`` (from 0) of ``workers``: equally many for each; all of ours if they are too few.

    A core may be left over: the number of threads can change the last bits of an image.
    """
    cores, each = sorted(os.sched_getaffinity(0)), len(os.sched_getaffinity(0)) // workers
    return set(cores[number * each : (number + 1) * each] if each else cores)


def gpu_of(number: int, device: str) -> dict[str, str]:
    """The environment that shows worker ``number`` (from 0) one GPU; empty when the run is not on GPUs."""
    if not device.startswith("cuda"):
        return {}
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(gpu) for gpu in range(torch.cuda.device_count())]
    return {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}
