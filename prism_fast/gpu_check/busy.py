"""How busy a GPU is while something runs, as nvidia-smi sees it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_EVERY_MS = 200


class Busy:
    """The share of time in which a kernel ran, 0 to 1, once its ``with`` block has ended; None: nobody knows."""

    share: float | None = None


@contextmanager
def watching(device: torch.device, program: str | None = None) -> Iterator[Busy]:
    """Meanwhile nvidia-smi, or another program that takes its options, looks at the device five times a second."""
    busy, path = Busy(), program or shutil.which("nvidia-smi")
    if path is None or (device.type != "cuda" and program is None):
        yield busy
        return
    with tempfile.TemporaryDirectory(prefix="prism-fast-busy-") as folder:
        file = Path(folder) / "seen"
        with open(file, "wb") as seen:
            process = subprocess.Popen([path, *_options(device)], stdout=seen, stderr=subprocess.DEVNULL)
        try:
            yield busy
        finally:
            process.kill()
            process.wait()
            busy.share = mean_share(file.read_text(errors="replace"))


def _options(device: torch.device) -> list[str]:
    """CUDA may number the cards otherwise than nvidia-smi: named by their own number, they are the same."""
    card = ["-i", f"GPU-{torch.cuda.get_device_properties(device).uuid}"] if device.type == "cuda" else []
    return [*card, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", f"-lms={_EVERY_MS}"]


def mean_share(text: str) -> float | None:
    """The mean of lines that hold a percentage each; a line that was cut or says ``[N/A]`` does not count."""
    numbers = [int(line) for line in text.split() if line.isdigit()]
    return sum(numbers) / len(numbers) / 100 if numbers else None
