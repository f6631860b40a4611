"""Contrastive energy: the class's logit against the other classes', each with its own temperature."""

from prism_fast.guidance.objectives.form import EnergyForm


def contrastive_energy(temperature: float, second_temperature: float) -> EnergyForm:
    """``E(x, y) = -f_y / T1 + logsumexp(f / T2)``; a larger T2 weakens the marginal.

    Reference: Ma et al. 2024, "Elucidating the design space of classifier-guided diffusion" (two temperatures).
    """
    return EnergyForm(-1.0 / temperature, 1.0, second_temperature)
