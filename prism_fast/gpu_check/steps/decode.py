"""DALI's decoder, on a GPU the ``mixed`` one, against Pillow's."""

from __future__ import annotations

from typing import Literal

import torch

from prism_fast.data.loader import open_loader
from prism_fast.data.loader import reasons as loader_reasons
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.gpu_check.finding import Finding, Options, failed, passed, skipped
from prism_fast.gpu_check.small import draw_run, index_of

IMAGES, SIDE = 16, 64
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
#: Mean difference of a picture, of 255. PNG is exact; decoders of JPEG fill in colour in their own ways.
MOST = {"png": 0.01, "jpg": 2.0}


def check(options: Options) -> Finding:
    """Whole pictures through DALI's training pipeline, as PNG and as JPEG."""
    if reasons := loader_reasons("dali", torch.device(options.device)):
        return skipped(reasons)
    differences = {kind: difference(options, kind) for kind in ("png", "jpg")}
    words = ", ".join(f"{kind} differs by {value:.2g} of 255" for kind, value in differences.items())
    found = f"{IMAGES} pictures on {options.device}: {words} from Pillow's"
    if all(value <= MOST[kind] for kind, value in differences.items()):
        return passed(found)
    return failed(found, "set distill.loader to torch, and tell us DALI's version")


def difference(options: Options, kind: Literal["png", "jpg"]) -> float:
    """The largest mean difference of a picture, of 255."""
    run = options.folder("decode") / kind
    config = draw_run(options, run, IMAGES, kind, SIDE)
    shards = ShardSet.discover(run)
    wanted = {sample.index: sample.image.float() for sample in shards.samples()}
    whole = {"batch_size": IMAGES, "image_size": SIDE, "crop_scale": (1.0, 1.0), "flip": False, "loader": "dali"}
    loader = open_loader(shards, config.distill.model_copy(update=whole), options.device, MEAN, STD)
    try:
        batch = next(loader)
    finally:
        loader.close()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    pixels = (batch.images.cpu() * std + mean) * 255
    found = [index_of(logits) for logits in batch.logits.cpu()]
    return max(float((one - wanted[index]).abs().mean()) for one, index in zip(pixels, found, strict=True))
