"""Turn a torch module, or the gradient of one, into something fast; store it; run it."""

from prism_engines.backends.eager import EagerEngine, EagerGradientEngine
from prism_engines.base import Engine

__all__ = ["EagerEngine", "EagerGradientEngine", "Engine"]
