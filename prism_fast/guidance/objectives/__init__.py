"""Energies that can steer sampling; all are settings of one fused operator."""

from prism_fast.config import GuidanceConfig
from prism_fast.guidance.objectives.contrastive_energy import contrastive_energy
from prism_fast.guidance.objectives.cross_entropy import cross_entropy
from prism_fast.guidance.objectives.form import EnergyForm
from prism_fast.guidance.objectives.free_energy import free_energy
from prism_fast.guidance.objectives.joint import joint

__all__ = ["EnergyForm", "contrastive_energy", "cross_entropy", "free_energy", "joint", "objective_of"]

_BY_NAME = {
    "free_energy": free_energy,
    "cross_entropy": cross_entropy,
    "joint": joint,
    "contrastive_energy": contrastive_energy,
}


def objective_of(config: GuidanceConfig) -> EnergyForm:
    """The configured objective."""
    return _BY_NAME[config.objective](config.temperature, config.second_temperature)
