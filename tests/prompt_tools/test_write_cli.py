"""``prism-fast prompts write``: what it prints and how it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from prism_fast.cli.prompts_write import write
from prism_fast.errors import ConfigError, InputError, RunError
from tests.prompt_tools.chat_server import ChatServer, says, serving
from tests.prompt_tools.test_write import write_labels

app = typer.Typer()
app.command()(write)


@app.callback()
def _several() -> None:
    """A group, as ``prompts`` is."""


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(ChatServer()) as found:
        yield found


def run(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["write", write_labels(folder), "--out", str(folder / "bank.yaml"), *options])


def test_it_says_what_was_done_and_what_it_cost(server: ChatServer, tmp_path: Path) -> None:
    asked = ("--endpoint", server.url, "--model", "m", "--price-in", "2", "--price-out", "10")
    plain = run(tmp_path, *asked)
    assert (plain.exit_code, plain.stdout.splitlines()) == (
        0,
        [
            "3 of 3 classes (0 from before), 3 asked, 0 retries, 300 tokens in, 30 out, cost 0.0009",
            f"bank: {tmp_path / 'bank.yaml'}",
        ],
    )
    assert "write: 3/3 (0.33)" in plain.stderr
    document = json.loads(run(tmp_path, *asked, "--json").stdout)
    assert document == {
        "classes": 3, "written": 3, "asked": 0, "cached": 3, "retries": 0, "tokens_in": 0, "tokens_out": 0,
        "cost": 0.0, "missing": [], "out": str(tmp_path / "bank.yaml"),
        "answers": str(tmp_path / "bank.yaml.answers"),
    }  # fmt: skip


def test_classes_that_are_missing_end_with_one(server: ChatServer, tmp_path: Path) -> None:
    server.script("kite", *[says("kite", kind="toy", sense="Kite")] * 2)
    asked = ("--endpoint", server.url, "--model", "m", "--tries", "1")
    plain = run(tmp_path, *asked)
    assert isinstance(plain.exception, RunError)
    assert plain.exception.exit_code == 1
    assert str(plain.exception).startswith(f"1 of 3 classes are missing, so {tmp_path / 'bank.yaml'} is not written; 2")
    assert plain.stdout.startswith("kite: the sense is the name again\n2 of 3 classes")
    document = json.loads(run(tmp_path, *asked, "--json").stdout)
    assert document["missing"] == [{"class": "kite", "problem": "the sense is the name again"}]
    assert document["cost"] is None


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ((), "whom to ask"),
        (("--endpoint", "http://x/v1"), "whom to ask"),
        (("--from", "c.jsonl", "--model", "m"), "--from needs no server"),
        (("--endpoint", "http://x/v1", "--model", "m", "--price-in", "1"), "a cost needs both prices"),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, options: tuple[str, ...], problem: str) -> None:
    found = run(tmp_path, *options).exception
    assert isinstance(found, InputError)
    assert problem in str(found)


def test_captions_are_shown_with_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"class": "crane", "caption": "a crane in fog"}\n')
    plain = run(tmp_path, "--from", str(tmp_path / "c.jsonl"))
    assert isinstance(plain.exception, ConfigError)
    assert plain.exception.exit_code == 2
    assert "crane: 1 scenes; 8 are the fewest\n" in plain.stdout
    assert (
        "no caption gives a scene of: kite, bat\n3 classes, 1 scenes and 0 variants from 1 captions, 0" in plain.stdout
    )
    document = json.loads(run(tmp_path, "--from", str(tmp_path / "c.jsonl"), "--json").stdout)
    assert (document["scenes"], document["bare"]) == (1, ["kite", "bat"])
    assert {"key": "crane", "problem": "1 scenes; 8 are the fewest"} in document["complaints"]
