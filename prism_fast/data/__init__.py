"""Reading shards back: what a batch is, and the two loaders that make batches."""

from prism_fast.data.loader import Loader, open_loader
from prism_fast.data.schema import Batch, ShardSet

__all__ = ["Batch", "Loader", "ShardSet", "open_loader"]
