"""Load a text-to-image model from a directory in diffusers' format, whichever networks it holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from prism_fast.errors import DataError
from prism_fast.models.json_object import read_object
from prism_fast.models.parts import load_part, outline_part
from prism_fast.models.schedulers import require_schedule, require_scheduler_class
from prism_fast.models.text import limit_tokens

_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_TEXT = ("text_encoder", "tokenizer")
_NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")
#: Stable Diffusion XL's second encoder; a model has both of these or none.
_SECOND = ("text_encoder_2", "tokenizer_2")
#: What a UNet may be given besides latents, time and text, and what is known of it here.
_CONDITIONS: dict[str, tuple[str | None, ...]] = {
    "addition_embed_type": (None, "text_time"),
    "class_embed_type": (None,),
    "encoder_hid_dim_type": (None,),
    "num_class_embeds": (None,),
    "time_cond_proj_dim": (None,),
}


@dataclass(frozen=True)
class DiffusionModel:
    """The networks of a latent diffusion model and the constants that tie them together.

    ``zero_empty_prompt``: the empty prompt is embedded as zeros, as SDXL's pipeline does. ``latents_mean`` and
    ``latents_std``: the autoencoder's latents by channel before they were scaled, where it says so.
    """

    unet: nn.Module
    vae: nn.Module
    text_encoder: nn.Module
    tokenizer: Any
    scheduler: Any
    prediction_type: str
    latent_channels: int
    vae_factor: int
    scaling_factor: float
    shift_factor: float
    path: Path
    text_encoder_2: nn.Module | None = None
    tokenizer_2: Any = None
    zero_empty_prompt: bool = False
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None

    @property
    def vae_dtype(self) -> torch.dtype:
        """What the autoencoder computes in: float32 where its configuration says that float16 overflows."""
        return next(self.vae.parameters()).dtype


class LatentDecoder(nn.Module):
    """Scaled latents (n, c, h, w) to images in [0, 1], (n, 3, f·h, f·w).

    ``decode(latents · std / scale + mean + shift)``, the mean and the standard deviation being the autoencoder's own,
    if it has any, as in diffusers' pipelines.

    Dtypes: latents of any; images of the autoencoder's.
    """

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__()
        self.vae: Any = model.vae
        self.scale, self.shift = model.scaling_factor, model.shift_factor
        self.spread: torch.Tensor | None
        self.centre: torch.Tensor | None
        for name, values in (("spread", model.latents_std), ("centre", model.latents_mean)):
            like = next(model.vae.parameters())
            made = None if values is None else torch.tensor(values, dtype=like.dtype, device=like.device)
            self.register_buffer(name, None if made is None else made.view(1, -1, 1, 1), persistent=False)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """The decoded image; the clamp stops gradients only outside of [0, 1]."""
        dtype = next(self.vae.parameters()).dtype
        if latents.dtype != dtype:
            latents = latents.to(dtype)
        if self.spread is not None and self.centre is not None:
            unscaled = latents * self.spread / self.scale + self.centre + self.shift
        else:
            unscaled = latents / self.scale + self.shift
        image: torch.Tensor = self.vae.decode(unscaled, return_dict=False)[0]
        return (image * 0.5 + 0.5).clamp(0, 1)


class LightDecoder(nn.Module):
    """A small autoencoder's decoder on the same latents: an approximation whose gradient is cheap.

    Scaled latents (n, c, h, w) to images in [0, 1], as :class:`LatentDecoder`. Reference: Bohan 2023, TAESD.
    """

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae: Any = vae

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """The decoded image."""
        image: torch.Tensor = self.vae.decode(latents, return_dict=False)[0]
        return (image * 0.5 + 0.5).clamp(0, 1)


def load_light_decoder(path: Path, model: DiffusionModel, device: str, dtype: torch.dtype) -> LightDecoder:
    """An ``AutoencoderTiny`` directory that decodes the latents of ``model``.

    Raises:
        DataError: it is not there or unreadable, or its latents or its magnification are others.
    """
    _require_light_decoder(path)
    vae = load_part(path.parent, path.name, "diffusers", "AutoencoderTiny", dtype)
    found, factor = vae.config.latent_channels, 2 ** (len(vae.config.decoder_block_out_channels) - 1)
    if (found, factor) != (model.latent_channels, model.vae_factor):
        raise DataError(
            f"light decoder {path} takes {found} channels and magnifies {factor} times, "
            f"the model has {model.latent_channels} and {model.vae_factor}"
        )
    return LightDecoder(vae.to(device).eval().requires_grad_(False))


def outline_light_decoder(path: Path) -> LightDecoder:
    """The same without weights, on the meta device.

    Raises:
        DataError: it is not there or unreadable.
    """
    _require_light_decoder(path)
    vae = outline_part(path.parent, path.name, "diffusers", "AutoencoderTiny")
    return LightDecoder(vae.eval().requires_grad_(False))


def _require_light_decoder(path: Path) -> None:
    if not (path / "config.json").is_file():
        raise DataError(f"light decoder {path} holds no config.json; give an AutoencoderTiny directory")


def _read_index(path: Path, wanted: tuple[str, ...] = _PARTS) -> dict[str, Any]:
    """What ``model_index.json`` says, if the ``wanted`` parts are there and those of a second encoder that it names."""
    file = path / "model_index.json"
    if not path.is_dir():
        raise DataError(f"model directory {path} does not exist; give a directory in diffusers' format")
    if not file.is_file():
        raise DataError(f"{path} holds no model_index.json; give a directory in diffusers' format")
    index = read_object(file)
    names = _names(index, wanted)
    missing = [part for part in names if part not in index or not (path / part).is_dir()]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}; expected the parts {', '.join(names)}")
    for part in names:
        entry = index.get(part)
        if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(x, str) for x in entry)):
            raise DataError(f"{file}: {part} is {entry!r}; expected [library, class]")
    return index


def _vae_factor(path: Path, config: Any) -> int:
    channels = config.get("block_out_channels") or config.get("encoder_block_out_channels")
    if not channels:
        raise DataError(f"{path}/vae says no block_out_channels; expected an autoencoder of images")
    return int(2 ** (len(channels) - 1))


def load_diffusion(path: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> DiffusionModel:
    """Load every part of a diffusers directory in ``dtype`` on ``device``.

    The autoencoder is float32 if ``dtype`` is float16 and its ``config.json`` asks for that with ``force_upcast``.

    Raises:
        DataError: a part is missing, unreadable or of another kind, or the parts do not fit each other.
    """
    path = path.expanduser()
    index = _read_index(path)
    parts = {"scheduler": _load_scheduler(path, index)}
    for name in _names(index):
        if name != "scheduler":
            library, class_name = index[name]
            wide = name == "vae" and dtype == torch.float16 and _overflows(path)
            parts[name] = load_part(path, name, library, class_name, torch.float32 if wide else dtype)
    return _assemble(path, index, _ready(parts, device))


def load_text_encoders(
    path: Path, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> list[tuple[PreTrainedTokenizerBase, nn.Module]]:
    """The tokenizer and text encoder of a diffusers directory, or SDXL's two of both; nothing else need be there.

    Raises:
        DataError: a part is missing, unreadable or of another kind, or a tokenizer and its encoder do not fit.
    """
    path = path.expanduser()
    index = _read_index(path, _TEXT)
    parts = {}
    for name in _names(index, _TEXT):
        library, class_name = index[name]
        parts[name] = load_part(path, name, library, class_name, dtype)
    return _text_encoders(path, _ready(parts, device))


def outline_diffusion(path: Path) -> DiffusionModel:
    """The same networks without weights, float32 on the meta device: for counting, at no cost in memory.

    Raises:
        DataError: as :func:`load_diffusion`; weights need not be there.
    """
    path = path.expanduser()
    index = _read_index(path)
    parts = {"scheduler": _load_scheduler(path, index)}
    for name in _names(index):
        if name != "scheduler":
            parts[name] = outline_part(path, name, *index[name])
    for name in parts.keys() & set(_NETWORKS):
        parts[name] = parts[name].eval().requires_grad_(False)
    return _assemble(path, index, parts)


def _load_scheduler(path: Path, index: dict[str, Any]) -> Any:
    library, class_name = index["scheduler"]
    require_scheduler_class(path, class_name)
    scheduler = load_part(path, "scheduler", library, class_name, torch.float32)
    require_schedule(path, scheduler)
    return scheduler


def _overflows(path: Path) -> bool:
    """Whether the file says so: in diffusers' class it is the default, and false for most."""
    try:
        return bool(read_object(path / "vae" / "config.json").get("force_upcast"))
    except (DataError, FileNotFoundError):
        return False  # loading the part says what is wrong


