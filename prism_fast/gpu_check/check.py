"""All steps, one after the other, and what they found together."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from prism_fast.config import RunConfig
from prism_fast.errors import InputError, RunError
from prism_fast.gpu_check.finding import Finding, Options, Status
from prism_fast.gpu_check.runner import Step, run_step
from prism_fast.gpu_check.table import FIRST, STEPS


@dataclass(frozen=True)
class StepResult:
    """One step: PASS, FAIL or SKIP, what was found, and what to do unless it passed."""

    name: str
    status: Status
    seconds: float
    found: str
    remedy: str


@dataclass(frozen=True)
class Checked:
    """What all steps found; ``passed``: none of them failed."""

    device: str
    driver: str
    steps: tuple[StepResult, ...]
    passed: bool


Began = Callable[[str], None]
Ended = Callable[[StepResult], None]


def require_gpu(device: str) -> None:
    """Refuse a device that is no GPU of this machine.

    Raises:
        InputError: that is so.
    """
    import torch
    from prism_engines.backends.reasons import cuda_reasons

    try:
        asked = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"--device {device} is unknown, expected for example cuda:0") from error
    if asked.type != "cuda":
        raise InputError(f"gpu-check checks a GPU, got --device {device}; expected for example cuda:0")
    if reasons := cuda_reasons():
        raise InputError(f"gpu-check needs an NVIDIA GPU: {'; '.join(reasons)}")
    if (asked.index or 0) >= (count := torch.cuda.device_count()):
        raise InputError(f"--device {device} is not here, the last of {count} GPUs is cuda:{count - 1}; name that one")


def chosen(only: Sequence[str], steps: Sequence[Step] = STEPS) -> list[Step]:
    """The steps called, or of the groups called, as ``only`` says; the first one always, for it says what is checked.

    Raises:
        InputError: a name is no step's.
    """
    names = {name for step in steps for name in (step.name, step.group)}
    if unknown := [name for name in only if name not in names]:
        raise InputError(f"--only {unknown[0]} is no step, expected some of: {', '.join(step.name for step in steps)}")
    return [step for step in steps if not only or step.name == FIRST or {step.name, step.group} & set(only)]


def check_all(
    steps: Sequence[Step],
    device: str,
    config: RunConfig | None = None,
    out: Path | None = None,
    began: Began = lambda name: None,
    ended: Ended = lambda result: None,
) -> Checked:
    """Run the steps in their order, each in a process of its own; none ends the others.

    Args:
        steps: which.
        device: where they compute.
        config: the user's own configuration, for the steps that take one.
        out: where every step's messages and the answer as ``gpu-check.json`` are kept; None: nowhere.
        began: told a step's name when it begins.
        ended: told what it found.

    Raises:
        InputError: ``out`` cannot be written. RunError: the disk refused later.
    """
    folder = None if out is None else _made(out)
    try:
        with tempfile.TemporaryDirectory(prefix="work-" if folder else "prism-fast-gpu-check-", dir=folder) as name:
            made = _check_in(Path(name), folder, steps, device, config, began, ended)
        if folder:
            (folder / "gpu-check.json").write_text(json.dumps(asdict(made), indent=2), encoding="utf-8")
    except OSError as error:
        raise RunError(f"gpu-check cannot write: {error}; make room, or choose another --out") from error
    return made


def _made(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror or error}; choose another --out") from error
    return out.absolute()


def _check_in(
    work: Path,
    out: Path | None,
    steps: Sequence[Step],
    device: str,
    config: RunConfig | None,
    began: Began,
    ended: Ended,
) -> Checked:
    options = Options(device, str(work))
    if config is not None:
        options = replace(options, config=str(work / "config.yaml"))
        (work / "config.yaml").write_text(config.model_dump_json(), encoding="utf-8")  # JSON is YAML
    facts: dict[str, str] = {}
    results = []
    for step in steps:
        began(step.name)
        messages = (out or work) / f"{step.name.replace(':', '-')}.log"
        finding, seconds = run_step(step, options, messages)
        facts |= finding.facts
        results.append(_result(step, finding, seconds, messages if out else None))
        ended(results[-1])
    passed = all(result.status != "FAIL" for result in results)
    return Checked(facts.get("device", device), facts.get("driver", "unknown"), tuple(results), passed)


def _result(step: Step, finding: Finding, seconds: float, messages: Path | None) -> StepResult:
    remedy = finding.remedy
    if finding.status == "FAIL":
        where = f"messages: {messages}" if messages else f"for its messages: --only {step.name} --out DIR"
        remedy = f"{remedy}; {where}" if remedy else where
    return StepResult(step.name, finding.status, round(seconds, 1), finding.found, remedy)
