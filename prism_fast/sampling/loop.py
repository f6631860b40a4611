"""The guided sampling loop: one batch from noise to latents.

Per step, with prediction combined by classifier-free guidance ``w``::

    denoised  = clean latents predicted from z
    E, g      = energy engine(denoised, view)
    denoised' = denoised - rho · g,  rho = scale · rms(CFG correction of denoised) / rms(g), where E > margin
    z'        = a · z + b · denoised' + c · previous denoised'

What a step computes is decided beforehand (:mod:`prism_fast.sampling.savings`) and whatever the host contributes
(noise, views, timesteps) is made and moved before the first step, so that the loop never waits for the device, unless
samples may settle (``guidance.settled_below``). No line couples the samples of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from prism_engines.base import Engine
from prism_kernels import guided_combine, guided_step

from prism_fast.config import GuidanceConfig, SamplingConfig
from prism_fast.guidance.view import view_boxes
from prism_fast.sampling.noise import initial_latents, view_draws
from prism_fast.sampling.noise_schedule import NoiseSchedule
from prism_fast.sampling.savings import Step, guided_steps, make_savings
from prism_fast.sampling.solvers import CounterNoise, make_solver
from prism_fast.sampling.transfer import to_device

#: Below any gradient that float32 holds with all its digits.
TINY = 1e-30


def rms(x: torch.Tensor) -> torch.Tensor:
    """Root mean square of each sample: (n, ...) to (n,)."""
    return x.square().flatten(1).mean(1).sqrt()


@dataclass(frozen=True)
class SamplingBatch:
    """What one batch of samples is made from.

    ``conditions`` are the UNet's inputs after ``z`` and ``t``, unconditional rows first: the text and, for SDXL,
    pooled text and time ids.

    Labels and margins may lie on the host: the sampler moves them with everything else that the host contributes.

    Shapes: labels (n,), margins (n,), conditions (2n, ...).
    """

    indices: tuple[int, ...]
    labels: torch.Tensor
    conditions: tuple[torch.Tensor, ...]
    margins: torch.Tensor


@dataclass(frozen=True)
class Sampled:
    """Final latents (n, c, h, w), energy before the first guided step (n,), and which samples stayed finite (n,).

    ``guided`` counts the guided steps of each sample, ``refused`` those whose gradient was not usable. ``ready`` marks
    where on its CUDA stream all of it is computed; see :mod:`prism_fast.synthesis.streams`.
    """

    latents: torch.Tensor
    energy_before: torch.Tensor
    finite: torch.Tensor
    guided: torch.Tensor
    refused: torch.Tensor
    ready: Any = None

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All of them."""
        return self.latents, self.energy_before, self.finite, self.guided, self.refused


@dataclass(frozen=True)
class Engines:
    """What a run computes with.

    ``text_encoder``: (tokens, mask) to hidden states, SDXL has a second one; ``unet``: (z, t, text) to prediction, of
    which ``unet_deep`` also gives its deep feature and ``unet_shallow`` takes it; ``decoder``: latents to images in
    [0, 1]; ``energy_gradient``: (latents, labels, boxes) to energy, gradient and logits; ``teacher``: images in
    [0, 1] to logits.
    """

    text_encoder: Engine
    unet: Engine
    decoder: Engine
    energy_gradient: Engine
    unet_deep: Engine
    unet_shallow: Engine
    teacher: Engine
    text_encoder_2: Engine | None = None


@dataclass
class _State:
    """One batch on its way: what was moved to the device beforehand, and what one step leaves for the next."""

    batch: SamplingBatch
    noise: torch.Tensor
    indices: torch.Tensor
    both: tuple[torch.Tensor, ...]
    conditional: tuple[torch.Tensor, ...]
    timesteps: torch.Tensor
    boxes: dict[int, torch.Tensor]
    correction_rms: torch.Tensor
    feature: torch.Tensor | None = None


