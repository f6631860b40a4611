"""Ranks of a training as processes that are forked from one which has imported everything."""

from __future__ import annotations

import multiprocessing
import os
import socket
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from prism_fast.dataset.shard_set import ShardSet
from prism_fast.distillation import Task, train_students
from prism_fast.distillation.parallel import joined
from tests.data.toy import MEAN, STD, config

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])


def start(ranks: int, run: Path, out: Path, recipe: dict[str, object]) -> list[BaseProcess]:
    """As torchrun would, without its agent."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = [CONTEXT.Process(target=_work, args=(rank, ranks, port, run, out, recipe)) for rank in range(ranks)]
    for process in made:
        process.start()
    return list(made)


def finish(processes: list[BaseProcess]) -> None:
    """Wait until all have ended well."""
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def _work(rank: int, ranks: int, port: int, run: Path, out: Path, recipe: dict[str, object]) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    torch.set_num_threads(1)
    with joined("cpu") as world:
        train_students(Task(config(**recipe), ShardSet.discover(run), out, MEAN, STD, world=world))
