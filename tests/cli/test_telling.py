"""``synthesize --log-json`` and ``--metrics-port``: what they write, what they refuse, and that they are off."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from prism_fast.workers.json_log import json_log
from tests.cli.conftest import Answer, Command

FIELDS = {
    "time", "level", "event", "worker", "shard", "images", "quarantined", "seconds", "images_per_s",
    "energy_after_mean",
}  # fmt: skip


def lines(answer: Answer) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.err.splitlines()]


def test_every_line_is_json(prism: Command, tiny: Path, tmp_path: Path) -> None:
    answer = prism("synthesize", tiny, "--out", tmp_path / "run", "--log-json", "--worker", "2/3")
    assert answer.code == 0, answer.err
    shards = [line for line in lines(answer) if line["event"] == "shard finished"]
    assert len(shards) == len(list((tmp_path / "run" / "shards").glob("*.tar")))
    assert sum(line["images"] for line in shards) == 10
    for line in shards:
        assert line.keys() == FIELDS
        assert (line["level"], line["worker"]) == ("INFO", "2/3")
        assert datetime.fromisoformat(line["time"]).tzinfo is not None
    assert logging.root.handlers == [h for h in logging.root.handlers if type(h) is not logging.StreamHandler]


def test_an_error_is_json_too(prism: Command, tiny: Path, tmp_path: Path) -> None:
    answer = prism("synthesize", tiny, "--out", tmp_path / "run", "--log-json", "--worker", "9/3")
    (line,) = lines(answer)
    assert (answer.code, line["level"]) == (2, "ERROR")
    assert line["event"].startswith("error: --worker 9/3 is not i/N")


def test_warnings_and_tracebacks_keep_to_their_line(capfd: pytest.CaptureFixture[str]) -> None:
    with json_log("1/1"), warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        try:
            warnings.warn("two\nlines", UserWarning, stacklevel=1)
            raise ValueError("bad\nvalue")
        except ValueError:
            logging.getLogger("elsewhere").exception("it failed")
        finally:
            logging.captureWarnings(False)
    warned, failed = map(json.loads, capfd.readouterr().err.splitlines())
    assert "two\nlines" in warned["event"]
    assert (failed["event"], failed["level"], failed["worker"]) == ("it failed", "ERROR", "1/1")
    assert "bad\nvalue" in failed["exc_info"]


def test_off_by_default_and_not_imported(
    prism: Command, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("prometheus_client", "pythonjsonlogger", "pythonjsonlogger.json"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it would fail
    answer = prism("synthesize", tiny, "--out", tmp_path / "run")
    assert answer.code == 0, answer.err


def test_torchruns_ranks_do_not_share_a_port(prism: Command, tiny: Path, tmp_path: Path) -> None:
    answer = prism("synthesize", tiny, "--out", tmp_path / "run", "--launch", "torchrun", "--metrics-port", 9100)
    assert answer.code == 2
    assert answer.error().startswith("--metrics-port is one port and torchrun's ranks share a machine; use --launch")
