"""The guided sampling loop: one batch from noise to latents.

Per step, with prediction combined by classifier-free guidance ``w``::

    denoised  = clean latents predicted from z
    E, g      = energy engine(denoised, view)
    denoised' = denoised - rho · g,  rho = scale · rms(CFG correction of denoised) / rms(g), where E > margin
    z'        = solver.step(z, denoised', i)

No line couples the samples of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from prism_engines.base import Engine
from prism_kernels import guided_step

from prism_fast.config import GuidanceConfig, SamplingConfig
from prism_fast.guidance.view import view_matrices
from prism_fast.sampling.grid import Grid
from prism_fast.sampling.noise import initial_latents, view_draws
from prism_fast.sampling.solvers import make_solver


@dataclass(frozen=True)
class Batch:
    """What one batch of samples is made from.

    ``conditions`` are the UNet's inputs after ``z`` and ``t``, unconditional rows first: the text and, for SDXL,
    pooled text and time ids.

    Shapes: labels (n,), margins (n,), conditions (2n, ...).
    """

    indices: tuple[int, ...]
    labels: torch.Tensor
    conditions: tuple[torch.Tensor, ...]
    margins: torch.Tensor


@dataclass(frozen=True)
class Sampled:
    """Final latents (n, c, h, w), energy before the first guided step (n,), and which samples stayed finite (n,).

    ``guided`` counts the guided steps of each sample, ``refused`` those whose gradient was not usable.
    """

    latents: torch.Tensor
    energy_before: torch.Tensor
    finite: torch.Tensor
    guided: torch.Tensor
    refused: torch.Tensor


@dataclass(frozen=True)
class Engines:
    """What a run computes with.

    ``text_encoder``: (tokens, mask) to hidden states, SDXL has a second one; ``unet``: (z, t, text) to prediction;
    ``decoder``: latents to images in [0, 1]; ``energy_gradient``: (latents, labels, rows, columns) to energy, gradient
    and logits.
    """

    text_encoder: Engine
    unet: Engine
    decoder: Engine
    energy_gradient: Engine
    text_encoder_2: Engine | None = None


class GuidedSampler:
    """Sampling with fixed networks, grid and settings."""

    def __init__(
        self,
        engines: Engines,
        grid: Grid,
        prediction_type: str,
        latent_shape: tuple[int, int, int],
        seed: int,
        sampling: SamplingConfig,
        guidance: GuidanceConfig,
        image_size: tuple[int, int],
        teacher_size: int,
    ) -> None:
        self.engines, self.grid, self.prediction_type, self.latent_shape = engines, grid, prediction_type, latent_shape
        self.seed, self.sampling, self.guidance = seed, sampling, guidance
        self.image_size, self.teacher_size = image_size, teacher_size
        first, last = (round(x * len(grid)) for x in guidance.window)
        self.guided_steps = range(first, last) if guidance.enabled else range(0)

    def unet_inputs(self, z: torch.Tensor, i: int, batch: Batch) -> tuple[torch.Tensor, ...]:
        """Both branches of classifier-free guidance in one batch: (2n, c, h, w), (2n,), (2n, tokens, width), ..."""
        t = torch.full((2 * len(z),), self.grid.timesteps[i], device=z.device)
        return torch.cat([z, z]).to(batch.conditions[0].dtype), t, *batch.conditions

    def denoise(self, z: torch.Tensor, i: int, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Predicted clean latents and the RMS (n,) of their CFG correction."""
        out = self.engines.unet.run(*self.unet_inputs(z, i, batch))[0].float()
        free, conditional = (self._clean(z, part, i) for part in out.chunk(2))
        correction = self.sampling.guidance_scale * (conditional - free)
        return free + correction, correction.square().flatten(1).mean(1).sqrt()

    def _clean(self, z: torch.Tensor, prediction: torch.Tensor, i: int) -> torch.Tensor:
        alpha, sigma = self.grid.alphas[i], self.grid.sigmas[i]
        if self.prediction_type == "v_prediction":
            return alpha * z - sigma * prediction
        return (z - sigma * prediction) / alpha

    def views(self, indices: Sequence[int], i: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """This step's random view of each sample."""
        rows, columns = view_matrices(
            view_draws(self.seed, indices, i),
            self.guidance.view_scale,
            self.guidance.view_flip,
            self.image_size,
            self.teacher_size,
        )
        return rows.to(device), columns.to(device)

    def _gradient(
        self, z: torch.Tensor, denoised: torch.Tensor, i: int, batch: Batch
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Energy (n,) and its gradient (n, c, h, w) by the denoised latents, or by ``z`` through the UNet."""
        views = self.views(batch.indices, i, z.device)
        if self.guidance.mode == "denoised":
            energy, gradient, _ = self.engines.energy_gradient.run(denoised, batch.labels, *views)
            return energy, gradient
        with torch.enable_grad():
            leaf = z.detach().requires_grad_(True)
            clean, _ = self.denoise(leaf, i, batch)
            energy, at_clean, _ = self.engines.energy_gradient.run(clean.detach(), batch.labels, *views)
            (gradient,) = torch.autograd.grad(clean, leaf, at_clean)
        return energy, gradient

    @torch.no_grad()
    def sample(self, batch: Batch, device: torch.device) -> Sampled:
        """Run every step for one batch."""
        n = len(batch.indices)
        z = initial_latents(self.seed, batch.indices, self.latent_shape).to(device)
        solver = make_solver(self.sampling.solver, self.grid)
        before = torch.full((n,), float("nan"), device=device)
        guided, refused = (torch.zeros(n, dtype=torch.int64, device=device) for _ in range(2))
        energy = gradient = None
        for i in range(len(self.grid)):
            denoised, correction_rms = self.denoise(z, i, batch)
            if i in self.guided_steps:
                if gradient is None or energy is None or (i - self.guided_steps.start) % self.guidance.every == 0:
                    energy, gradient = self._gradient(z, denoised, i, batch)
                if i == self.guided_steps.start:
                    before = energy
                active = energy > batch.margins
                step = guided_step(
                    denoised, gradient, correction_rms, active, self.guidance.scale, self.guidance.max_gradient_rms
                )
                denoised = step.denoised
                guided += active & step.healthy
                refused += ~step.healthy
            z = solver.step(z, denoised, i)
        finite = torch.isfinite(z).flatten(1).all(1)
        return Sampled(z, before, finite, guided, refused)
