"""What each step of a batch computes and what it saves, decided before the first one: the loop itself asks nobody.

Three savings are by step: classifier-free guidance on a part of the steps (Kynkäänniemi et al. 2024, "Applying
guidance in a limited interval"), the UNet's deep features at every n-th step (Ma et al. 2023, "DeepCache"), and the
energy gradient at every k-th guided step. With all of them off each step runs the whole UNet for both branches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prism_fast.config import GuidanceConfig, SamplingConfig

Network = Literal["whole", "deep", "shallow"]
Gradient = Literal["none", "fresh", "reused"]


@dataclass(frozen=True)
class Step:
    """One step: both branches or the conditional one alone, which UNet, and where its energy gradient comes from."""

    both: bool
    network: Network
    gradient: Gradient


def steps_in(part: tuple[float, float], steps: int) -> range:
    """Steps of ``[from, to)``, given as parts of all steps."""
    first, last = (round(x * steps) for x in part)
    return range(first, last)


def guided_steps(guidance: GuidanceConfig, steps: int) -> range:
    """Steps that energy guidance moves."""
    return steps_in(guidance.window, steps) if guidance.enabled else range(0)


def _gradient(i: int, guided: range, every: int) -> Gradient:
    if i not in guided:
        return "none"
    return "fresh" if (i - guided.start) % every == 0 else "reused"


def make_savings(steps: int, sampling: SamplingConfig, guidance: GuidanceConfig) -> tuple[Step, ...]:
    """Every step of a batch.

    The deep features of a step that ran the conditional branch alone do not serve one that runs both.
    """
    guided, both_in = guided_steps(guidance, steps), steps_in(sampling.guidance_interval, steps)
    savings: list[Step] = []
    last_deep: int | None = None
    for i in range(steps):
        both, network = i in both_in, "whole"
        if sampling.reuse_every > 1:
            usable = last_deep is not None and i - last_deep < sampling.reuse_every
            kept = usable and last_deep is not None and (savings[last_deep].both or not both)
            network, last_deep = ("shallow", last_deep) if kept else ("deep", i)
        savings.append(Step(both, network, _gradient(i, guided, guidance.every)))  # type: ignore[arg-type]
    return tuple(savings)
