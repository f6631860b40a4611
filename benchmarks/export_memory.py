"""Peak resident memory of exporting the full Stable Diffusion 1.5 UNet to ONNX, weights external; prints JSON.

    python benchmarks/random_models.py sd15 /tmp/sd15
    python benchmarks/export_memory.py /tmp/sd15

The UNet is built and traced in this process, at batch 2 (one image, both branches of classifier-free guidance).
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from prism_engines.onnx_export import export_onnx, onnx_files
from prism_engines.spec import EngineSpec, TensorSpec

from prism_fast.compile.parts import InPrecision, InTuple
from prism_fast.models.diffusers_blocks import WholeUNet


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(model: Path, size: int) -> dict[str, object]:
    """Load, export, and say what it took."""
    unet = UNet2DConditionModel.from_pretrained(model / "unet").float().eval().requires_grad_(False)
    inputs = (
        torch.randn(2, 4, size, size),
        torch.tensor([500, 500]),
        torch.randn(2, 77, unet.config.cross_attention_dim),
    )
    names = ("z", "t", "text")
    tensors = tuple(
        TensorSpec(n, tuple(x.shape), str(x.dtype).removeprefix("torch.")) for n, x in zip(names, inputs, strict=True)
    )
    spec, loaded = EngineSpec("unet", tensors, ("prediction",)), _peak_bytes()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        module = InTuple(InPrecision(WholeUNet(unet), torch.float32))
        files = onnx_files(export_onnx(module, inputs, spec, Path(folder) / "model.onnx"))
        sizes = {file.name: file.stat().st_size for file in files}
    return {
        "parameters": sum(p.numel() for p in unet.parameters()),
        "latent_size": size,
        "peak_rss_bytes_loaded": loaded,
        "peak_rss_bytes": _peak_bytes(),
        "export_s": round(time.monotonic() - start, 1),
        "size_bytes": sizes,
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--latent-size", type=int, default=64)
    given = parser.parse_args()
    print(json.dumps(measure(given.model, given.latent_size), indent=2))
