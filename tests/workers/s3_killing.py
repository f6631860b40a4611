"""Kill workers of a run at ``s3://`` at every point of the protocol and start them again; see test_s3.

A process of its own because it forks: no connection is open in the parent, only in its children. Its arguments: a
folder, and the address of an empty prefix. Prints JSON: faults, and what failed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pyarrow as pa
import torch
from PIL import Image

import prism_fast.storage.s3  # noqa: F401  (imported once, not in every child)
from benchmarks.stub import stub_config
from prism_fast.operations.verify import verify
from prism_fast.storage.faults import POINTS, VARIABLE
from prism_fast.storage.paths import run_path
from prism_fast.workers import leases
from tests.runs import contents
from tests.stubbed import synthesize
from tests.workers.chaos import NOT_REACHED
from tests.workers.killing import forked


def main(folder: Path, address: str) -> dict[str, object]:
    torch.set_num_threads(1)
    pa.Table.from_pylist([{"a": 1}])
    Image.init()
    leases.POLL_S = 0.001
    config = stub_config(folder, images=3, launch={"lease_s": 5.0})
    synthesize(config, folder / "undisturbed")
    wanted, failures = contents(folder / "undisturbed"), []

    def killed(out: str, point: str) -> None:
        os.environ[VARIABLE] = f"{point}=SIGKILL"
        synthesize(config, run_path(out))
        os._exit(NOT_REACHED)

    def again(out: str) -> None:
        synthesize(config, run_path(out))
        assert verify(run_path(out)).problems == ()
        assert contents(run_path(out)) == wanted

    for point in POINTS:
        out = f"{address}/{point}"
        ends = forked(lambda: killed(out, point)), forked(lambda: again(out))  # noqa: B023
        if ends != (-signal.SIGKILL, 0):
            failures.append(f"{point}: {ends}")
    return {"faults": len(POINTS), "failures": failures}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2])))