class GuidedSampler:
    """Sampling with fixed networks, schedule and settings."""

    def __init__(
        self,
        engines: Engines,
        schedule: NoiseSchedule,
        prediction_type: str,
        latent_shape: tuple[int, int, int],
        seed: int,
        sampling: SamplingConfig,
        guidance: GuidanceConfig,
        image_size: tuple[int, int],
    ) -> None:
        self.engines, self.schedule, self.prediction_type, self.latent_shape = (
            engines,
            schedule,
            prediction_type,
            latent_shape,
        )
        self.seed, self.sampling, self.guidance = seed, sampling, guidance
        self.image_size = image_size
        self.guided_steps = guided_steps(guidance, len(schedule))
        self.savings = make_savings(len(schedule), sampling, guidance)

    def begin(self, batch: SamplingBatch, device: torch.device) -> _State:
        """Everything that the host gives to a batch, on the device: one copy, which nobody waits for."""
        n = len(batch.indices)
        fresh = [i for i, step in enumerate(self.savings) if step.gradient == "fresh"]
        given = [
            initial_latents(self.seed, batch.indices, self.latent_shape),
            torch.tensor(batch.indices),
            torch.tensor(self.schedule.timesteps),
            batch.labels,
            batch.margins,
            *(self.boxes(batch.indices, i) for i in fresh),
        ]
        noise, indices, timesteps, labels, margins, *boxes = to_device(given, device)
        return _State(
            batch=replace(batch, labels=labels, margins=margins),
            noise=noise,
            indices=indices,
            both=batch.conditions,
            conditional=tuple(c[n:] for c in batch.conditions),
            timesteps=timesteps.unsqueeze(1).expand(-1, 2 * n),
            boxes=dict(zip(fresh, boxes, strict=True)),
            correction_rms=torch.zeros(n, device=device),
        )

    def unet_inputs(self, state: _State, z: torch.Tensor, i: int, both: bool) -> tuple[torch.Tensor, ...]:
        """Both branches of classifier-free guidance in one batch, or the conditional one: (2n or n, c, h, w), ..."""
        conditions = state.both if both else state.conditional
        z = (torch.cat([z, z]) if both else z).to(conditions[0].dtype)
        return z, state.timesteps[i, : len(z)], *conditions

    def _predict(self, state: _State, z: torch.Tensor, i: int, step: Step) -> torch.Tensor:
        """The UNet's prediction, whole or from kept features: (2n or n, c, h, w), float32."""
        inputs = self.unet_inputs(state, z, i, step.both)
        if step.network == "whole":
            return self.engines.unet.run(*inputs)[0].float()
        if step.network == "deep":
            prediction, state.feature = self.engines.unet_deep.run(*inputs)
            return prediction.float()
        assert state.feature is not None
        return self.engines.unet_shallow.run(*inputs, state.feature[-len(inputs[0]) :])[0].float()

    def denoise(self, state: _State, z: torch.Tensor, i: int, step: Step) -> torch.Tensor:
        """Predicted clean latents; the RMS (n,) of their CFG correction stays in ``state`` for steps without one."""
        prediction = self._predict(state, z, i, step)
        alpha, sigma = self.schedule.alphas[i], self.schedule.sigmas[i]
        if not step.both:
            if self.prediction_type == "v_prediction":
                return alpha * z - sigma * prediction
            return (z - sigma * prediction) / alpha
        scale, kind = self.sampling.guidance_scale, self.prediction_type
        combined = guided_combine(z, prediction, scale, alpha, sigma, kind)  # type: ignore[arg-type]
        state.correction_rms = (combined.correction_squares / z[0].numel()).sqrt()
        return combined.denoised

    def boxes(self, indices: Sequence[int], i: int) -> torch.Tensor:
        """This step's random view of each sample, (n, 5), on the CPU."""
        draws = view_draws(self.seed, indices, i)
        return view_boxes(draws, self.guidance.view_scale, self.guidance.view_flip, self.image_size)

    def _refresh(
        self, state: _State, denoised: torch.Tensor, i: int, energy: torch.Tensor, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Fresh energies and gradients of the samples that are not settled; a settled one's energy becomes -inf.

        How many there are decides how much is computed, so the host waits here for the device.
        """
        assert self.guidance.settled_below is not None
        rows = torch.nonzero(~(energy < self.guidance.settled_below)).flatten()
        settled = torch.full_like(energy, -torch.inf)
        if not len(rows):
            return settled, gradient
        inputs = (x[rows] for x in (denoised, state.batch.labels, state.boxes[i]))
        fresh_energy, fresh_gradient, _ = self.engines.energy_gradient.run(*inputs)
        return settled.index_copy(0, rows, fresh_energy), gradient.index_copy(0, rows, fresh_gradient)

    def _gradient(
        self, state: _State, z: torch.Tensor, denoised: torch.Tensor, i: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Energy (n,) and its gradient (n, c, h, w) by the denoised latents, or by ``z`` through the UNet."""
        labels, boxes = state.batch.labels, state.boxes[i]
        if self.guidance.mode == "denoised":
            energy, gradient, _ = self.engines.energy_gradient.run(denoised, labels, boxes)
            return energy, gradient
        with torch.enable_grad():
            leaf = z.detach().requires_grad_(True)
            clean = self.denoise(state, leaf, i, self.savings[i])
            energy, at_clean, _ = self.engines.energy_gradient.run(clean.detach(), labels, boxes)
            if state.both[0].dtype == torch.float32:
                (gradient,) = torch.autograd.grad(clean, leaf, at_clean)
            else:  # small gradients are zero in half precision: the UNet's backward is given ones of size one
                size = rms(at_clean).clamp_min(TINY).view(-1, 1, 1, 1)
                (gradient,) = torch.autograd.grad(clean, leaf, at_clean / size)
                gradient = gradient * size
        state.correction_rms = state.correction_rms.detach()
        return energy, gradient

    @torch.no_grad()
    def sample(self, batch: SamplingBatch, device: torch.device) -> Sampled:
        """Run every step for one batch."""
        n, guidance = len(batch.indices), self.guidance
        state = self.begin(batch, device)
        z = state.noise
        noise = CounterNoise(self.seed, state.indices, self.latent_shape)
        solver = make_solver(self.sampling.solver, self.schedule, noise)
        before = torch.full((n,), float("nan"), device=device)
        guided, refused = (torch.zeros(n, dtype=torch.int64, device=device) for _ in range(2))
        energy, gradient = before, torch.zeros_like(z)
        for i, step in enumerate(self.savings):
            denoised = self.denoise(state, z, i, step)
            if step.gradient == "none":
                z = solver.step(z, denoised, i)
                continue
            if i == self.guided_steps.start:
                energy, gradient = self._gradient(state, z, denoised, i)
                before = energy
            elif step.gradient == "fresh" and guidance.settled_below is not None:
                energy, gradient = self._refresh(state, denoised, i, energy, gradient)
            elif step.gradient == "fresh":
                energy, gradient = self._gradient(state, z, denoised, i)
            active = energy > state.batch.margins
            moved = guided_step(
                denoised,
                gradient,
                state.correction_rms,
                active,
                guidance.scale,
                guidance.max_gradient_rms,
                solver.update(z, i),
            )
            assert moved.latents is not None
            z = moved.latents
            solver.remember(moved.denoised)
            guided += active & moved.healthy
            refused += ~moved.healthy
        finite = torch.isfinite(z).flatten(1).all(1)
        return Sampled(z, before, finite, guided, refused)
