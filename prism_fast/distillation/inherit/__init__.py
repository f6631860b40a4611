"""Students that inherit the teacher's weights: its first blocks, a part of its channels, a lower resolution."""

from prism_fast.distillation.inherit.make import ended_in, inherited

__all__ = ["ended_in", "inherited"]
