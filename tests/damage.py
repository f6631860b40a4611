"""What goes wrong with files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from prism_fast.dataset.sealed import SEAL, self_hash


def rewrite(path: Path, change: Callable[[bytearray], object]) -> None:
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


def flip(path: Path) -> None:
    """One bit in the middle."""

    def one_bit(data: bytearray) -> None:
        data[len(data) // 2] ^= 1

    rewrite(path, one_bit)


def cut(path: Path) -> None:
    """The last 512 bytes are lost."""
    rewrite(path, lambda data: data.__delitem__(slice(len(data) - 512, None)))


def make_pipe(path: Path) -> None:
    """A pipe that nobody writes to in place of a file: whoever opens it waits for ever."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def drop_tensor(path: Path) -> None:
    """The first one of a safetensors file."""
    state = load_file(path)
    del state[min(state)]
    save_file(state, path, {"format": "pt"})


def add_tensor(path: Path) -> None:
    """One more in a safetensors file, of which no network knows."""
    save_file({**load_file(path), "surprise": torch.zeros(3)}, path, {"format": "pt"})


def quantise(path: Path) -> None:
    """A safetensors file whose numbers are whole ones of eight bits."""
    save_file({name: value.to(torch.int8) for name, value in load_file(path).items()}, path, {"format": "pt"})


def edit(path: Path, **changes: object) -> None:
    """Other values in a JSON object, with the hash of itself that it then has if it had one."""
    document = {**json.loads(path.read_text()), **changes}
    if SEAL in document:
        document[SEAL] = self_hash(document)
    path.write_text(json.dumps(document))
