from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from prism_fast.dataset import tar_scan as tarscan
from prism_fast.dataset.tar_scan import hash_only, scan

SIZES = (0, 1, 511, 512, 513, 1023, 1024, 5000, 3)


def write(path: Path) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, size in enumerate(SIZES):
            info = tarfile.TarInfo(f"{number:09d}.png")
            info.size = size
            tar.addfile(info, io.BytesIO(b"x" * size))
    return path


@pytest.mark.parametrize("chunk", [512, 1024, 1536, 4096, tarscan._CHUNK])
def test_as_tarfile_and_hashlib_wherever_the_chunks_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(tarscan, "_CHUNK", chunk)
    path = write(tmp_path / "a.tar")
    found = scan(path)
    assert found.sha256 == hash_only(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    with tarfile.open(path) as tar:
        assert [(m.name, m.offset, m.size) for m in found.members] == [
            (m.name, m.offset_data, m.size) for m in tar.getmembers()
        ]


@pytest.mark.parametrize("field", [b"-0000001000\0", b"zzzzzzzzzzz\0"])
def test_a_damaged_size_ends_the_walk_but_not_the_hash(tmp_path: Path, field: bytes) -> None:
    path = write(tmp_path / "a.tar")
    data = bytearray(path.read_bytes())
    second = scan(path).members[1].offset - 512
    data[second + 124 : second + 136] = field
    path.write_bytes(data)
    found = scan(path)
    assert [m.name for m in found.members] == ["000000000.png"]
    assert found.sha256 == hashlib.sha256(data).hexdigest()


def test_an_empty_file_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"")
    assert scan(tmp_path / "a.tar").members == ()
