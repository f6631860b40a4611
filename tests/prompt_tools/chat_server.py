"""A server for tests that speaks as much of the chat-completions protocol as a client needs."""

from __future__ import annotations

import json
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CLASSES = ("crane", "kite", "bat")


def entry(name: str, **changes: Any) -> dict[str, Any]:
    """A right answer for a class."""
    return {
        "name": name,
        "plural": f"{name}s",
        "kind": "object",
        "sense": f"large {len(name)}-sided thing made of painted wood",
        "alternatives": [],
        "variants": [f"{colour} {name}" for colour in ("red", "green", "blue", "old")],
        "scenes": {
            "outdoors": [f"beside a {place}" for place in ("river", "road", "hill", "barn", "wall")],
            "indoors": ["on a kitchen table", "standing in a hallway"],
            "underwater": [],
            "night": ["under a full moon"],
        },
        "confusions": ["ladder"],
    } | changes


@dataclass(frozen=True)
class Scripted:
    """One answer: a text, or a status with a message; ``finish`` and ``refusal`` as the protocol has them."""

    text: str = ""
    status: int = 200
    message: str = ""
    code: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    finish: str = "stop"
    refusal: str | None = None
    choices: bool = True
    usage: bool = True
    page: str | None = None
    wait_s: float = 0.0

    def body(self) -> dict[str, Any]:
        """The document that is sent."""
        if self.status != 200:
            return {"error": {"message": self.message, "type": "error", "code": self.code}}
        said = {"role": "assistant", "content": self.text, "refusal": self.refusal}
        choice = {"index": 0, "message": said, "finish_reason": self.finish}
        counted = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110} if self.usage else None
        return {
            "id": "1", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [choice] if self.choices else [], "usage": counted,
        }  # fmt: skip


def says(name: str, **changes: Any) -> Scripted:
    """A well-formed answer."""
    return Scripted(json.dumps(entry(name, **changes)))


@dataclass
class ChatServer:
    """What it answers, by class in turn and a right entry afterwards; ``always`` for every request; what it was asked.

    ``refuses`` are kinds of response_format that it does not know.
    """

    scripts: dict[str, deque[Scripted]] = field(default_factory=lambda: defaultdict(deque))
    always: Scripted | None = None
    refuses: tuple[str, ...] = ()
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)

    def script(self, name: str, *answers: Scripted) -> None:
        """The next answers about a class."""
        self.scripts[name].extend(answers)

    def answer(self, request: dict[str, Any]) -> Scripted:
        """What to say."""
        self.requests.append(request)
        form = request["response_format"]["type"]
        if form in self.refuses:
            return Scripted(status=400, message=f"response_format of type {form} is unknown")
        if self.always is not None:
            return self.always
        name = asked_about(request)
        return self.scripts[name].popleft() if self.scripts[name] else says(name)

    def asked(self) -> list[str]:
        """The classes in the order of the requests."""
        return [asked_about(request) for request in self.requests]

    def turns(self, name: str) -> list[list[dict[str, str]]]:
        """The messages of each request about a class."""
        return [request["messages"] for request in self.requests if asked_about(request) == name]


def asked_about(request: dict[str, Any]) -> str:
    """The class of a request."""
    first: str = request["messages"][0]["content"]
    return first.split("The class: ")[1].splitlines()[0]


@contextmanager
def serving(server: ChatServer) -> Iterator[ChatServer]:
    """The server on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            server.keys.add(self.headers["Authorization"])
            given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = server.answer(given)
            if answer.wait_s:
                server.released.wait(answer.wait_s)
            kind, text = ("text/html", answer.page) if answer.page else ("application/json", json.dumps(answer.body()))
            data = text.encode()
            self.send_response(answer.status)
            for name, value in (("Content-Type", kind), ("Content-Length", str(len(data))), *answer.headers):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that has gone is no news."""

    with Quiet(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            http.shutdown()
            thread.join()
