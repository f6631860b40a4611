"""Distributions of the teacher's free energy, and how far each is from that of real pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from prism_fast.errors import InputError


@dataclass(frozen=True)
class EnergySet:
    """One named set: counts per bin, moments, and its Wasserstein-1 distance to the real set."""

    name: str
    counts: tuple[int, ...]
    n: int
    mean: float
    std: float
    median: float
    distance_to_real: float | None


@dataclass(frozen=True)
class EnergyHistogram:
    """Histograms over common bins; ``edges`` has one entry more than every ``counts``."""

    edges: tuple[float, ...]
    sets: tuple[EnergySet, ...]
    real: str | None


def free_energies(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """``E = -T * logsumexp(logits / T)``, in float64: low where the teacher recognises something.

    Shapes:
        logits (n, classes) -> (n,) float64.

    Raises:
        InputError: not a matrix, or ``temperature`` not positive.
    Reference:
        Liu et al. 2020 (arXiv 2010.03759), eq. 4.
    """
    if logits.ndim != 2 or temperature <= 0:
        raise InputError(f"need logits (n, classes) and T > 0, got {tuple(logits.shape)} and T = {temperature}")
    return -temperature * torch.logsumexp(logits.double() / temperature, dim=1)


def energy_histogram(energies: Mapping[str, Tensor], *, real: str | None = "real", bins: int = 40) -> EnergyHistogram:
    """Histograms of named sets over common bins from the smallest to the largest energy of all sets.

    The distance to the real set is Wasserstein-1, the area between the two distribution functions, in units of
    energy; unlike a divergence of histograms it does not depend on the bins.

    Shapes:
        every value of ``energies`` (n,), n may differ.

    Raises:
        InputError: no sets, an empty set, NaN or infinity, ``real`` not among the names, fewer than one bin.
    """
    values = {name: energy.detach().double().cpu().flatten() for name, energy in energies.items()}
    _check(values, real, bins)
    low = min(float(v.min()) for v in values.values())
    high = max(float(v.max()) for v in values.values())
    if high == low:
        low, high = low - 0.5, high + 0.5
    edges = torch.linspace(low, high, bins + 1, dtype=torch.float64)
    reference = values[real] if real is not None else None
    sets = tuple(_describe(name, energy, edges, reference) for name, energy in values.items())
    return EnergyHistogram(tuple(edges.tolist()), sets, real)


def _describe(name: str, energy: Tensor, edges: Tensor, reference: Tensor | None) -> EnergySet:
    from scipy.stats import wasserstein_distance

    counts = torch.histogram(energy, edges).hist.long()
    distance = None if reference is None else float(wasserstein_distance(energy.numpy(), reference.numpy()))
    return EnergySet(
        name=name,
        counts=tuple(counts.tolist()),
        n=len(energy),
        mean=float(energy.mean()),
        std=float(energy.std(correction=0)),
        median=float(energy.quantile(0.5)) if len(energy) < 2**24 else float(energy.median()),
        distance_to_real=distance,
    )


def _check(values: Mapping[str, Tensor], real: str | None, bins: int) -> None:
    if bins < 1:
        raise InputError(f"bins must be at least 1, got {bins}")
    if not values:
        raise InputError("there are no energies to describe")
    if real is not None and real not in values:
        raise InputError(f"the real set {real!r} is not among the sets: {', '.join(values)}")
    for name, energy in values.items():
        if len(energy) == 0:
            raise InputError(f"the set {name!r} holds no energies")
        if not bool(energy.isfinite().all()):
            raise InputError(f"the set {name!r} holds NaN or infinite energies")
