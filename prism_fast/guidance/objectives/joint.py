"""Joint energy: is the image in the distribution of its own class?"""

from prism_fast.guidance.objectives.form import EnergyForm


def joint(temperature: float, second_temperature: float) -> EnergyForm:
    """``E(x, y) = -f_y(x)``. Reference: Grathwohl et al. 2020 (JEM), eq. 5."""
    return EnergyForm(-1.0, 0.0, temperature)
