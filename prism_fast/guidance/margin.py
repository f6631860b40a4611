"""Margin calibration: from which energy on a sample counts as inside the distribution."""

from __future__ import annotations

import torch


def class_margins(energies: torch.Tensor, labels: torch.Tensor, quantile: float, minimum: int = 8) -> dict[int, float]:
    """Quantile of the energies of unguided samples, per class; a class with too few samples gets the overall one.

    Shapes: energies (n,), labels (n,). Never computed from real data.
    """
    overall = float(energies.quantile(quantile))
    margins = {}
    for label in labels.unique().tolist():
        own = energies[labels == label]
        margins[int(label)] = float(own.quantile(quantile)) if len(own) >= minimum else overall
    return margins
