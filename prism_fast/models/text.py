"""Prompt embeddings, per text encoder architecture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from prism_engines.base import Engine
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


class TextHidden(nn.Module):
    """``(token ids, attention mask) -> hidden states`` of a text encoder, as the UNet's cross-attention expects them.

    The mask is passed on when the encoder's config says ``use_attention_mask``, the convention of diffusers' pipelines.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.masked = encoder, bool(getattr(encoder.config, "use_attention_mask", False))

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Shapes: both inputs (n, tokens), int64; returns (n, tokens, width)."""
        out: torch.Tensor = self.encoder(tokens, attention_mask=mask if self.masked else None)[0]
        return out


@torch.no_grad()
def encode_prompts(
    prompts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    encoder: Engine,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
) -> torch.Tensor:
    """Embed each prompt with an engine of :class:`TextHidden`.

    Shapes: returns (len(prompts), tokens, width), in the encoder's dtype.
    """
    parts = []
    for start in range(0, len(prompts), batch_size):
        tokens = tokenize(prompts[start : start + batch_size], tokenizer).to(device)
        parts.append(encoder.run(tokens.input_ids, tokens.attention_mask)[0])
    return torch.cat(parts)
