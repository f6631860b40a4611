"""A small resumable training loop: time budget, checkpoints, a weight average."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prism_fast.storage.files import building

#: A longer step is time that the process was suspended: it does not count.
_LONGEST_STEP_S = 10.0


@dataclass(frozen=True)
class Budget:
    """How long to train: ``seconds`` of wall time over all runs, and how often to save."""

    seconds: float
    save_every_s: float = 120.0
    log_every_s: float = 30.0


def cosine(progress: float, warmup: float = 0.02, floor: float = 0.02) -> float:
    """Learning-rate factor: linear warm-up, then cosine down to ``floor``; ``progress`` in [0, 1]."""
    if progress < warmup:
        return progress / warmup + 1e-3
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class Trainer:
    """Run ``step`` until the budget is spent; a second run goes on from the last checkpoint.

    Args:
        model: trained in place.
        step: ``(model, progress) -> loss`` for one batch.
        lr: peak learning rate of AdamW.
        ema: decay of the weight average, kept in ``average``.
    """

    def __init__(
        self,
        model: nn.Module,
        step: Callable[[float], torch.Tensor],
        lr: float,
        path: Path,
        ema: float = 0.999,
        log: Callable[[str], None] = print,
    ) -> None:
        self.model, self.step, self.lr, self.path, self.log = model, step, lr, path, log
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01, betas=(0.9, 0.99), fused=True)
        self.average = torch.optim.swa_utils.AveragedModel(
            model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(ema)
        )
        self.spent_s, self.steps = 0.0, 0

    def _save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "steps": self.steps,
            "optimizer": self.optimizer.state_dict(),
            "spent_s": self.spent_s,
            "rng": torch.get_rng_state(),
        }
        with building(self.path) as staged:
            torch.save(state, staged)

    def _resume(self) -> None:
        if not self.path.exists():
            return
        state: dict[str, Any] = torch.load(self.path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.spent_s, self.steps = state["spent_s"], state["steps"]
        torch.set_rng_state(state["rng"])
        self.log(f"resumed {self.path} after {self.steps} steps, {self.spent_s:.0f} s")

    def run(self, budget: Budget) -> nn.Module:
        """Train, and return the averaged model."""
        self._resume()
        last = saved = logged = time.monotonic()
        running: torch.Tensor | None = None
        while self.spent_s < budget.seconds:
            progress = self.spent_s / budget.seconds
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr * cosine(progress)
            loss = self.step(progress)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.average.update_parameters(self.model)
            self.steps += 1
            running = loss.detach() if running is None else running.lerp(loss.detach(), 0.02)
            now = time.monotonic()
            self.spent_s += min(now - last, _LONGEST_STEP_S)
            last = now
            if now - logged > budget.log_every_s:
                spent = f"{self.spent_s:.0f}/{budget.seconds:.0f} s"
                self.log(f"{self.path.stem}: step {self.steps}, {spent}, loss {running.item():.4f}")
                logged = now
            if now - saved > budget.save_every_s:
                self._save()
                saved = now
        self._save()
        averaged: nn.Module = self.average.module
        return averaged.eval()
