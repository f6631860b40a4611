"""Pretrained weights that timm knows, from the network or a cache; without a network the answer comes at once."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from torch import nn

from prism_fast.errors import InputError

_WAIT_S = 3.0


def pretrained_network(name: str) -> nn.Module:
    """The timm network ``name`` with its pretrained weights.

    Raises:
        InputError: there are none, or they are neither in the cache nor to be had from the network.
    """
    source = _source(name)
    overlay = {}
    if not reachable(constants.ENDPOINT if source.hf_hub_id else source.url):
        file = _cached(source)
        if file is None:
            raise InputError(
                f"pretrained weights of {name!r} are not in the cache, and there is no network to get them from; give "
                "a directory instead"
            )
        overlay = {"pretrained_cfg_overlay": {"file": str(file)}}
    try:
        net: nn.Module = timm.create_model(name, pretrained=True, **overlay)
    except Exception as error:  # hub and network errors of several libraries
        raise InputError(f"timm could not get pretrained weights of {name!r}; give a directory instead") from error
    return net


def _source(name: str) -> Any:
    try:
        source = timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # an unknown tag
        raise InputError(f"classifier {name!r}: {str(error).splitlines()[0]}") from error
    if source is None or not (source.hf_hub_id or source.url):
        raise InputError(f"timm has no pretrained weights of {name!r}; give a directory instead")
    return source


def reachable(url: str) -> bool:
    """Whether the server of ``url`` answers within seconds; hub and timm would try for most of a minute.

    Through a proxy nothing is tried: it is taken for reachable.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    if getproxies():
        return True
    address = urlsplit(url)
    answered = threading.Event()

    def knock() -> None:
        try:
            socket.create_connection((address.hostname, address.port or 443), timeout=_WAIT_S).close()
        except OSError:
            return
        finally:
            done.set()
        answered.set()

    done = threading.Event()
    threading.Thread(target=knock, daemon=True).start()  # looking up a name has no time limit of its own
    done.wait(_WAIT_S)
    return answered.wait(0.05)


def _cached(source: Any) -> Path | None:
    if not source.hf_hub_id:
        file = Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(urlsplit(source.url).path)
        return file if file.is_file() else None
    names = (source.hf_hub_filename,) if source.hf_hub_filename else ("model.safetensors", "pytorch_model.bin")
    found = (try_to_load_from_cache(source.hf_hub_id, name) for name in names)
    return next((Path(file) for file in found if isinstance(file, str)), None)
