"""Batches for training: the two loaders that make them from shards."""

from prism_fast.data.batch import Batch
from prism_fast.data.loader import Loader, open_loader

__all__ = ["Batch", "Loader", "open_loader"]
