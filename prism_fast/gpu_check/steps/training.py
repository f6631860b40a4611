"""Twenty steps of the trainer between whose logs nothing may wait for the GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from prism_fast.data.loader import open_loader
from prism_fast.data.loader import reasons as loader_reasons
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.distillation.parallel import World
from prism_fast.distillation.session import LOG_EVERY
from prism_fast.distillation.speed import for_training
from prism_fast.distillation.student import MEAN, STD
from prism_fast.distillation.task import Task
from prism_fast.distillation.train import make_trainer
from prism_fast.distillation.trainer import Trainer
from prism_fast.gpu_check.finding import Finding, Options, failed, passed, raised
from prism_fast.gpu_check.small import draw_run

IMAGES = 32
#: Steps that may wait: libraries set themselves up.
WARM = 3
STEPS = 20
#: What the student of a recipe of one is called.
ONLY = "student"
#: How torch says, in its mode "error", that something waited.
WAITED = "called a synchronizing CUDA operation"


def check(options: Options) -> Finding:
    """The steps, with DALI where it can feed the device, else with the torch loader."""
    run, device = options.folder("training") / "run", torch.device(options.device)
    name = "torch" if loader_reasons("dali", device) else "dali"
    small = {"batch_size": 16, "loader": name, "steps": WARM + STEPS, "warmup_steps": WARM}
    config = draw_run(options, run, IMAGES, "jpg").distill.model_copy(update=small)
    shards = ShardSet.discover(run)
    loader = open_loader(shards, config, device, MEAN, STD)
    try:
        with for_training(device):
            task = Task(config, shards, run.with_name("student"), MEAN, STD, world=World(device))
            losses = train(make_trainer(task, loader))
    except RuntimeError as error:
        if WAITED not in str(error):
            raise
        where = raised(error).found
        return failed(f"a step of the trainer, loader {name}, waits for the GPU: {where}", "a fault of ours: report it")
    finally:
        loader.close()
    found = f"{STEPS} steps of {config.student}, loader {name}: loss {losses[0]:.3g} to {losses[-1]:.3g}"
    return passed(found) if all(map(_finite, losses)) else failed(found, "lower distill.lr")


def train(trainer: Trainer) -> list[float]:
    """Mean losses between logs."""
    for _ in range(WARM):
        trainer.train_step()
    losses = []
    for _ in range(STEPS // LOG_EVERY):
        with no_waiting(trainer.world.device):
            window = [trainer.train_step()[ONLY] for _ in range(LOG_EVERY)]
        losses.append(float(torch.stack(window).mean(0)[0]))
    return losses


@contextmanager
def no_waiting(device: torch.device) -> Iterator[None]:
    """Inside, whatever makes the host wait for a GPU raises a RuntimeError."""
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _finite(loss: float) -> bool:
    return abs(loss) < float("inf")
