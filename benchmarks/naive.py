"""The baselines: guided sampling as public code does it, and diffusers' own pipeline without guidance by energy.

Nothing of the sampler, the solvers or the engines under test is used: the UNet, the autoencoder and the scheduler are
diffusers' own, in eager float32, and the gradient is autograd's. Noise, prompts, views and the energy's formula are
ours, so that the images can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from prism_kernels import view_matrices

from prism_fast.guidance.objectives import objective_of
from prism_fast.guidance.view import apply_view, view_boxes
from prism_fast.models.text import TextHidden, tokenize
from prism_fast.prompts.row import PlanRow
from prism_fast.sampling.noise import initial_latents, view_draws
from prism_fast.synthesis.synthesizer import Synthesizer


def scheduler_of(synthesizer: Synthesizer) -> DPMSolverMultistepScheduler:
    """diffusers' DPM-Solver++(2M), on the schedule that the run's own solver takes."""
    solver = DPMSolverMultistepScheduler.from_config(
        synthesizer.model.scheduler.config,
        algorithm_type="dpmsolver++",
        solver_order=2,
        final_sigmas_type="zero",
        lower_order_final=False,
        euler_at_final=False,
        use_karras_sigmas=False,
        timestep_spacing=synthesizer.model.scheduler.config.timestep_spacing,
    )
    solver.set_timesteps(synthesizer.config.sampling.steps)
    return solver


def encode_text(synthesizer: Synthesizer, prompts: Sequence[str]) -> torch.Tensor:
    """Hidden states of the prompts, each encoded anew."""
    tokens = tokenize(prompts, synthesizer.model.tokenizer).to(synthesizer.device)
    with torch.no_grad():
        hidden: torch.Tensor = TextHidden(synthesizer.model.text_encoder)(tokens.input_ids, tokens.attention_mask)
    return hidden


def decode(synthesizer: Synthesizer, latents: torch.Tensor) -> torch.Tensor:
    """Images in [0, 1] by the full autoencoder."""
    vae: Any = synthesizer.model.vae
    images: torch.Tensor = vae.decode(
        latents / synthesizer.model.scaling_factor + synthesizer.model.shift_factor
    ).sample
    return (images * 0.5 + 0.5).clamp(0, 1)


@dataclass
class NaiveGuided:
    """Energy guidance in eager float32 at every step; the gradient is taken by ``z`` or by the denoised latents."""

    synthesizer: Synthesizer
    through_unet: bool

    def latents(self, rows: Sequence[PlanRow]) -> torch.Tensor:
        """Final latents (n, c, h, w) of some plan rows."""
        synthesizer, indices = self.synthesizer, [row.index for row in rows]
        text = encode_text(synthesizer, [*(r.negative_prompt for r in rows), *(r.prompt for r in rows)])
        labels = torch.tensor([row.label for row in rows], device=synthesizer.device)
        z = initial_latents(synthesizer.config.seed, indices, synthesizer.sampler.latent_shape).to(synthesizer.device)
        scheduler = scheduler_of(synthesizer)
        for i, t in enumerate(scheduler.timesteps):
            alpha = scheduler.alphas_cumprod[t].sqrt()
            sigma = (1 - scheduler.alphas_cumprod[t]).sqrt()
            leaf = z.detach().requires_grad_(self.through_unet)
            with torch.set_grad_enabled(self.through_unet):
                clean, correction = self._denoise(leaf, t, text, alpha, sigma)
            gradient = self._gradient(leaf, clean, labels, indices, i)
            clean = self._move(clean.detach(), correction.detach(), gradient)
            output = (alpha * z - clean) / sigma if self._predicts_v else (z - alpha * clean) / sigma
            z = scheduler.step(output, t, z).prev_sample
        return z

    @property
    def _predicts_v(self) -> bool:
        return self.synthesizer.model.prediction_type == "v_prediction"

    def _denoise(
        self, z: torch.Tensor, t: torch.Tensor, text: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        out = self.synthesizer.model.unet(torch.cat([z, z]), t, text).sample
        both = torch.cat([z, z])
        clean = alpha * both - sigma * out if self._predicts_v else (both - sigma * out) / alpha
        free, conditional = clean.chunk(2)
        correction = self.synthesizer.config.sampling.guidance_scale * (conditional - free)
        return free + correction, correction

    def _gradient(
        self, z: torch.Tensor, clean: torch.Tensor, labels: torch.Tensor, indices: Sequence[int], i: int
    ) -> torch.Tensor:
        synthesizer = self.synthesizer
        leaf = z if self.through_unet else clean.detach().requires_grad_(True)
        with torch.enable_grad():
            energy = self.energy(decode(synthesizer, clean if self.through_unet else leaf), labels, indices, i)
            (gradient,) = torch.autograd.grad(energy.sum(), leaf)
        return gradient

    def energy(self, images: torch.Tensor, labels: torch.Tensor, indices: Sequence[int], i: int) -> torch.Tensor:
        """The configured energy (n,) of images seen through this step's random views."""
        guidance, teacher = self.synthesizer.config.guidance, self.synthesizer.teacher
        size = (self.synthesizer.config.sampling.height, self.synthesizer.config.sampling.width)
        draws = view_draws(self.synthesizer.config.seed, indices, i)
        boxes = view_boxes(draws, guidance.view_scale, guidance.view_flip, size).to(images.device)
        views = view_matrices(boxes, size, teacher.config.image_size)
        logits = teacher.net(teacher.normalise(apply_view(images, *views)))
        form = objective_of(guidance)
        own = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
        value: torch.Tensor = form.class_weight * own + form.lse_weight * (logits / form.temperature).logsumexp(1)
        return value

    def _move(self, clean: torch.Tensor, correction: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        length = self.synthesizer.config.guidance.scale * _rms(correction) / _rms(gradient).clamp_min(1e-12)
        return clean - length * gradient


def _rms(x: torch.Tensor) -> torch.Tensor:
    return x.square().mean((1, 2, 3), keepdim=True).sqrt()


@dataclass
class DiffusersPipeline:
    """``diffusers.StableDiffusionPipeline`` as it comes, eager float32, with the run's noise and prompts."""

    synthesizer: Synthesizer

    def latents(self, rows: Sequence[PlanRow]) -> torch.Tensor:
        """Final latents of some plan rows, not guided by energy."""
        synthesizer, sampling = self.synthesizer, self.synthesizer.config.sampling
        pipe = StableDiffusionPipeline(
            vae=None,  # decoded by the caller: the bundled autoencoder is of a kind that this pipeline cannot size
            text_encoder=None,
            tokenizer=None,
            unet=synthesizer.model.unet,
            scheduler=scheduler_of(synthesizer),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipe.set_progress_bar_config(disable=True)
        pipe.vae_scale_factor = synthesizer.model.vae_factor
        noise = initial_latents(synthesizer.config.seed, [row.index for row in rows], synthesizer.sampler.latent_shape)
        made = pipe(
            prompt_embeds=encode_text(synthesizer, [row.prompt for row in rows]),
            negative_prompt_embeds=encode_text(synthesizer, [row.negative_prompt for row in rows]),
            height=sampling.height,
            width=sampling.width,
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance_scale,
            latents=noise.to(synthesizer.device),
            output_type="latent",
        )
        latents: torch.Tensor = made.images
        return latents


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """``-log softmax(f)_y`` of each row: the same judge for every variant."""
    return F.cross_entropy(logits, labels, reduction="none")
