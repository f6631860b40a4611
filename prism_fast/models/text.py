"""Prompt embeddings, per text encoder architecture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from prism_engines.base import Engine
from torch import nn
from transformers import BatchEncoding, PreTrainedTokenizerBase


def tokenize(prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> BatchEncoding:
    """Token ids and attention mask, padded to ``model_max_length``: int64 (n, tokens) each."""
    out: BatchEncoding = tokenizer(
        list(prompts),
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )
    return out


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


class TextPenultimate(nn.Module):
    """``(token ids, attention mask) -> (hidden states, pooled)`` of one of Stable Diffusion XL's two encoders.

    SDXL attends to the last layer but one of both, side by side, and adds the second one's pooled projection to the
    UNet's time embedding; the first one's pooled output is not used. Reference: Podell et al. 2023, section 2.1.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Shapes: both inputs (n, tokens), int64; returns (n, tokens, width) and (n, projection)."""
        out = self.encoder(tokens, output_hidden_states=True)
        return out.hidden_states[-2], out[0] if out[0].dim() == 2 else out.pooler_output


@dataclass(frozen=True)
class Embedding:
    """What the UNet is told of each prompt: ``text`` (n, tokens, width), and ``pooled`` (n, projection) for SDXL."""

    text: torch.Tensor
    pooled: torch.Tensor | None = None

    def rows(self) -> list[Embedding]:
        """One embedding a prompt."""
        pooled = [None] * len(self.text) if self.pooled is None else [p.unsqueeze(0) for p in self.pooled]
        return [Embedding(t.unsqueeze(0), p) for t, p in zip(self.text, pooled, strict=True)]

    @staticmethod
    def join(parts: Sequence[Embedding]) -> Embedding:
        """The embeddings of several groups of prompts, one after another."""
        pooled = [p.pooled for p in parts if p.pooled is not None]
        return Embedding(torch.cat([p.text for p in parts]), torch.cat(pooled) if pooled else None)


@torch.no_grad()
def encode_prompts(
    prompts: Sequence[str],
    encoders: Sequence[tuple[PreTrainedTokenizerBase, Engine]],
    device: torch.device | str = "cpu",
    batch_size: int = 64,
) -> Embedding:
    """Embed each prompt with one encoder (:class:`TextHidden`), or with SDXL's two (:class:`TextPenultimate`)."""
    parts = []
    for start in range(0, len(prompts), batch_size):
        outputs = []
        for tokenizer, engine in encoders:
            tokens = tokenize(prompts[start : start + batch_size], tokenizer).to(device)
            outputs.append(engine.run(tokens.input_ids, tokens.attention_mask))
        text = torch.cat([out[0] for out in outputs], -1)
        parts.append(Embedding(text, outputs[-1][1] if len(outputs) > 1 else None))
    return Embedding.join(parts)
