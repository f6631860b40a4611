"""What a server can do wrong: some of it costs a class a try, some stops at once; what was answered is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prism_fast.errors import InputError, RunError
from prism_fast.prompt_tools.writing.client import Server
from prism_fast.prompt_tools.writing.write import Written, write_bank
from tests.prompt_tools.chat_server import ChatServer, Scripted, says, serving
from tests.prompt_tools.test_write import write_labels


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(ChatServer()) as found:
        yield found


def written(server: ChatServer, folder: Path, timeout_s: float = 20.0, retries: int = 0, **given: Any) -> Written:
    asked = Server(server.url, "m", "SOME_KEY", timeout_s, retries)
    return write_bank(write_labels(folder), folder / "bank.yaml", asked, **({"concurrency": 1} | given))


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (Scripted(status=500, message="no memory"), "the server failed (HTTP 500: no memory)"),
        (Scripted(status=429, message="slowly"), "the server failed (HTTP 429: slowly)"),
        (Scripted(status=400, message="context is too long"), "the server refuses the request (HTTP 400: context is"),
        (Scripted("late", wait_s=30), "no answer within 0.3 s; a larger --timeout-s waits longer"),
    ],
)
def test_a_fault_costs_the_class_a_try(server: ChatServer, tmp_path: Path, fault: Scripted, problem: str) -> None:
    timeout_s = 0.3 if fault.wait_s else 20.0
    server.script("crane", fault, fault)
    done = written(server, tmp_path, timeout_s, tries=2)
    (missing,) = done.missing
    assert (missing.name, done.written) == ("crane", 2)
    assert missing.problem.startswith(problem)
    assert all(len(turns) == 1 for turns in server.turns("crane"))  # the model had said nothing to be corrected
    server.script("crane", fault)
    assert written(server, tmp_path, timeout_s, tries=2).missing == ()


def test_the_client_waits_as_long_as_the_server_asks(server: ChatServer, tmp_path: Path) -> None:
    server.script("crane", Scripted(status=429, message="slowly", headers=(("Retry-After", "0.01"),)))
    done = written(server, tmp_path, retries=1, tries=1)
    assert (done.missing, done.retries, len(server.requests)) == ((), 0, 4)


@pytest.mark.parametrize(
    ("fault", "kind", "problem"),
    [
        (Scripted(status=401, message="bad key"), InputError, "needs a key in SOME_KEY (HTTP 401: bad key)"),
        (Scripted(status=404, message="no model m"), InputError, "has no model 'm', or no chat completions (HTTP 404"),
        (Scripted(status=402, message="pay"), RunError, "is used up (HTTP 402: pay)"),
        (Scripted(status=429, message="pay", code="insufficient_quota"), RunError, "is used up (HTTP 429: pay)"),
        (Scripted(page="<html>Welcome</html>"), InputError, "does not speak the chat-completions protocol"),
    ],
)
def test_what_every_request_would_meet_stops_at_once(
    server: ChatServer, tmp_path: Path, fault: Scripted, kind: type[Exception], problem: str
) -> None:
    server.script("kite", fault)
    with pytest.raises(kind) as stopped:
        written(server, tmp_path)
    assert problem in str(stopped.value)
    assert str(stopped.value).endswith(f"1 of 3 classes are kept in {tmp_path / 'bank.yaml.answers'}")
    assert server.asked() == ["crane", "kite"]
    assert (written(server, tmp_path).cached, server.asked()[2:]) == (1, ["kite", "bat"])


def test_a_key_is_sent_and_never_shown(server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-123\n")
    server.always = Scripted(status=401, message="sk-123 is not known")
    with pytest.raises(InputError) as stopped:
        written(server, tmp_path)
    assert server.keys == {"Bearer sk-123"}
    assert "refuses the key of SOME_KEY (HTTP 401: *** is not known); set the variable" in str(stopped.value)
    monkeypatch.setenv("SOME_KEY", "sk-é")
    with pytest.raises(InputError, match="SOME_KEY holds what no API key is"):
        written(server, tmp_path)


def test_nobody_answers(tmp_path: Path) -> None:
    with serving(ChatServer()) as gone:
        pass
    with pytest.raises(RunError, match=rf"^no server answers at {gone.url} \(.*refused.*\); start it, or correct"):
        written(gone, tmp_path)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (("localhost:8000/v1", "m"), "endpoint 'localhost:8000/v1' is no address"),
        (("http://x/v1", " "), "the model's name is empty"),
        (("http://x/v1", "m", "K", 0.0), "a timeout of 0.0 s is none"),
    ],
)
def test_what_can_be_no_server_is_said_before_anything_is_asked(given: tuple[Any, ...], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Server(*given)


def test_a_laxer_form_is_taken_where_schemas_are_refused_and_said_once(server: ChatServer, tmp_path: Path) -> None:
    said: list[str] = []
    server.refuses = ("json_schema",)
    assert written(server, tmp_path, concurrency=3, log=said.append).missing == ()
    assert said == [f"{server.url} refuses response_format json_schema; going on with json_object"]
    assert Counter(r["response_format"]["type"] for r in server.requests)["json_object"] == 3
    server.refuses, server.requests[:] = ("json_schema", "json_object"), []
    (tmp_path / "bank.yaml.answers").rename(tmp_path / "away")
    with pytest.raises(InputError, match="gives no structured answers"):
        written(server, tmp_path)
    assert len(server.requests) == 2


def test_answers_whose_tokens_are_not_counted_are_said(server: ChatServer, tmp_path: Path) -> None:
    said: list[str] = []
    server.script("kite", Scripted(says("kite").text, usage=False))
    assert written(server, tmp_path, log=said.append).tokens_in == 200
    assert said == ["1 answers came without their number of tokens; what is counted is too low"]


def test_a_disk_that_refuses_is_one_line(server: ChatServer, tmp_path: Path) -> None:
    (tmp_path / "bank.yaml.answers").write_text("no folder")
    with pytest.raises(RunError, match=r"cannot write .*bank\.yaml\.answers: File exists; make room"):
        written(server, tmp_path)
    (tmp_path / "bank.yaml").mkdir()
    with pytest.raises(InputError, match=r"bank\.yaml cannot be a bank: Is a directory; give another file"):
        written(server, tmp_path)


def test_without_the_package_the_extra_is_named(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(InputError, match=r"pip install 'prism-fast\[llm\]'"):
        written(server, tmp_path)


PROGRAM = """
import sys
from pathlib import Path
from prism_fast.prompt_tools.writing.client import Server
from prism_fast.prompt_tools.writing.write import write_bank
write_bank(sys.argv[1], Path(sys.argv[2]), Server(sys.argv[3], "m"), concurrency=1)
"""


def test_interrupted_it_keeps_what_was_under_way(server: ChatServer, tmp_path: Path) -> None:
    def interrupt(done: int, total: int, tokens: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        written(server, tmp_path, progress=interrupt)
    assert not (tmp_path / "bank.yaml").exists()
    before = len(server.requests)
    done = written(server, tmp_path)
    assert (done.cached, done.missing, sorted(server.asked())) == (before, (), ["bat", "crane", "kite"])


@pytest.mark.slow
def test_killed_and_started_again_it_asks_only_for_the_rest(server: ChatServer, tmp_path: Path) -> None:
    server.script("kite", Scripted("never sent", wait_s=60))
    arguments = [write_labels(tmp_path), str(tmp_path / "bank.yaml"), server.url]
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments])
    deadline = time.monotonic() + 60
    while len(server.requests) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert server.asked() == ["crane", "kite"]
    assert not (tmp_path / "bank.yaml").exists()
    done = written(server, tmp_path)
    assert (done.cached, done.missing, server.asked()[2:]) == (1, (), ["kite", "bat"])
