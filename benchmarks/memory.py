"""Peak memory of the commands that look at a whole run, or at as many pictures as ImageNet's validation set has.

Each command has a process of its own. `peak_rss_mib` is that of its largest process, as the kernel counts it;
`peak_all_mib` is that of all its processes together, decoding workers included and shared pages counted once, looked at
four times a second. The run is that of `stress`: constant 8-pixel images, everything but the networks real. `evaluate`
reads noise pictures of 224 pixels in 1,000 class folders by networks with random weights: a fast one a twentieth of as
many as the run has samples, ResNet-18 a 400th. `report, 512 pixels` is of a thousand noise pictures of that size, for a
page holds no more.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch

from benchmarks import harness, stress
from benchmarks.guided import with_assignments
from benchmarks.options import Options
from benchmarks.pictures import write_noise
from benchmarks.processes import field, tree
from benchmarks.stub import Stub
from prism_fast.config import RunConfig
from prism_fast.dataset.sample import Sample
from prism_fast.distillation.student import MEAN, STD
from prism_fast.errors import RunError
from prism_fast.models.classifier import ClassifierConfig, save_classifier
from prism_fast.prompts.row import PlanRow

COLUMNS = ("command", "items", "seconds", "peak_rss_mib", "peak_all_mib", "bar", "met")
#: What is evaluated, and on which part of as many pictures as samples: all of them by a fast network.
_NETWORKS = {"resnet18": 400, "mobilenetv3_small_050": 20}
_GIB = 1024.0
_LOOK_S = 0.25


@dataclass(frozen=True)
class Peak:
    """What a command took; see the module."""

    seconds: float
    largest_mib: float
    all_mib: float


def peak_of(arguments: list[str]) -> Peak:
    """Run ``prism-fast`` with these arguments and look at its memory while it runs.

    Raises:
        RunError: the command failed.
    """
    began, largest, together = time.perf_counter(), 0, 0
    command = subprocess.Popen([sys.executable, "-m", "prism_fast", *arguments], stdout=subprocess.DEVNULL)
    while command.poll() is None:
        processes = tree(command.pid)
        largest = max([largest, *(field(pid, "status", "VmHWM:") for pid in processes)])
        together = max(together, sum(field(pid, "smaps_rollup", "Pss:") for pid in processes))
        time.sleep(_LOOK_S)
    if command.returncode:
        raise RunError(f"prism-fast {' '.join(arguments)} failed with exit code {command.returncode}")
    return Peak(time.perf_counter() - began, largest / 1024, together / 1024)


class Noise(Stub):
    """Images that do not compress, of the configuration's size."""

    def _sample(self, row: PlanRow) -> Sample:
        plain, sampling = super()._sample(row), self.config.sampling
        pixels = np.random.default_rng(row.index).integers(0, 256, (3, sampling.height, sampling.width), np.uint8)
        return Sample(row.index, torch.from_numpy(pixels), row.label, plain.logits, plain.meta)


def _evaluate(config: RunConfig, scratch: Path) -> Iterator[harness.Row]:
    for name, share in _NETWORKS.items():
        pictures = max(2, config.synthesis.images // share)
        folder = write_noise(scratch / f"noise for {name}", pictures)
        network = timm.create_model(name, pretrained=False, num_classes=1000)
        described = ClassifierConfig(architecture=name, num_classes=1000, image_size=224, mean=MEAN, std=STD)
        saved = save_classifier(network, described, scratch / name)
        peak = peak_of(["evaluate", str(saved), "--pictures", str(folder)])
        yield _row(f"evaluate, {name}", pictures, peak, "below 2 GB in all", peak.all_mib < 2e9 / 2**20)


def _on_run(config: RunConfig, scratch: Path) -> Iterator[harness.Row]:
    out, images = scratch / "run", config.synthesis.images
    for _ in stress.run(config, out):
        pass
    peak = peak_of(["report", str(out)])
    yield _row("report", images, peak, "below 1024 MiB, 60 s", peak.largest_mib < _GIB and peak.seconds < 60)
    for command, *others in (["stats"], ["select", "--keep", "0.5"], ["verify"]):
        yield _row(command, images, peak_of([command, str(out), *others]))


def _large_pictures(config: RunConfig, scratch: Path) -> Iterator[harness.Row]:
    sizes = ("sampling.height=512", "sampling.width=512", "synthesis.images=1000", "synthesis.shard_size=100")
    large = with_assignments(config, sizes)
    for _ in stress.run(large, scratch / "large", Noise(large)):
        pass
    peak = peak_of(["report", str(scratch / "large")])
    yield _row("report, 512 pixels", 1000, peak, "below 1024 MiB, 60 s", peak.largest_mib < _GIB and peak.seconds < 60)


def _row(command: str, items: int, peak: Peak, bar: str | None = None, met: bool = True) -> harness.Row:
    row = {
        "command": command,
        "items": items,
        "seconds": peak.seconds,
        "peak_rss_mib": peak.largest_mib,
        "peak_all_mib": peak.all_mib,
    }
    harness.log(json.dumps(row))
    return row if bar is None else {**row, "bar": bar, "met": "yes" if met else "no"}


#: What ``--only`` names.
STEPS: dict[str, Callable[[RunConfig, Path], Iterator[harness.Row]]] = {
    "evaluate": _evaluate,
    "run": _on_run,
    "large": _large_pictures,
}


def bench(config: RunConfig, options: Options) -> list[harness.Row]:
    """Rows of every step; with ``benchmarks/configs/stress.yaml`` a million samples and 50,000 pictures."""
    plain = with_assignments(config, ("engines.backend=eager", "guidance.margin_quantile=null"))
    chosen = [step for step in STEPS if not options.only or step in options.only]
    with tempfile.TemporaryDirectory(prefix="prism-bench-") as scratch:
        return [row for step in chosen for row in STEPS[step](plain, Path(scratch))]
