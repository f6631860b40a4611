"""A guided run, eager, in one type: finite, whole, and near to that of the CPU in float32."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from prism_engines.gate import ieee_float32, sample_errors

from prism_fast.config import RunConfig, assign, load_config
from prism_fast.dataset.plan import build_plan
from prism_fast.gpu_check.finding import Finding, Options, failed, passed
from prism_fast.gpu_check.small import own_run, small_run
from prism_fast.synthesis.synthesizer import Synthesizer

IMAGES = 8
#: Of the user's models: the CPU computes them, too. SDXL at 1024 pixels takes it about a minute a step and image.
OWN_IMAGES, OWN_STEPS = 1, 4
#: The largest median over samples of the latents' relative error. Measured with the bundled models on a CPU: 0.0015
#: when weights are moved by 1e-6 of themselves, 0.008 by 1e-5, 0.02 in float16, 0.054 in bfloat16.
LATENTS = {"float32": 0.03, "float16": 0.08, "bfloat16": 0.2}
#: The same of the pixels' mean difference, of 255. Measured: 0.05, 0.3, 0.6 and 2.
PIXELS = {"float32": 1.5, "float16": 3.0, "bfloat16": 8.0}


@dataclass(frozen=True)
class Run:
    """Latents (n, c, h, w) and pixels (n, 3, h, w) of what was made, and how many samples were not."""

    latents: torch.Tensor
    pixels: torch.Tensor
    quarantined: int


def check(options: Options) -> Finding:
    """The run in the type ``options.case``; with the user's models where that is the configuration's type."""
    config, images = _config(options)
    there = make(config, images)
    if there.quarantined:
        remedy = "a model overflows in this type: choose bfloat16" if options.case == "float16" else ""
        return failed(f"{there.quarantined} of {images} samples did not stay finite", remedy)
    plain = {"sampling.device": "cpu", "sampling.dtype": "float32", "engines.attention": "sdpa"}
    here = make(assign(config, plain), images)
    latents = float(sample_errors(there.latents, here.latents).median())
    pixels = float((there.pixels - here.pixels).abs().flatten(1).mean(1).median())
    found = (
        f"{images} images of {config.name}; from the CPU's in float32 latents differ by {latents:.2g}, pixels by "
        f"{pixels:.2g} of 255 (at most {LATENTS[options.case]:g} and {PIXELS[options.case]:g})"
    )
    if latents <= LATENTS[options.case] and pixels <= PIXELS[options.case]:
        return passed(found)
    return failed(found, "if --only operators passes, a library computes otherwise on this card: compare its version")


def _config(options: Options) -> tuple[RunConfig, int]:
    changes = {"sampling.dtype": options.case, "engines.backend": "eager"}
    own = None if options.config is None else load_config(options.config)
    if own is None or own.sampling.dtype != options.case:
        return small_run(options, changes | {"sampling.batch_size": IMAGES, "engines.gradient_batch": IMAGES}), IMAGES
    steps = min(OWN_STEPS, own.sampling.steps)
    return own_run(options, changes | {"sampling.batch_size": OWN_IMAGES, "sampling.steps": steps}), OWN_IMAGES


def make(config: RunConfig, images: int) -> Run:
    """The first images of a run, float32 products with all of their digits."""
    synthesizer, rows = Synthesizer.load(config), build_plan(config, images)
    with ieee_float32():
        sampled = synthesizer.denoise(rows)
        made = synthesizer.finish(rows, sampled)
    pixels = torch.stack([sample.image.float() for sample in made.samples]) if made.samples else torch.empty(0)
    return Run(sampled.latents.float().cpu(), pixels, len(made.quarantined))
