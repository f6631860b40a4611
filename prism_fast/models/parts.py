"""One part of a model directory: a network, a tokenizer or a scheduler, with every weight from a safetensors file."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from prism_fast.errors import DataError
from prism_fast.models.classifier_weights import conversion

_STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt")
_VOCABULARY_ENDS = (".model", ".tiktoken")
#: How safetensors calls the types of floating-point numbers that need no scale beside them.
_NUMBERS = ("F64", "F32", "F16", "BF16")
_POINTER = b"version https://git-lfs"


def load_part(path: Path, part: str, library: str, class_name: str, dtype: torch.dtype) -> Any:
    """The part, a network in ``dtype``.

    Weights may be in one file or in several with an index, and of a variant (``*.fp16.safetensors``) where there are
    no others.

    Raises:
        DataError: it is unreadable, tensors are missing, unknown or quantised, or its weights are no safetensors.
    """
    cls = class_of(path, part, library, class_name)
    options: dict[str, Any] = {"local_files_only": True}
    is_network, variant = _is_network(part), None
    if is_network:
        _require_config(path / part)
        variant = weights_variant(path / part, library, class_name)
        options |= {"torch_dtype" if library == "diffusers" else "dtype": dtype, "output_loading_info": True}
        options |= {"use_safetensors": True} | ({"variant": variant} if variant else {})
    elif part.startswith("tokenizer"):
        _require_vocabulary(path / part)
    try:
        loaded = cls.from_pretrained(path / part, **options)
    except Exception as error:  # both libraries raise many types for broken files
        raise DataError(f"{path / part} cannot be loaded: {_first_line(error)}") from error
    if not is_network:
        return loaded
    network, info = loaded
    _require_whole(path / part, library, info)
    _require_numbers(path / part, _STEMS[library] + (f".{variant}" if variant else ""), network)
    if any(key.startswith("pooler.") for key in info["missing_keys"]):
        network.pooler = None  # random numbers: they would make equal encoders look different
    return network


def _require_whole(folder: Path, library: str, info: Mapping[str, Iterable[str]]) -> None:
    """Refuse what both libraries only warn of: absent weights, which they fill with random numbers, and others.

    A pooler is never used here, and transformers' checkpoints hold heads that are rightly left out.
    """
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise DataError(f"{folder}: its weights lack {len(missing)} tensors, the first is {missing[0]}")
    unknown = sorted(info["unexpected_keys"])
    if unknown and library == "diffusers":
        raise DataError(
            f"{folder}: its weights hold {len(unknown)} tensors of which its config.json knows nothing, the first is "
            f"{unknown[0]}; take both files from one model"
        )


def _require_numbers(folder: Path, stem: str, network: Any) -> None:
    """Refuse quantised weights: both libraries take their integers for the numbers that they stand for."""
    wanted = {name for name, value in network.state_dict().items() if value.is_floating_point()}
    for file in (folder / name for name in sorted(os.listdir(folder))):
        if re.sub(r"-\d+-of-\d+", "", file.name) != f"{stem}.safetensors":
            continue
        with safe_open(file, "pt") as held:
            for name in wanted.intersection(held.keys()):
                if (kind := held.get_slice(name).get_dtype()) not in _NUMBERS:
                    raise DataError(
                        f"{file}: {name} is of {kind}; quantised weights are not supported, give those of a float type"
                    )


def outline_part(path: Path, part: str, library: str, class_name: str) -> Any:
    """A network with its shapes and no weights; anything else is loaded.

    Raises:
        DataError: it is unreadable.
    """
    cls = class_of(path, part, library, class_name)
    if not _is_network(part):
        return load_part(path, part, library, class_name, torch.float32)
    try:
        if library == "diffusers":
            config = cls.load_config(path / part, local_files_only=True)
            with torch.device("meta"):
                return cls.from_config(config)
        config = cls.config_class.from_pretrained(path / part, local_files_only=True)
        with torch.device("meta"):
            return cls(config)
    except Exception as error:  # both libraries raise many types for broken files
        raise DataError(f"{path / part} cannot be read: {_first_line(error)}") from error


def class_of(path: Path, part: str, library: str, class_name: str) -> Any:
    """The class that ``model_index.json`` names.

    Raises:
        DataError: it is not installed.
    """
    import diffusers
    import transformers

    module = {"diffusers": diffusers, "transformers": transformers}.get(library)
    cls = getattr(module, class_name, None) if module else None
    if cls is None:
        raise DataError(f"{path}/model_index.json: {part} is {library}.{class_name}, which is not installed")
    return cls


def weights_variant(folder: Path, library: str, class_name: str) -> str | None:
    """Which variant of the weights to load, None for the plain ones.

    Without plain weights it is ``fp16`` if that is there, else the only one.

    Raises:
        DataError: there are no safetensors weights, or several variants and no reason to choose one.
    """
    stem, names = _STEMS[library], sorted(name for name in os.listdir(folder) if (folder / name).is_file())
    _refuse_pointers(folder, names)
    if f"{stem}.safetensors" in names or f"{stem}.safetensors.index.json" in names:
        return None
    patterns = (rf"{stem}\.([\w-]+)\.safetensors", rf"{stem}\.safetensors\.index\.([\w-]+)\.json")
    found = {match[1] for name in names for p in patterns if (match := re.fullmatch(p, name)) and "-of-" not in name}
    if "fp16" in found or len(found) == 1:
        return "fp16" if "fp16" in found else found.pop()
    if found:
        raise DataError(
            f"{folder} cannot be loaded: it holds the variants {', '.join(sorted(found))}; call the wanted one "
            f"{stem}.safetensors"
        )
    if pickles := [name for name in names if name.endswith(".bin")]:
        raise DataError(_conversion(folder, library, class_name, pickles[0]))
    raise DataError(f"{folder} cannot be loaded: it holds no {stem}.safetensors")


def _require_config(folder: Path) -> None:
    """Without one transformers makes a network of its class's own sizes."""
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder} cannot be loaded: it holds no config.json")


