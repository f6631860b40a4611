"""A classifier's weights from a file, as people save them, and whether they fit a network."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from prism_fast.errors import DataError
from prism_fast.storage.files import require_file

State = dict[str, torch.Tensor]
CHECKPOINTS = (".safetensors", ".pth", ".pt")
#: Where training scripts put the weights in a checkpoint; averaged ones first, as timm does.
_CONTAINERS = ("state_dict_ema", "model_ema", "state_dict", "model")
#: What DistributedDataParallel, torch.compile and transformers' wrapper of timm put before every name.
_PREFIXES = ("module.", "_orig_mod.", "timm_model.")


def read_weights(file: Path) -> State:
    """Tensors by name, in float32 where they are floating.

    A ``.pth`` or ``.pt`` is read without running code, and may hold the weights beside other things.

    Raises:
        DataError: it cannot be read, or holds no weights. FileNotFoundError: there is no file.
    """
    try:
        require_file(file)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
    state = _from_safetensors(file) if file.suffix == ".safetensors" else _from_pickle(file)
    while prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of a safetensors file's tensors by name, from its header alone.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """
    if not file.is_file() or file.suffix != ".safetensors":
        raise DataError(f"{file} is needed, for only the shapes of its weights say how wide the network is")
    try:
        with safe_open(file, "pt") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors raises its own type, which is not exported as a stable name
        raise DataError(f"{file} cannot be read: {error}") from error


def _from_safetensors(file: Path) -> State:
    try:
        state: State = load_file(file)
    except FileNotFoundError:
        raise
    except Exception as error:  # safetensors raises its own type, which is not exported as a stable name
        raise DataError(f"{file} cannot be read: {error}") from error
    if not state:
        raise DataError(f"{file} holds no tensors")
    return state


def _from_pickle(file: Path) -> State:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of old formats before it refuses them
            found: Any = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # pickle, zip and torch raise many types
        raise DataError(
            f"{file} cannot be read as weights: it is damaged or holds more than tensors; save the network's "
            "state_dict alone, best as safetensors"
        ) from error
    for key in _CONTAINERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found or not all(isinstance(x, torch.Tensor) for x in found.values()):
        held = ", ".join(map(str, list(found)[:4])) if isinstance(found, Mapping) else type(found).__name__
        raise DataError(
            f"{file} holds no weights but {held or 'nothing'}; expected a state_dict, or one under {_CONTAINERS[2]!r} "
            f"or {_CONTAINERS[3]!r}"
        )
    return dict(found)


def fit(net: nn.Module, state: State, where: Path, architecture: str) -> None:
    """Give ``net`` these weights.

    Raises:
        DataError: names, shapes or kinds of number differ; the message names the first of each.
    """
    wanted = net.state_dict()
    whole = next((k for k, v in state.items() if k in wanted and _is_quantised(v, wanted[k])), None)
    if whole is not None:
        raise DataError(
            f"{where}: weights do not fit {architecture}: {_short(whole)} is of {state[whole].dtype}; quantised "
            "weights are not supported, give those of a float type"
        )
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(
            f"{where}: weights do not fit {architecture}: {_difference(net.state_dict(), state)}"
        ) from error


def _is_quantised(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Torch would take integers for the numbers that they stand for."""
    return wanted.is_floating_point() and not found.is_floating_point()


def _difference(expected: State, found: State) -> str:
    missing = [key for key in expected if key not in found and not key.endswith("num_batches_tracked")]
    others = [key for key in found if key not in expected]
    shaped = [key for key in expected if key in found and expected[key].shape != found[key].shape]
    parts = []
    if shaped:
        key = shaped[0]
        parts.append(f"{_short(key)} is {tuple(found[key].shape)}, expected {tuple(expected[key].shape)}")
    if missing:
        parts.append(f"{len(missing)} are missing, the first is {_short(missing[0])}")
    if others:
        parts.append(f"{len(others)} are unknown, the first is {_short(others[0])}")
    return "; ".join(parts)


def _short(key: str) -> str:
    return key if len(key) <= 40 else f"{key[:37]}..."


def conversion(file: Path) -> str:
    """The command that writes ``model.safetensors`` beside a pickle of weights."""
    out = file.with_name("model.safetensors")
    program = (
        f"import torch; from safetensors.torch import save_file; s = torch.load({str(file)!r}, map_location='cpu', "
        f"weights_only=True); s = {{k: v.clone().contiguous() for k, v in s.items()}}; "
        f"save_file(s, {str(out)!r}, {{'format': 'pt'}})"
    )
    return f"python -c {shlex.quote(program)}"
