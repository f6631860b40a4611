"""Real inputs of every part, taken from the beginning of an eager run: what the gate compares engines on."""

from __future__ import annotations

import torch
from prism_engines.gate import ieee_float32
from prism_kernels import view_matrices

from prism_fast.compile.parts import Inputs
from prism_fast.dataset.plan import build_plan
from prism_fast.models.diffusers_blocks import DeepUNet
from prism_fast.models.text import tokenize
from prism_fast.sampling.savings import Step
from prism_fast.sampling.solvers import DPMSolverPP2M
from prism_fast.synthesis.synthesizer import Synthesizer

#: Steps of the run that are taken at most: a UNet of Stable Diffusion's size takes seconds a step on a CPU.
STEPS = 6


@torch.no_grad()
def real_inputs(synthesizer: Synthesizer, part: str) -> Inputs:
    """Inputs of ``part`` after a few unguided steps of the run's first batch."""
    with ieee_float32():
        return _real_inputs(synthesizer, part)


def _real_inputs(synthesizer: Synthesizer, part: str) -> Inputs:
    rows = build_plan(synthesizer.config, synthesizer.config.sampling.fixed_batch_size)
    if part.startswith("text_encoder"):
        tokenizer = synthesizer.model.tokenizer_2 if part.endswith("_2") else synthesizer.model.tokenizer
        tokens = tokenize([row.prompt for row in rows], tokenizer).to(synthesizer.device)
        return tokens.input_ids, tokens.attention_mask
    sampler = synthesizer.sampler
    going = sampler.begin(synthesizer.batch(rows), synthesizer.device)
    z = going.noise
    solver = DPMSolverPP2M(sampler.schedule)
    whole = Step(both=True, network="whole", gradient="none")
    last = min(STEPS, len(sampler.schedule)) - 1
    for i in range(last):
        z = solver.step(z, sampler.denoise(going, z, i, whole), i)
    inputs = sampler.unet_inputs(going, z, last, True)
    if part == "unet_shallow":
        return *inputs, DeepUNet(synthesizer.model.unet)(*inputs)[1]
    if part.startswith("unet"):
        return inputs
    denoised = sampler.denoise(going, z, last, whole)
    if part == "teacher":
        return (synthesizer.at_stored_size(synthesizer.engines.decoder.run(denoised)[0]),)
    if part == "decoder":
        return (denoised,)
    boxes = sampler.boxes(going.batch.indices, last).to(synthesizer.device)
    return denoised, going.batch.labels, *view_matrices(boxes, sampler.image_size, synthesizer.view_size)
