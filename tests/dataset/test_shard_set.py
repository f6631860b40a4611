import json
from pathlib import Path

import pytest

from prism_fast.dataset import shard_set
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.errors import DataError
from tests.damage import edit, rewrite
from tests.data.toy import write_run, write_shard


def test_counts_come_from_the_records(tmp_path: Path) -> None:
    shards = ShardSet.discover(write_run(tmp_path / "run", rows=22, shard_size=8, classes=5, ext="webp"))
    assert (shards.rows, shards.classes, shards.image_ext, len(shards.shards)) == (22, 5, "webp", 3)
    for shard in shards.shards:
        shard.verify()


def test_a_tar_without_a_record_does_not_exist(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "shards" / "000002.json").unlink()
    assert ShardSet.discover(run).rows == 16


def test_digest_names_the_data(tmp_path: Path) -> None:
    one, same = (ShardSet.discover(write_run(tmp_path / name)) for name in "ab")
    other = ShardSet.discover(write_run(tmp_path / "c", size=16))
    assert one.digest() == same.digest() != other.digest()


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        ShardSet.discover(tmp_path)


def test_no_finished_shard(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rows=4)
    (run / "shards" / "000000.json").unlink()
    with pytest.raises(DataError, match="no finished shard"):
        ShardSet.discover(run)


def test_a_shard_without_a_row_is_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rows=16)
    write_shard(run / "shards", 1, range(0))
    shards = ShardSet.discover(run)
    assert (shards.rows, len(shards.shards)) == (8, 1)
    write_shard(run / "shards", 0, range(0))
    with pytest.raises(DataError, match="holds no sample: all of its 2 shards were quarantined"):
        ShardSet.discover(run)


@pytest.mark.parametrize("keep", [100, 700, 0.5, -512, -1024])
def test_truncated_tar(tmp_path: Path, keep: float) -> None:
    run = write_run(tmp_path / "run")
    tar = run / "shards" / "000001.tar"
    data = tar.read_bytes()
    # USTAR pads to 10 KiB: cut the padding too, so that the negative cases bite into the end mark and the last file.
    data = data.rstrip(b"\0") + bytes(1024) if keep == -1024 else data
    end = int(len(data) * keep) if isinstance(keep, float) else keep
    tar.write_bytes(data[:end] if keep != -512 else data.rstrip(b"\0"))
    with pytest.raises(DataError, match="truncated"):
        ShardSet.discover(run)


@pytest.mark.parametrize("suffix", [".idx", ".tar"])
def test_missing_file_beside_a_record(tmp_path: Path, suffix: str) -> None:
    run = write_run(tmp_path / "run")
    (run / "shards" / "000001").with_suffix(suffix).unlink()
    with pytest.raises(DataError, match=rf"000001\{suffix} is missing"):
        ShardSet.discover(run)


def test_index_of_another_shard(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rows=16)
    index = run / "shards" / "000001.idx"
    index.write_text("v1.2 3\n" + "\n".join(index.read_text().splitlines()[1:4]) + "\n")
    with pytest.raises(DataError, match=r"expected the header 'v1\.2 8'"):
        ShardSet.discover(run)


def test_mixed_formats(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rows=8)
    write_shard(run / "shards", 1, range(8, 16), ext="jpg")
    with pytest.raises(DataError, match="mixes formats"):
        ShardSet.discover(run)


def test_record_with_the_wrong_class_count(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rows=8, classes=4)
    record = run / "shards" / "000000.json"
    edit(record, classes=7)
    with pytest.raises(DataError, match="7 float16 logits"):
        ShardSet.discover(run)


@pytest.mark.parametrize("text", ["{", "[]", '{"rows": 3}', '{"rows": "x", "classes": 3}'])
def test_broken_record(tmp_path: Path, text: str) -> None:
    run = write_run(tmp_path / "run", rows=8)
    (run / "shards" / "000000.json").write_text(text)
    with pytest.raises(DataError, match="not a shard record"):
        ShardSet.discover(run)


def test_changed_bytes_are_found_by_verify(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rows=8)
    tar = run / "shards" / "000000.tar"
    data = bytearray(tar.read_bytes())
    data[600] ^= 1
    tar.write_bytes(data)
    shards = ShardSet.discover(run, check=False)
    with pytest.raises(DataError, match="SHA-256"):
        shards.shards[0].verify()
    for check in (True, None):
        with pytest.raises(DataError, match=r"000000\.tar is damaged: SHA-256"):
            ShardSet.discover(run, check=check)


def test_large_sets_are_hashed_only_when_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", rows=8)
    rewrite(run / "shards" / "000000.tar", lambda data: data.__setitem__(600, data[600] ^ 1))
    monkeypatch.setattr(shard_set, "HASHED_BYTES", 100)
    assert ShardSet.discover(run).rows == 8
    with pytest.raises(DataError, match="is damaged: SHA-256"):
        ShardSet.discover(run, check=True)


def test_a_tar_that_grew_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rows=8)
    rewrite(run / "shards" / "000000.tar", lambda data: data.extend(bytes(512)))
    with pytest.raises(DataError, match=r"000000\.tar was changed: \d+ bytes, its record says \d+"):
        ShardSet.discover(run, check=False)


def test_an_index_of_a_neighbour_or_with_another_bit_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rows=16)
    index, neighbour = (run / "shards" / f"00000{i}.idx" for i in (0, 1))
    whole = index.read_bytes()
    neighbour_bytes = neighbour.read_bytes()
    index.write_bytes(neighbour_bytes)
    with pytest.raises(DataError, match=r"000000\.idx"):
        ShardSet.discover(run, check=False)
    index.write_bytes(whole.replace(b"cls", b"clr", 1))
    with pytest.raises(DataError, match=r"000000\.idx differs from its record; 'prism-fast verify'"):
        ShardSet.discover(run, check=False)


def test_an_index_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rows=8)
    rewrite(run / "shards" / "000000.idx", lambda data: data.__setitem__(5, 0xFF))
    with pytest.raises(DataError, match=r"000000\.idx is no text .*'prism-fast verify' says what to do") as caught:
        ShardSet.discover(run)
    assert "\n" not in str(caught.value)


def test_a_folder_in_place_of_a_record_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rows=8)
    (run / "shards" / "000000.json").unlink()
    (run / "shards" / "000000.json").mkdir()
    with pytest.raises(DataError, match=r"000000\.json is a folder, not a shard record; delete it"):
        ShardSet.discover(run)


@pytest.mark.parametrize("field", ["seconds", "energy_after_mean", "rows", "classes", "self_sha256"])
def test_a_record_that_was_changed_is_not_believed(tmp_path: Path, field: str) -> None:
    run = write_run(tmp_path / "run", rows=8)
    record = run / "shards" / "000000.json"
    document = json.loads(record.read_text())
    assert document["self_sha256"]
    record.write_text(json.dumps({**document, field: "f" * 64 if field == "self_sha256" else 1}))
    with pytest.raises(DataError, match=r"000000\.json is not a shard record; delete it"):
        ShardSet.discover(run)


def test_a_record_of_before_has_no_hash_of_itself(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rows=8)
    record = run / "shards" / "000000.json"
    document = json.loads(record.read_text())
    del document["self_sha256"]
    record.write_text(json.dumps(document))
    assert ShardSet.discover(run).rows == 8
