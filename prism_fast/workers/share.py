"""Workers of one machine share its cores and GPUs."""

from __future__ import annotations

import os

from prism_fast.config import RunConfig, assign
from prism_fast.errors import InputError
from prism_fast.workers.rank import local_rank_of_torchrun


def cores_of(number: int, workers: int) -> set[int]:
    """Cores for worker ``number`` (from 0) of ``workers``: equally many for each; all of ours if they are too few.

    A core may be left over: the number of threads can change the last bits of an image.
    """
    cores, each = sorted(os.sched_getaffinity(0)), len(os.sched_getaffinity(0)) // workers
    return set(cores[number * each : (number + 1) * each] if each else cores)


def gpu_of(number: int, device: str) -> dict[str, str]:
    """The environment that shows worker ``number`` (from 0) one GPU; empty when the run is not on GPUs.

    The first worker gets the GPU that ``device`` names, those after it the next ones, in turn. CUDA looks at this
    environment once, when it is first called: nothing here calls it, the driver's management library counts the GPUs.

    Raises:
        InputError: ``device`` names a GPU that is not there.
    """
    if not device.startswith("cuda"):
        return {}
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(gpu) for gpu in range(torch.cuda.device_count())]
    first = torch.device(device).index or 0
    if first and first >= len(gpus):
        raise InputError(f"sampling.device is {device}, but there are {len(gpus)} GPUs, counted from 0; name another")
    return {"CUDA_VISIBLE_DEVICES": gpus[(first + number) % len(gpus)]} if gpus else {}


def see_own_gpu(config: RunConfig) -> RunConfig:
    """The run of one of torchrun's ranks, whose process sees one of the machine's GPUs from now on.

    To be called before diffusers is imported: it asks CUDA whether there is a GPU.

    Raises:
        InputError: ``sampling.device`` names a GPU that is not there, or torchrun's number of the rank is none.
    """
    os.environ.update(gpu_of(local_rank_of_torchrun().number - 1, config.sampling.device))
    return with_own_gpu(config)


def with_own_gpu(config: RunConfig) -> RunConfig:
    """The same run for a worker that sees one GPU, its own: that has the number 0, whatever it was before."""
    return assign(config, {"sampling.device": "cuda"}) if config.sampling.device.startswith("cuda") else config
