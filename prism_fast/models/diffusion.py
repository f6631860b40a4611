"""Load a text-to-image model from a directory in diffusers' format, whichever networks it holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prism_fast.errors import DataError

_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")
#: Stable Diffusion XL's second encoder; a model has both of these or none.
_SECOND = ("text_encoder_2", "tokenizer_2")
_PREDICTIONS = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class DiffusionModel:
    """The networks of a latent diffusion model and the constants that tie them together.

    ``zero_empty_prompt``: the empty prompt is embedded as zeros, as SDXL's pipeline does.
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


class LatentDecoder(nn.Module):
    """Scaled latents (n, c, h, w) to images in [0, 1], (n, 3, f·h, f·w)."""

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__()
        self.vae: Any = model.vae
        self.scale, self.shift = model.scaling_factor, model.shift_factor

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """The decoded image; the clamp stops gradients only outside of [0, 1]."""
        image: torch.Tensor = self.vae.decode(latents / self.scale + self.shift, return_dict=False)[0]
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
    vae = _load_part(path.parent, path.name, "diffusers", "AutoencoderTiny", dtype)
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
    vae = _outline_part(path.parent, path.name, "diffusers", "AutoencoderTiny")
    return LightDecoder(vae.eval().requires_grad_(False))


def _require_light_decoder(path: Path) -> None:
    if not (path / "config.json").is_file():
        raise DataError(f"light decoder {path} holds no config.json; give an AutoencoderTiny directory")


def _read_index(path: Path) -> dict[str, Any]:
    file = path / "model_index.json"
    if not path.is_dir():
        raise DataError(f"model directory {path} does not exist; give a directory in diffusers' format")
    if not file.is_file():
        raise DataError(f"{path} holds no model_index.json; give a directory in diffusers' format")
    try:
        index: dict[str, Any] = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is not JSON: {error}") from error
    missing = [part for part in _PARTS if part not in index or not (path / part).is_dir()]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}; expected the parts {', '.join(_PARTS)}")
    for part in _names(index):
        entry = index.get(part)
        if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(x, str) for x in entry)):
            raise DataError(f"{file}: {part} is {entry!r}; expected [library, class]")
    return index


def _class_of(path: Path, part: str, library: str, class_name: str) -> Any:
    import diffusers
    import transformers

    module = {"diffusers": diffusers, "transformers": transformers}.get(library)
    cls = getattr(module, class_name, None) if module else None
    if cls is None:
        raise DataError(f"{path}/model_index.json: {part} is {library}.{class_name}, which is not installed")
    return cls


def _is_network(part: str) -> bool:
    return part != "scheduler" and not part.startswith("tokenizer")


def _outline_part(path: Path, part: str, library: str, class_name: str) -> Any:
    """A network with its shapes and no weights."""
    cls = _class_of(path, part, library, class_name)
    try:
        if library == "diffusers":
            config = cls.load_config(path / part, local_files_only=True)
            with torch.device("meta"):
                return cls.from_config(config)
        config = cls.config_class.from_pretrained(path / part, local_files_only=True)
        with torch.device("meta"):
            return cls(config)
    except Exception as error:  # both libraries raise many types for broken files
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path / part} cannot be read: {first}") from error


def _load_part(path: Path, part: str, library: str, class_name: str, dtype: torch.dtype) -> Any:
    cls = _class_of(path, part, library, class_name)
    options: dict[str, Any] = {"local_files_only": True}
    is_network = _is_network(part)
    if is_network:
        options |= {"torch_dtype" if library == "diffusers" else "dtype": dtype, "output_loading_info": True}
    try:
        loaded = cls.from_pretrained(path / part, **options)
    except Exception as error:  # both libraries raise many types for broken files
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path / part} cannot be loaded: {first}") from error
    if not is_network:
        return loaded
    network, info = loaded
    # Both libraries fill absent weights with random numbers and only warn. A pooler is never used here.
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise DataError(f"{path / part}: its weights lack {len(missing)} tensors, the first is {missing[0]}")
    if any(key.startswith("pooler.") for key in info["missing_keys"]):
        network.pooler = None  # random numbers: they would make equal encoders look different
    return network


def _vae_factor(config: Any) -> int:
    channels = config.get("block_out_channels") or config.get("encoder_block_out_channels")
    return int(2 ** (len(channels) - 1))


def load_diffusion(path: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> DiffusionModel:
    """Load every part of a diffusers directory in ``dtype`` on ``device``.

    Raises:
        DataError: a part is missing or unreadable, or UNet and autoencoder disagree about latent channels.
    """
    index = _read_index(path)
    parts = {name: _load_part(path, name, index[name][0], index[name][1], dtype) for name in _names(index)}
    for name in parts.keys() & set(_NETWORKS):
        parts[name] = parts[name].to(device).eval().requires_grad_(False)
    return _assemble(path, index, parts)


def outline_diffusion(path: Path) -> DiffusionModel:
    """The same networks without weights, float32 on the meta device: for counting, at no cost in memory.

    Raises:
        DataError: as :func:`load_diffusion`; weights need not be there.
    """
    index = _read_index(path)
    parts = {}
    for name in _names(index):
        library, class_name = index[name]
        if _is_network(name):
            parts[name] = _outline_part(path, name, library, class_name).eval().requires_grad_(False)
        else:
            parts[name] = _load_part(path, name, library, class_name, torch.float32)
    return _assemble(path, index, parts)


def _names(index: dict[str, Any]) -> tuple[str, ...]:
    return (*_PARTS, *(_SECOND if _SECOND[0] in index else ()))


def _assemble(path: Path, index: dict[str, Any], parts: dict[str, Any]) -> DiffusionModel:
    unet, vae, scheduler = parts["unet"], parts["vae"], parts["scheduler"]
    channels = vae.config.latent_channels
    if unet.config.in_channels != channels:
        raise DataError(
            f"{path}: the UNet takes {unet.config.in_channels} channels but the autoencoder gives {channels}"
        )
    prediction = scheduler.config.prediction_type
    if prediction not in _PREDICTIONS:
        raise DataError(f"{path}/scheduler predicts {prediction!r}; supported: {', '.join(_PREDICTIONS)}")
    width = sum(parts[name].config.hidden_size for name in parts.keys() & {"text_encoder", "text_encoder_2"})
    if unet.config.cross_attention_dim != width:
        raise DataError(
            f"{path}: the UNet attends to width {unet.config.cross_attention_dim}, the text encoder gives {width}"
        )
    return DiffusionModel(
        unet=unet,
        vae=vae,
        text_encoder=parts["text_encoder"],
        tokenizer=parts["tokenizer"],
        scheduler=scheduler,
        prediction_type=prediction,
        latent_channels=channels,
        vae_factor=_vae_factor(vae.config),
        scaling_factor=float(vae.config.scaling_factor),
        shift_factor=float(vae.config.get("shift_factor") or 0.0),
        path=path,
        text_encoder_2=parts.get("text_encoder_2"),
        tokenizer_2=parts.get("tokenizer_2"),
        zero_empty_prompt=bool(index.get("force_zeros_for_empty_prompt", False)),
    )
