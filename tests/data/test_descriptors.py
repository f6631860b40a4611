"""DALI keeps every shard open: the limit of open files is raised, or both numbers are said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.data.toy import write_run

ROOT = Path(__file__).parents[2]


def said(program: str, *arguments: object) -> str:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()


def test_the_soft_limit_is_raised_towards_the_hard_one() -> None:
    program = """
import resource
from prism_fast.data.descriptors import make_room
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 1000))
make_room(3)
few = resource.getrlimit(resource.RLIMIT_NOFILE)
make_room(200)
many = resource.getrlimit(resource.RLIMIT_NOFILE)
make_room(600)
print(few[0] < 100, 464 <= many[0] < 520, many[1], resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    assert said(program) == "True True 1000 (1000, 1000)"


def test_a_hard_limit_that_is_too_low_is_refused_with_both_numbers() -> None:
    program = """
import resource
from prism_fast.data.descriptors import make_room
from prism_fast.errors import InputError
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128))
try:
    make_room(1282)
except InputError as error:
    print(error, resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    answer = said(program)
    assert answer.startswith("DALI keeps all 1282 shards open and needs 1")
    assert "the hard limit is 128; raise it" in answer
    assert answer.endswith("(64, 128)")


def test_dali_opens_more_shards_than_the_soft_limit(tmp_path: Path) -> None:
    write_run(tmp_path / "run", rows=150, shard_size=1, size=8)
    program = """
import resource, sys
import nvidia.dali
from prism_fast.data import open_loader
from prism_fast.dataset.shard_set import ShardSet
from tests.data.toy import MEAN, STD, config
shards = ShardSet.discover(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 4096))
loader = open_loader(shards, config(loader="dali"), "cpu", MEAN, STD)
print(len(shards.shards), next(loader).images.shape[0])
"""
    assert said(program, tmp_path / "run") == "150 6"
