"""A directory as timm's models lie on the hub: ``timm.create_model("local-dir:PATH", pretrained=True)`` reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
import torch
from prism_engines.quiet import quiet, root_cause
from safetensors import SafetensorError
from safetensors.torch import save_file
from timm.models import get_model_args, get_model_input_config
from torch import Tensor, nn

from prism_fast.errors import RunError
from prism_fast.evaluation.folder import crop_of
from prism_fast.operations.export_student.source import Source
from prism_fast.operations.export_student.traced import largest_error

FILE = "model.safetensors"


def refusal(source: Source) -> str | None:
    """Why timm could not make this network, None if it can."""
    if source.transformers:
        return f"{source.path} is a network of transformers, which timm does not know"
    if source.config.structure is not None:
        return f"{source.path} has a structure of its own, cut out of its teacher, which timm does not know"
    return None


def write(source: Source, folder: Path, half: bool) -> tuple[Path, float]:
    """Write ``config.json`` and the weights, and load them by timm; gives the file and the largest error of a logit.

    Raises:
        RunError: timm does not load it, or gives other logits.
    """
    dtype = torch.float16 if half else torch.float32
    state = source.classifier.net.state_dict()
    stored = {key: x.to("cpu", dtype if x.is_floating_point() else x.dtype) for key, x in state.items()}
    try:
        save_file({key: x.contiguous().clone() for key, x in stored.items()}, folder / FILE, {"format": "pt"})
    except SafetensorError as error:
        raise RunError(f"cannot write {FILE}: {error}; make room or choose another --out") from error
    (folder / FILE).chmod(0o644)  # safetensors makes it 0600
    (folder / "config.json").write_text(json.dumps(_config(source), indent=2) + "\n", encoding="utf-8")
    net = _loaded(folder, source)

    def run(pixels: Tensor) -> Tensor:
        logits: Tensor = net(source.classifier.normalise(pixels))
        return logits

    return folder / FILE, largest_error(FILE, source, run, half)


def _loaded(folder: Path, source: Source) -> nn.Module:
    try:
        with quiet():
            net: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
    except Exception as error:  # timm and the networks raise many types
        raise RunError(
            f"timm does not load what was written of {source.path} ({root_cause(error)}); choose --format onnx or torch"
        ) from error
    return net.eval()


def _config(source: Source) -> dict[str, Any]:
    net: Any = source.classifier.net
    names = source.config.label_names
    # The number of classes stands above, and channels are always three; both would be given twice.
    options = {k: v for k, v in get_model_args(net).items() if k not in ("num_classes", "in_chans")}
    return {
        "architecture": net.pretrained_cfg["architecture"],
        "num_classes": source.config.num_classes,
        "num_features": net.num_features,
        **({"label_names": list(names)} if names else {}),
        **({"model_args": {**source.classifier.options, **options}} if source.classifier.options or options else {}),
        "pretrained_cfg": _pretrained(source),
    }


def _pretrained(source: Source) -> dict[str, Any]:
    """How pictures are prepared, and what timm needs to fit the weights to another head or input.

    The rest of what timm knows by this name (address, licence, paper) is of other weights.
    """
    net: Any = source.classifier.net
    crop, side = crop_of(source.config), source.config.image_size
    return {
        **({"tag": source.config.tag} if source.config.tag else {}),
        "custom_load": False,
        "input_size": [3, side, side],
        "fixed_input_size": get_model_input_config(net)["fixed_input_size"],
        "interpolation": crop.interpolation,
        "crop_pct": crop.crop_pct,
        "crop_mode": crop.crop_mode,
        "mean": list(source.config.mean),
        "std": list(source.config.std),
        "num_classes": source.config.num_classes,
        "pool_size": None,
        "first_conv": net.pretrained_cfg.get("first_conv"),
        "classifier": net.pretrained_cfg.get("classifier"),
    }
