"""Train the minis' UNet: diffusers' ``UNet2DConditionModel`` on the autoencoder's latents, v-prediction.

Reference: Salimans & Ho 2022, "Progressive distillation" (v-prediction); Ho & Salimans 2021 (classifier-free guidance:
one caption in ten is empty).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderDC, DDIMScheduler, UNet2DConditionModel
from prism_engines.backends.eager import EagerEngine
from torch import nn
from transformers import PreTrainedTokenizerBase

from prism_fast.evaluation.pictures import Pictures
from prism_fast.labels.load import load_label_space
from prism_fast.minis.autoencoder import LATENT_CHANNELS
from prism_fast.minis.training import Budget, Trainer
from prism_fast.models.text import TextHidden, encode_prompts

BATCH, EMPTY_CAPTIONS = 64, 0.1
#: Compiling takes 100 s and makes a step 1.2 times faster: a longer training earns it back.
_COMPILE_FROM_S = 900.0
#: (share, template); a class-level caption teaches prompts that name no concept.
CAPTIONS = (
    (0.75, "a {style} style emoji of {concept}"),
    (0.15, "a {style} style emoji of {concept}, {sense}"),
    (0.05, "an emoji of {concept}"),
    (0.05, "a {style} style emoji of a {sense}"),
)


def make_unet() -> UNet2DConditionModel:
    """Untrained UNet for 8×8×16 latents, cross-attention at both levels."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(128, 192),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        layers_per_block=1,
        cross_attention_dim=384,
        attention_head_dim=2,
        norm_num_groups=16,
    )


def make_scheduler() -> DDIMScheduler:
    """Cosine noise schedule, v-prediction."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )


def captions_of(pictures: Pictures) -> list[list[str]]:
    """Every caption of every picture, in the order of ``CAPTIONS``."""
    classes = load_label_space("emoji").classes
    return [
        [t.format(style=style, concept=concept, sense=classes[label].phrase) for _, t in CAPTIONS]
        for concept, style, label in zip(pictures.concepts, pictures.styles, pictures.labels.tolist(), strict=True)
    ]


@torch.no_grad()
def encode_pictures(vae: AutoencoderDC, pictures: Pictures) -> torch.Tensor:
    """Scaled latents of each picture: (n, 16, 8, 8). Mirror images would double what this small model must learn."""
    x = pictures.images.float() / 127.5 - 1
    latents = torch.cat([vae.encode(part).latent for part in x.split(128)])
    return latents * float(vae.config.scaling_factor)


def train_unet(
    latents: torch.Tensor,
    captions: list[list[str]],
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: nn.Module,
    work: Path,
    budget: Budget,
    log: Callable[[str], None] = print,
) -> UNet2DConditionModel:
    """Train on latents (n, c, h, w) and their captions; return the averaged UNet."""
    torch.manual_seed(0)
    table = {text: i for i, text in enumerate(dict.fromkeys(["", *(t for row in captions for t in row)]))}
    embeddings = encode_prompts(list(table), [(tokenizer, EagerEngine(TextHidden(text_encoder), "text"))]).text.half()
    index = torch.tensor([[table[t] for t in row] for row in captions])
    shares = torch.tensor([share for share, _ in CAPTIONS])
    alphas = make_scheduler().alphas_cumprod
    unet = make_unet().train()
    forward = torch.compile(unet) if budget.seconds > _COMPILE_FROM_S else unet
    # Measured at batch 64: with AMX bf16 111 images/s, fp32 72; without AMX bf16 58, fp32 70.
    half = torch.cpu._is_amx_tile_supported()

    def step(progress: float) -> torch.Tensor:
        rows = torch.randint(len(latents), (BATCH,))
        z = latents[rows]
        text = index[rows, torch.multinomial(shares, BATCH, replacement=True)]
        text = torch.where(torch.rand(BATCH) < EMPTY_CAPTIONS, table[""], text)
        t = torch.randint(1000, (BATCH,))
        alpha, sigma = alphas[t].sqrt().view(-1, 1, 1, 1), (1 - alphas[t]).sqrt().view(-1, 1, 1, 1)
        noise = torch.randn_like(z)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            v = forward(alpha * z + sigma * noise, t, embeddings[text].float()).sample
        return F.mse_loss(v.float(), alpha * noise - sigma * z)

    averaged = Trainer(unet, step, 1e-3, work / "unet.pt", ema=0.999, log=log).run(budget)
    assert isinstance(averaged, UNet2DConditionModel)
    return averaged