def _names(index: dict[str, Any], wanted: tuple[str, ...] = _PARTS) -> tuple[str, ...]:
    return (*wanted, *(_SECOND if _SECOND[0] in index else ()))


def _ready(parts: dict[str, Any], device: str) -> dict[str, Any]:
    """The same parts, the networks on ``device`` and never trained."""
    return {
        name: part.to(device).eval().requires_grad_(False) if name in _NETWORKS else part
        for name, part in parts.items()
    }


def _text_encoders(path: Path, parts: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Each tokenizer with its encoder; all of them cut prompts to the same length."""
    names = [("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")]
    found = [(path / first, parts[first], parts[second]) for first, second in names if first in parts]
    limit_tokens(found)
    return [(tokenizer, encoder) for _, tokenizer, encoder in found]


def _assemble(path: Path, index: dict[str, Any], parts: dict[str, Any]) -> DiffusionModel:
    unet, vae, scheduler = parts["unet"], parts["vae"], parts["scheduler"]
    channels = _setting(path, vae, "latent_channels")
    _require_unet(path, unet, channels, "text_encoder_2" in parts)
    width = sum(parts[name].config.hidden_size for name in parts.keys() & {"text_encoder", "text_encoder_2"})
    if unet.config.cross_attention_dim != width:
        raise DataError(
            f"{path}: the UNet attends to width {unet.config.cross_attention_dim}, the text encoder gives {width}"
        )
    _text_encoders(path, parts)
    return DiffusionModel(
        unet=unet,
        vae=vae,
        text_encoder=parts["text_encoder"],
        tokenizer=parts["tokenizer"],
        scheduler=scheduler,
        prediction_type=scheduler.config.prediction_type,
        latent_channels=channels,
        vae_factor=_vae_factor(path, vae.config),
        scaling_factor=_number(path, "scaling_factor", _setting(path, vae, "scaling_factor"), positive=True),
        shift_factor=_number(path, "shift_factor", vae.config.get("shift_factor") or 0.0),
        path=path,
        text_encoder_2=parts.get("text_encoder_2"),
        tokenizer_2=parts.get("tokenizer_2"),
        zero_empty_prompt=bool(index.get("force_zeros_for_empty_prompt", False)),
        **_latent_statistics(path, vae.config, channels),
    )


def _require_unet(path: Path, unet: Any, channels: int, two_encoders: bool) -> None:
    if type(unet).__name__ != "UNet2DConditionModel":
        raise DataError(f"{path}/unet is a {type(unet).__name__}; expected a UNet2DConditionModel")
    config = unet.config
    if config.in_channels != channels:
        raise DataError(f"{path}: the UNet takes {config.in_channels} channels but the autoencoder gives {channels}")
    if config.out_channels != channels:
        raise DataError(
            f"{path}: the UNet predicts {config.out_channels} channels for {channels}; a learned variance is not "
            f"supported, give a UNet with out_channels = {channels}"
        )
    for key, known in _CONDITIONS.items():
        if config.get(key) not in known:
            raise DataError(f"{path}/unet has {key} = {config[key]!r}, a condition that is not supported")
    if config.get("addition_embed_type") and not two_encoders:
        raise DataError(f"{path}/unet has addition_embed_type = 'text_time', but the model lacks text_encoder_2")


def _setting(path: Path, vae: Any, key: str) -> Any:
    value = vae.config.get(key)
    if value is None:
        raise DataError(f"{path}/vae: {type(vae).__name__} says no {key}; expected an autoencoder of images")
    return value


def _number(path: Path, key: str, value: object, positive: bool = False) -> float:
    """A number of the autoencoder's configuration that latents can be computed with."""
    if isinstance(value, int | float) and math.isfinite(value) and (value > 0 or not positive):
        return float(value)
    expected = "a number above 0" if positive else "a number"
    raise DataError(f"{path}/vae has {key} = {value!r}; expected {expected}")


def _latent_statistics(path: Path, config: Any, channels: int) -> dict[str, tuple[float, ...]]:
    """``latents_mean`` and ``latents_std`` of an autoencoder that has them."""
    found = {key: config.get(key) for key in ("latents_mean", "latents_std")}
    if all(value is None for value in found.values()):
        return {}
    for key, value in found.items():
        if not isinstance(value, (list, tuple)) or len(value) != channels:
            raise DataError(f"{path}/vae has {key} = {value!r}; expected {channels} numbers, one a channel")
    return {key: tuple(_number(path, key, x, key == "latents_std") for x in value) for key, value in found.items()}
