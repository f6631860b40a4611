"""Cross-entropy: classic classifier guidance."""

from prism_fast.guidance.objectives.form import EnergyForm


def cross_entropy(temperature: float, second_temperature: float) -> EnergyForm:
    """``E(x, y) = -log softmax(f / T)_y``. Reference: Dhariwal & Nichol 2021, section 4."""
    return EnergyForm(-1.0 / temperature, 1.0, temperature)
