"""A run at ``s3://``, against a server on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from prism_fast.config import RunConfig
from prism_fast.errors import DataError, InputError
from prism_fast.operations.extend import extend
from prism_fast.operations.repair import carry_out, examine
from prism_fast.operations.stats import stats
from prism_fast.operations.verify import verify
from prism_fast.operations.watch import Watcher
from prism_fast.storage.files import create, names, replace
from prism_fast.storage.paths import run_path
from prism_fast.workers.leases import Leases
from prism_fast.workers.rank import Rank
from tests.runs import assert_whole, contents
from tests.storage.test_objects import in_threads
from tests.stubbed import synthesize

pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")
ROOT = Path(__file__).parents[2]


def forget_connections() -> None:
    from prism_fast.storage.s3 import S3

    S3.clear_instance_cache()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    started = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    yield f"http://{host}:{port}"
    started.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket, and the environment that leads to it."""
    environment = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_MAX_ATTEMPTS": "1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    forget_connections()
    system = cast(Any, run_path("s3://bucket/run")).fs
    system.mkdir("bucket")
    yield "s3://bucket"
    system.rm("bucket", recursive=True)
    forget_connections()


def test_a_whole_run_resumed_repaired_and_made_longer(
    stubbed: RunConfig, stubbed_files: dict[str, bytes], bucket: str, tmp_path: Path
) -> None:
    out = run_path(f"{bucket}/some/run")
    assert synthesize(stubbed, out).made_now == 7
    assert_whole(out, stubbed_files)
    assert (stats(out).images, Watcher(out).frame(0.0).done) == (7, True)

    (out / "shards" / "000001.json").unlink()
    assert synthesize(stubbed, out).made_now == 2
    assert_whole(out, stubbed_files)

    tar = out / "shards" / "000002.tar"
    data = bytearray(tar.read_bytes())
    data[600] ^= 1
    tar.write_bytes(bytes(data))
    found = examine(out)
    assert [r.path.name for r in found.removals] == ["000002.json"]
    carry_out(found)
    assert synthesize(stubbed, out).made_now == 2
    assert_whole(out, stubbed_files)

    with pytest.raises(InputError, match=r"s3://bucket/some/run belongs to run"):
        synthesize(stubbed.model_copy(update={"seed": 1}), out)

    longer = stubbed.model_copy(update={"synthesis": stubbed.synthesis.model_copy(update={"images": 9})})
    assert extend(out, 9).retired == 3
    assert synthesize(longer, out).made_now == 3
    synthesize(longer, tmp_path / "longer")
    assert_whole(out, contents(tmp_path / "longer"))


def test_of_two_that_create_an_object_the_first_wins(bucket: str) -> None:
    out = run_path(bucket + "/run")
    assert create(out / "object", b"first")
    assert not create(out / "object", b"second")
    assert create(out / "object", b"first")
    replace(out / "object", b"third")
    assert (out / "object").read_bytes() == b"third"
    assert names(out) == ["object"]


def test_leases(bucket: str) -> None:
    one, other = (Leases(run_path(f"{bucket}/run/shards"), f"{n}/2") for n in (1, 2))
    assert one.take("000001")
    assert not other.take("000001")
    one.renew()
    one.release("000001")
    assert other.take("000001")
    assert names(one.folder) == ["000001.lease"]


def test_workers_with_their_own_connections(
    stubbed: RunConfig, stubbed_files: dict[str, bytes], bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one has finished is seen by the other at once: no listing is kept."""
    # moto closes an object that is replaced while it answers who wrote it: a 500, which S3 does not give
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "5")
    forget_connections()

    def work(number: int) -> None:
        made[number] = synthesize(stubbed, run_path(f"{bucket}/run"), rank=Rank(number, 2)).made_now

    made: dict[int, int] = {}
    in_threads(lambda: work(1), lambda: work(2))
    assert sum(made.values()) >= 7
    assert_whole(run_path(f"{bucket}/run"), stubbed_files)


def test_no_bucket(stubbed: RunConfig, bucket: str) -> None:
    with pytest.raises(InputError, match=r"cannot write to s3://absent/run: .*bucket does not exist") as caught:
        synthesize(stubbed, run_path("s3://absent/run"))
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"s3://absent/run is not a run directory"):
        verify(run_path("s3://absent/run"))


def test_no_credentials(stubbed: RunConfig, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    forget_connections()
    out = run_path(f"{bucket}/run")
    with pytest.raises(InputError, match=r"cannot write to s3://bucket/run: Unable to locate credentials"):
        synthesize(stubbed, out)
    for command in (verify, examine, stats, Watcher):
        with pytest.raises(DataError, match=r"cannot read s3://bucket/run/run\.json: Unable to locate credentials"):
            command(out)


def test_no_server(stubbed: RunConfig, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    forget_connections()
    with pytest.raises(InputError, match=r"cannot write to s3://bucket/run: Could not connect to the endpoint"):
        synthesize(stubbed, run_path(f"{bucket}/run"))


@pytest.mark.slow
def test_killed_at_every_point_the_next_call_finishes_the_same_run(bucket: str, tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-m", "tests.workers.s3_killing", str(tmp_path), f"{bucket}/killed"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [ROOT, *sys.path])), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert child.returncode == 0, child.stderr[-4000:]
    report = json.loads(child.stdout.splitlines()[-1])
    assert report["failures"] == [], child.stderr[-4000:]
    assert report["faults"] == 16
