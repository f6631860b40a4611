"""An energy of your own in the place of a configured objective.

Guidance lowers an energy of the teacher's logits; ``guidance.objective`` chooses among four. Any other function of
logits and labels does as well where the run is put together by hand: an engine of its gradient is made, and the run is
given that engine. Here it is the margin, ``E = max_{k != y} f_k - f_y``.

The images stay in memory: no configuration can name such an energy, so a run's hash would not know of it, and neither
would the compiled engines.

    python examples/own_objective.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from prism_engines.backends.eager import EagerGradientEngine, EnergyAndCotangent

import prism_fast
from prism_fast.config import assign
from prism_fast.dataset.plan import build_plan
from prism_fast.guidance.network import LatentClassifier
from prism_fast.process import prepare
from prism_fast.synthesis.synthesizer import Made, Synthesizer

IMAGES = 16
SETTINGS = ["engines.backend=eager", "sampling.steps=6", f"sampling.batch_size={IMAGES}", "guidance.settled_below=null"]


def margin(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """How far the best other class is above the sample's own. Shapes: (n, classes), (n,) to (n,)."""
    own = labels[:, None]
    return logits.scatter(1, own, -torch.inf).amax(1) - logits.gather(1, own)[:, 0]


def with_cotangent(energy: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> EnergyAndCotangent:
    """The energy (n,) together with its gradient by the logits (n, classes), as an engine takes it.

    No row may look at another one: then the gradient of the sum holds that of each sample.
    """

    def value_and_cotangent(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = logits.detach().requires_grad_(True)
        with torch.enable_grad():
            value = energy(leaf, labels)
            (cotangent,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), cotangent

    return value_and_cotangent


def guided_by(run: Synthesizer, energy: EnergyAndCotangent) -> Synthesizer:
    """The same run, whose gradient is that of another energy."""
    network = LatentClassifier(run.gradient_decoder, run.teacher, run.view_size)
    return run.with_engines(replace(run.engines, energy_gradient=EagerGradientEngine(network, energy)))


def describe(name: str, made: Made) -> None:
    """What the images have of our energy, and how many the teacher takes for their class."""
    logits = torch.stack([sample.logits for sample in made.samples])
    labels = torch.tensor([sample.label for sample in made.samples])
    right = (logits.argmax(1) == labels).float().mean()
    print(f"{name:14} mean margin {margin(logits, labels).mean():6.2f}, recognised {right:.0%}")


def main() -> None:
    """The same rows and noise without guidance, by cross-entropy, and by the margin."""
    prepare()
    config = prism_fast.load_config("minis-emoji", SETTINGS)
    rows = build_plan(config, IMAGES)
    run = Synthesizer.load(config)
    unguided = Synthesizer(assign(config, {"guidance.enabled": False}), run.model, run.teacher, run.hashes)
    describe("unguided", unguided.make(rows))
    describe("cross_entropy", run.make(rows))
    describe("margin (ours)", guided_by(run, with_cotangent(margin)).make(rows))


if __name__ == "__main__":
    main()
