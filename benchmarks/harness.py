"""What every benchmark shares: timings with percentiles, where they were measured, and the page they are written to."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from prism_fast.errors import RunError

Row = dict[str, Any]
PAGE = Path(__file__).parent / "RESULTS.md"
_LIBRARIES = ("prism-fast", "torch", "diffusers", "openvino", "onnxruntime", "triton", "nvidia-dali-cuda130", "timm")


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: percentiles over ``repeats`` calls; the first call, compilation included, apart."""

    p20: float
    p50: float
    p80: float
    first_s: float
    repeats: int

    def rate(self, items: float) -> dict[str, float]:
        """``items`` a second. A slow call is a low rate: its 80th percentile is the rate's 20th."""
        return {"p20": items / self.p80, "p50": items / self.p50, "p80": items / self.p20}


def percentiles(seconds: Sequence[float], first_s: float) -> Timing:
    """Summary of several calls' seconds; one call is its own percentiles."""
    cuts = statistics.quantiles(seconds, n=5, method="inclusive") if len(seconds) > 1 else [seconds[0]] * 4
    return Timing(cuts[0], statistics.median(seconds), cuts[3], first_s, len(seconds))


def measure(call: Callable[[], Any], repeats: int, device: str = "cpu") -> Timing:
    """Time ``call`` after one call that is not counted; on CUDA every call ends with a synchronisation."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return percentiles(seconds[1:], seconds[0])


def run_apart(name: str, module: str, *arguments: str) -> Any:
    """What a module of the benchmarks, run in a process of its own, prints as JSON on its last line.

    Raises:
        RunError: it failed; ``name`` is what the message calls it.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RunError(f"{name} failed with exit code {done.returncode}; its message is above")
    return json.loads(done.stdout.splitlines()[-1])


def peak_rss_bytes() -> int:
    """Peak resident memory of this process so far; getrusage would count the process that started it too."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def process_age_s() -> float:
    """Seconds since this process was started, imports included."""
    after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()  # from the third field on
    started = int(after_name[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def _processor() -> str:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"model name\s*:\s*(.*)", text)
    flags = [f for f in ("avx512_bf16", "avx512_vnni", "amx_bf16") if re.search(rf"\b{f}\b", text)]
    return f"{model.group(1) if model else platform.processor()} ({', '.join(flags) or 'no bfloat16 arithmetic'})"


def environment(device: str = "cpu") -> Row:
    """Where and with what a benchmark ran."""
    here = torch.cuda.get_device_name() if device.startswith("cuda") else _processor()
    versions: dict[str, str | None] = {}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "device": here,
        "threads": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": versions,
        "date": date.today().isoformat(),
    }


def write_json(path: Path, name: str, config: str, where: Row, rows: Sequence[Row]) -> None:
    """One JSON document: the benchmark, where it ran, and its rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"benchmark": name, "config": config, "environment": where, "rows": list(rows)}
    path.write_text(json.dumps(document, indent=1) + "\n")


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def as_table(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """A Markdown table of some keys of the rows; a key ``a.b`` looks into a mapping."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        lines.append("| " + " | ".join(cell(_find(row, column)) for column in columns) + " |")
    return "\n".join(lines)


def _find(row: Row, key: str) -> Any:
    value: Any = row
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def write_section(name: str, text: str, page: Path = PAGE) -> None:
    """Put a section of the results page between its markers, or at its end."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    old = page.read_text() if page.exists() else _HEADER
    block = f"{begin}\n{text.strip()}\n{end}"
    if begin in old:
        before, rest = old.split(begin, 1)
        page.write_text(before + block + rest.split(end, 1)[1])
    else:
        page.write_text(f"{old.rstrip()}\n\n{block}\n")


_HEADER = """# Benchmarks

Written by `prism-fast bench NAME --page`; nothing here is typed by hand. Ratios compare rows of one run on one machine.
"""


def describe(where: Row) -> str:
    """One line about the machine."""
    versions = ", ".join(f"{k} {v}" for k, v in where["versions"].items() if v)
    return f"{where['date']}, {where['device']}, {where['threads']} threads; Python {where['python']}, {versions}."


def log(line: str) -> None:
    """Progress, on standard error."""
    print(line, file=sys.stderr, flush=True)
