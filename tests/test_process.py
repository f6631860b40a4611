"""How many threads torch is given."""

from __future__ import annotations

import os

import pytest
import torch

from prism_fast import process
from tests.cli.conftest import restored


@pytest.mark.parametrize(
    ("asked", "threads"),
    [("1", 1), (" 3 ", 3), ("4", 4), ("64", 4), ("0", 4), ("", 4), ("-2", 4), ("two", 4), ("2,1", 4), (None, 4)],
)
def test_omp_num_threads_asks_for_fewer_than_there_are_cores(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5, 7})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    with restored():
        process.prepare()
        assert torch.get_num_threads() == threads


def test_cudnn_adds_in_one_order() -> None:
    """Else the bytes of a run differ from process to process on one GPU."""
    with restored():
        torch.backends.cudnn.deterministic = False
        process.prepare()
        assert torch.backends.cudnn.deterministic
