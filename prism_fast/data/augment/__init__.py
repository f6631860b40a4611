"""What is done to pictures between the loader and the networks."""

from prism_fast.data.augment.stage import Augment

__all__ = ["Augment"]
