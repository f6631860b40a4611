"""Prompt embeddings, per text encoder architecture."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from prism_engines.base import Engine
from torch import nn
from transformers import BatchEncoding, PreTrainedTokenizerBase

from prism_fast.errors import DataError

#: What transformers says where a tokenizer says no length is 10^30.
_NO_LIMIT = 1_000_000
_told: set[str] = set()


def limit_tokens(encoders: Sequence[tuple[Path, Any, Any]]) -> None:
    """Set the ``model_max_length`` of each (directory, tokenizer, text encoder) to what all of them can take.

    A tokenizer that says no length gets the encoder's number of positions, and so does one that says more; the texts
    of two encoders lie side by side and must be equally long.

    Raises:
        DataError: neither says a length, or a tokenizer cannot pad or knows words that its encoder does not.
    """
    limits = []
    for path, tokenizer, encoder in encoders:
        if tokenizer.pad_token_id is None:
            raise DataError(f"{path} has no padding token; set pad_token in tokenizer_config.json")
        if len(tokenizer) > encoder.config.vocab_size:
            raise DataError(
                f"{path} knows {len(tokenizer)} tokens, its text encoder {encoder.config.vocab_size}; give the "
                "tokenizer that the encoder was trained with"
            )
        limits.append(min(tokenizer.model_max_length, _positions(encoder.config)))
        if limits[-1] >= _NO_LIMIT:
            raise DataError(f"{path} says no model_max_length and its encoder no number of positions; set the former")
    for _, tokenizer, _ in encoders:
        if tokenizer.model_max_length != min(limits):
            tokenizer.model_max_length = min(limits)


def _positions(config: Any) -> int:
    positions = getattr(config, "max_position_embeddings", None)
    if not positions:
        return _NO_LIMIT
    counted_from_padding = "roberta" in str(getattr(config, "model_type", ""))  # its first position is padding + 1
    return int(positions) - ((config.pad_token_id or 0) + 1 if counted_from_padding else 0)


def too_long(prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase, limit: int) -> list[tuple[str, int]]:
    """Prompts of more than ``limit`` tokens, begin and end included, each with its number of tokens."""
    if not prompts:
        return []
    found = tokenizer(list(prompts), truncation=False, padding=False, verbose=False).input_ids
    return [(prompt, len(ids)) for prompt, ids in zip(prompts, found, strict=True) if len(ids) > limit]


def tokenize(prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> BatchEncoding:
    """Token ids and attention mask, padded to ``model_max_length``: int64 (n, tokens) each.

    Prompts that are longer are cut; the first time in a process, a warning is logged that names one.
    """
    out: BatchEncoding = tokenizer(
        list(prompts),
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )
    if "cut" not in _told:
        full = [p for p, mask in zip(prompts, out.attention_mask, strict=True) if bool(mask.all())]
        _warn_of_cut(full, tokenizer, tokenizer.model_max_length)
    return out


def _warn_of_cut(prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase, limit: int) -> None:
    if not (cut := too_long(prompts, tokenizer, limit)):
        return
    _told.add("cut")
    (first, length), shown = cut[0], 60
    logging.getLogger("prism_fast").warning(
        "%d of the prompts are cut to the text encoder's %d tokens, the first has %d: %r%s; shorten what stands before "
        "the class",
        len(cut),
        limit,
        length,
        first[:shown],
        " ..." if len(first) > shown else "",
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

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """Those that there are."""
        return (self.text,) if self.pooled is None else (self.text, self.pooled)

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
            tokens = tokenize(prompts[start : start + batch_size], tokenizer)
            outputs.append(engine.run(*(_moved(x, device) for x in (tokens.input_ids, tokens.attention_mask))))
        text = torch.cat([out[0] for out in outputs], -1)
        parts.append(Embedding(text, outputs[-1][1] if len(outputs) > 1 else None))
    return Embedding.join(parts)


def _moved(x: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """A tensor of the host on ``device``; to a GPU from pinned memory, so that nobody waits for the copy."""
    pinned = torch.device(device).type == "cuda" and torch.cuda.is_available()  # a fake device has no driver
    return (x.pin_memory() if pinned else x).to(device, non_blocking=True)
