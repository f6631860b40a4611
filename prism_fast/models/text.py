"""Prompt embeddings, per text encoder architecture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import BatchEncoding, PreTrainedTokenizerBase


def tokenize(prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> BatchEncoding:
    """Token ids and attention mask, padded to ``model_max_length``: int64 (n, tokens) each."""
    return tokenizer(
        list(prompts),
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )


@torch.no_grad()
def encode_prompts(
    prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase, encoder: nn.Module, batch_size: int = 64
) -> torch.Tensor:
    """Embed each prompt as the UNet's cross-attention expects it.

    Pads to the tokenizer's ``model_max_length``, as Stable Diffusion does; the attention mask is passed when the
    encoder's config says ``use_attention_mask``, the convention of diffusers' own pipelines.

    Shapes: returns (len(prompts), tokens, width), in the encoder's dtype.
    """
    config = encoder.config
    device = next(encoder.parameters()).device
    parts = []
    for start in range(0, len(prompts), batch_size):
        tokens = tokenize(prompts[start : start + batch_size], tokenizer).to(device)
        mask = tokens.attention_mask if getattr(config, "use_attention_mask", False) else None
        parts.append(encoder(tokens.input_ids, attention_mask=mask)[0])
    return torch.cat(parts)
