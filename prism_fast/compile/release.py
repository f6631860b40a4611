"""Give back the memory of networks that engines compute in their place."""

from __future__ import annotations

from collections.abc import Container

from torch import nn

from prism_fast.synthesis.synthesizer import Synthesizer


def release_networks(synthesizer: Synthesizer, engines: Container[str]) -> None:
    """Free the weights of each network that only ``engines`` stand for now; it lies on the meta device afterwards.

    Without that a GPU holds every network twice, the float32 one for nothing: 14 GB of SDXL's.

    Args:
        synthesizer: a run on its engines, judged and opened.
        engines: the parts that engines compute; none of them, and nothing is freed.
    """
    for network, parts in _uses(synthesizer):
        if all(part in engines for part in parts):
            network.to("meta")


def _uses(synthesizer: Synthesizer) -> list[tuple[nn.Module, tuple[str, ...]]]:
    """Each network, and the parts of this run that it computes."""
    model, guided = synthesizer.model, ("energy_gradient",) * synthesizer.config.guidance.enabled
    networks = {step.network for step in synthesizer.sampler.savings}
    light = synthesizer.light_decoder
    eager_views = ("views",) * (synthesizer.labeller is not None and not synthesizer.views_by_engine)
    found: list[tuple[nn.Module, tuple[str, ...]]] = [
        (model.text_encoder, ("text_encoder",)),
        (model.unet, tuple("unet" if name == "whole" else f"unet_{name}" for name in networks)),
        (model.vae, ("decoder", *(() if light else guided))),
        (synthesizer.teacher.net, ("teacher", *guided, *eager_views)),
    ]
    if model.text_encoder_2 is not None:
        found.append((model.text_encoder_2, ("text_encoder_2",)))
    if light is not None:
        found.append((light, guided))
    return found
