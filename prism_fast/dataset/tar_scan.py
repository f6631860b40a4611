"""Read a shard's tar once: its hash and its members come from the same bytes."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import NamedTuple

_BLOCK = 512
_CHUNK = 1 << 20  # whole blocks, so that no header is split; small enough to be hashed while still in the cache
_HEADER = Struct("100s24x11s")  # name and octal size of a USTAR header


class Member(NamedTuple):
    """One file of a tar: ``size`` bytes at ``offset``."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Scan:
    """What one pass over a tar gives; ``members`` ends where the archive does, or where it stops being one."""

    sha256: str
    members: tuple[Member, ...]


def _member(chunk: memoryview, begin: int, offset: int) -> Member | None:
    """The member whose header is at ``begin``; tarfile's parser takes 20 times as long and holds the interpreter."""
    field, digits = _HEADER.unpack_from(chunk, begin)
    try:
        name, size = field.rstrip(b"\0").decode("ascii"), int(digits, 8)
    except ValueError:  # the zeros that end an archive, or damage
        return None
    return Member(name, offset + _BLOCK, size) if name and size >= 0 else None


class _Walk:
    """Collects the members of an archive that passes by in chunks."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self._passed = 0
        self._header = 0

    def feed(self, chunk: memoryview) -> None:
        while (begin := self._header - self._passed) + _BLOCK <= len(chunk):
            member = _member(chunk, begin, self._header)
            if member is None:
                self._header = sys.maxsize
            else:
                self.members.append(member)
                self._header = member.offset + -(-member.size // _BLOCK) * _BLOCK
        self._passed += len(chunk)


def scan(path: Path) -> Scan:
    """Hash a tar and list its members in one pass and one mebibyte of memory.

    Raises:
        OSError: it cannot be read.
    """
    digest, walk, buffer = hashlib.sha256(), _Walk(), memoryview(bytearray(_CHUNK))
    with path.open("rb") as stream:
        while size := stream.readinto(buffer):
            digest.update(buffer[:size])
            walk.feed(buffer[:size])
    return Scan(digest.hexdigest(), tuple(walk.members))


def hash_only(path: Path) -> str:
    """The SHA-256 of a tar whose members need no listing: the interpreter is free meanwhile.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
