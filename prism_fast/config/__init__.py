"""One document describes a run."""

from prism_fast.config.document import assign, bundled_configs, load_config, parse_assignments
from prism_fast.config.schema import (
    BackendName,
    DistillConfig,
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
    "assign",
    "bundled_configs",
    "load_config",
    "parse_assignments",
]
