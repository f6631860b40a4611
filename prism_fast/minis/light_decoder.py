"""Train the minis' light decoder: a TAESD-class ``AutoencoderTiny`` that imitates the full decoder on its latents.

Energy guidance back-propagates through a decoder at every gradient; the final image is decoded by the full one.
Reference: Bohan 2023, TAESD. Widths and loss are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderDC, AutoencoderTiny
from torch import nn

from prism_fast.evaluation.pictures import Pictures
from prism_fast.minis.autoencoder import LATENT_CHANNELS, LATENT_NOISE, reconstruction_loss
from prism_fast.minis.training import Budget, Trainer

#: Noised copies of each latent, decoded once: the full decoder costs more than a training step of the light one.
BATCH, COPIES = 32, 6


class _Decoder(nn.Module):
    """The half that is trained; the encoder of the class stays as it was made and is never used."""

    def __init__(self, vae: AutoencoderTiny) -> None:
        super().__init__()
        self.decoder = vae.decoder

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        images: torch.Tensor = self.decoder(latents)
        return images


def make_light_decoder() -> AutoencoderTiny:
    """Untrained: eightfold magnification, no block at full resolution."""
    return AutoencoderTiny(
        latent_channels=LATENT_CHANNELS,
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(16, 16, 16, 16),
        num_encoder_blocks=(0, 0, 0, 0),
        num_decoder_blocks=(4, 3, 1, 0),
        scaling_factor=1.0,
    )


def train_light_decoder(
    full: AutoencoderDC, latents: torch.Tensor, work: Path, budget: Budget, log: Callable[[str], None] = print
) -> AutoencoderTiny:
    """Train on scaled latents (n, c, 8, 8), noised, to give the full decoder's images."""
    torch.manual_seed(0)
    vae = make_light_decoder()
    student, teacher = _Decoder(vae).train(), full.decoder.eval()
    scale = float(full.config.scaling_factor)
    noised = latents.repeat(COPIES, 1, 1, 1)
    noised += 4 * LATENT_NOISE * torch.rand(len(noised), 1, 1, 1) * torch.randn_like(noised)
    with torch.no_grad():
        targets = torch.cat([teacher(part / scale).half() for part in noised.split(128)])

    def step(progress: float) -> torch.Tensor:
        rows = torch.randint(len(noised), (BATCH,))
        return reconstruction_loss(student(noised[rows]), targets[rows].float())

    averaged = Trainer(student, step, 3e-3, work / "light_decoder.pt", ema=0.99, log=log).run(budget)
    vae.decoder.load_state_dict(averaged.get_submodule("decoder").state_dict())
    return vae.eval()


@torch.no_grad()
def light_psnr(light: AutoencoderTiny, full: AutoencoderDC, pictures: Pictures, limit: int = 256) -> float:
    """Peak signal-to-noise ratio in dB against the full decoder's images of the first ``limit`` pictures' latents."""
    latents = full.encode(pictures.images[:limit].float() / 127.5 - 1).latent
    wanted = full.decode(latents).sample.clamp(-1, 1)
    found = light.decode(latents * float(full.config.scaling_factor)).sample.clamp(-1, 1)
    return float(10 * torch.log10(4 / (found - wanted).square().mean((1, 2, 3))).mean())
