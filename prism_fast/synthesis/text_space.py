"""Prompts as points: the space of the text encoder that a run's model already has.

Two prompts that the UNet is told nearly the same lie near each other, whatever their words are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from torch.nn.functional import normalize
from transformers import PreTrainedTokenizerBase

from prism_fast.config import RunConfig
from prism_fast.models.bundled import resolve
from prism_fast.models.device import require_device
from prism_fast.models.diffusion import load_text_encoders
from prism_fast.models.text import TextHidden, TextPenultimate, tokenize, too_long
from prism_fast.synthesis.memory import enough_memory

#: Prompts encoded at once: of Stable Diffusion XL's two encoders their hidden states are 40 MB.
BATCH = 64


class TextSpace:
    """Where prompts lie for a model: the mean over a prompt's own tokens of what the UNet attends to, of length one.

    With hidden states ``h_t`` and the attention mask ``m_t``, begin and end of the text included::

        v = u / |u|,   u = sum_t m_t h_t / sum_t m_t

    The hidden states are the encoder's last ones, of Stable Diffusion XL the last but one of both, side by side.
    Everything is float32, whatever ``sampling.dtype`` is.
    """

    def __init__(
        self, encoders: Sequence[tuple[PreTrainedTokenizerBase, nn.Module]], device: torch.device | str = "cpu"
    ) -> None:
        self.device = torch.device(device)
        wrap = TextPenultimate if len(encoders) > 1 else TextHidden
        self._encoders = [(tokenizer, wrap(encoder)) for tokenizer, encoder in encoders]

    @classmethod
    def load(cls, config: RunConfig) -> Self:
        """The text encoders of a run's diffusion model alone, on the run's device.

        Raises:
            DataError: the model's directory is not there or wrong. InputError: the device cannot be used.
        """
        device = require_device(config.sampling.device)
        path = Path(resolve(config.models.diffusion, "diffusion"))
        with enough_memory():
            return cls(load_text_encoders(path, str(device), torch.float32), device)

    @property
    def limit(self) -> int:
        """How many tokens of a prompt the encoders take, begin and end included."""
        return int(self._encoders[0][0].model_max_length)

    def tokens(self, prompts: Sequence[str]) -> list[int]:
        """How many tokens each prompt has, begin and end included, before anything is cut; of two encoders the more."""
        counts = [[n for _, n in too_long(prompts, tokenizer, -1)] for tokenizer, _ in self._encoders]
        return [max(found) for found in zip(*counts, strict=True)]

    @torch.no_grad()
    def vectors(self, prompts: Sequence[str]) -> torch.Tensor:
        """Each prompt's point; one that comes several times is encoded once.

        Shapes: (n, width), float32, on the run's device.

        Raises:
            RunError: the device's memory does not suffice.
        """
        places = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
        distinct = list(places)
        with enough_memory():
            parts = [self._pooled(distinct[start : start + BATCH]) for start in range(0, len(distinct), BATCH)]
            found = torch.cat(parts) if parts else torch.empty(0, self._width(), device=self.device)
            return found[torch.tensor([places[prompt] for prompt in prompts], dtype=torch.long, device=self.device)]

    def _pooled(self, prompts: Sequence[str]) -> torch.Tensor:
        """Of one batch, so that the hidden states of many prompts are never held together."""
        means = []
        for tokenizer, encoder in self._encoders:
            found = tokenize(prompts, tokenizer)
            ids, mask = found.input_ids.to(self.device), found.attention_mask.to(self.device)
            out = encoder(ids, mask)
            hidden = (out[0] if isinstance(out, tuple) else out).float()
            own = mask.unsqueeze(-1).to(hidden.dtype)
            means.append((hidden * own).sum(1) / own.sum(1).clamp_min(1))
        return normalize(torch.cat(means, dim=-1), dim=-1)

    def _width(self) -> int:
        configs: list[Any] = [encoder.encoder.config for _, encoder in self._encoders]
        return sum(config.hidden_size for config in configs)