def _require_vocabulary(folder: Path) -> None:
    """Without one transformers makes a tokenizer to which every word is unknown."""
    if not any(name in _VOCABULARIES or name.endswith(_VOCABULARY_ENDS) for name in os.listdir(folder)):
        raise DataError(f"{folder} cannot be loaded: it holds no vocabulary (tokenizer.json, or vocab.txt or the like)")


def _is_network(part: str) -> bool:
    return part != "scheduler" and not part.startswith("tokenizer")


def _first_line(error: Exception) -> str:
    """The first words of a library, and the next where they only announce them."""
    first, *rest = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"{first} {rest[0]}" if first.endswith(":") and rest else first


def _refuse_pointers(folder: Path, names: list[str]) -> None:
    for file in (folder / name for name in names if name.endswith(".safetensors")):
        if file.is_file() and file.stat().st_size < 1024 and file.read_bytes().startswith(_POINTER):
            raise DataError(f"{file} cannot be loaded: it is a pointer of git lfs; fetch it with 'git lfs pull'")


def _conversion(folder: Path, library: str, class_name: str, name: str) -> str:
    return (
        f"{folder} cannot be loaded: its weights are {name}, a pickle, which can run code; if you trust it, convert it "
        f"once with: {_command(folder, library, class_name, name)}"
    )


def _command(folder: Path, library: str, class_name: str, name: str) -> str:
    if library == "transformers" and "-of-" not in name:  # transformers itself would add a random pooler
        return conversion(folder / name)
    variant = re.search(r"model\.(\w+)(-\d+-of-\d+)?\.bin$", name)
    options = f", variant={variant[1]!r}" if variant else ""
    program = (
        f"from {library} import {class_name} as M; f = {str(folder)!r}; "
        f"M.from_pretrained(f, use_safetensors=False{options}).save_pretrained(f)"
    )
    return f"python -c {shlex.quote(program)}"
