"""Free energy: is the image in the teacher's distribution, whatever its class?"""

from prism_fast.guidance.objectives.form import EnergyForm


def free_energy(temperature: float, second_temperature: float) -> EnergyForm:
    """``E(x) = -T · logsumexp(f(x) / T)``. Reference: Liu et al. 2020, eq. 4; PRISM's energy."""
    return EnergyForm(0.0, -temperature, temperature)
