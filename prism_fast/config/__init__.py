"""One document describes a run."""

from prism_fast.config.distill import DistillConfig
from prism_fast.config.document import assign, bundled_configs, load_config, parse_assignments
from prism_fast.config.schema import (
    BackendName,
    EnginePart,
    EnginesConfig,
    EvaluateConfig,
    GuidanceConfig,
    LaunchConfig,
    ModelsConfig,
    Objective,
    PromptsConfig,
    RunConfig,
    SamplingConfig,
    SlurmConfig,
    SolverName,
    SynthesisConfig,
)
from prism_fast.config.views import ViewsConfig

__all__ = [
    "BackendName",
    "DistillConfig",
    "EnginePart",
    "EnginesConfig",
    "EvaluateConfig",
    "GuidanceConfig",
    "LaunchConfig",
    "ModelsConfig",
    "Objective",
    "PromptsConfig",
    "RunConfig",
    "SamplingConfig",
    "SlurmConfig",
    "SolverName",
    "SynthesisConfig",
    "ViewsConfig",
    "assign",
    "bundled_configs",
    "load_config",
    "parse_assignments",
]
