"""What the four objectives share: two weights and a temperature."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EnergyForm:
    """``E = class_weight · f_y + lse_weight · logsumexp(f / temperature)``, lower is better."""

    class_weight: float
    lse_weight: float
    temperature: float
