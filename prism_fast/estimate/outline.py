"""A run's networks without their weights, on torch's meta device: shapes alone."""

from __future__ import annotations

from pathlib import Path

from prism_fast.config import RunConfig
from prism_fast.errors import InputError
from prism_fast.labels.load import load_label_space
from prism_fast.models.bundled import resolve
from prism_fast.models.classifier import outline_classifier
from prism_fast.models.diffusion import LightDecoder, outline_diffusion, outline_light_decoder
from prism_fast.models.label_space import for_label_space
from prism_fast.synthesis.synthesizer import Synthesizer


def outline_run(config: RunConfig) -> Synthesizer:
    """The run as :class:`Synthesizer` knows it, float32, with nothing allocated; it can be counted, not sampled.

    Raises:
        DataError: a model directory is missing or wrong.
        InputError: the run differentiates the UNet, which is not counted; or teacher and label space do not fit.
    """
    if config.guidance.enabled and config.guidance.mode == "latent":
        raise InputError("guidance.mode is latent, which is the slow reference and not planned for; choose denoised")
    sampling = config.sampling.model_copy(update={"device": "meta", "dtype": "float32"})
    config = config.model_copy(update={"sampling": sampling})
    model = outline_diffusion(Path(resolve(config.models.diffusion, "diffusion")))
    named = outline_classifier(resolve(config.models.teacher, "teacher"))
    teacher = for_label_space(named, load_label_space(config.labels))
    return Synthesizer(config, model, teacher, {}, None, _light(config))


def _light(config: RunConfig) -> LightDecoder | None:
    if not config.guidance.enabled or config.guidance.decoder != "light":
        return None
    assert config.models.light_decoder is not None  # the configuration sees to it
    return outline_light_decoder(Path(resolve(config.models.light_decoder, "light_decoder")))
