"""A chat-completions server: one question, one answer, every fault in one line.

The ``openai`` package speaks the protocol, with its own retries of what passes (429 with Retry-After, 5xx, timeouts).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from prism_fast.errors import InputError, PrismError, RunError
from prism_fast.prompt_tools.writing.answer import answer_schema
from prism_fast.prompt_tools.writing.request import Message

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletion

#: Servers on one's own machine ask for no key, but the client wants one.
_NO_KEY = "none"
_CONNECT_S = 10.0
_SHOWN = 200
#: Structured answers, the strictest form first.
_FORMS: tuple[dict[str, Any], ...] = (
    {
        "type": "json_schema",
        "json_schema": {"name": "prompt_bank_entry", "strict": True, "schema": answer_schema()},
    },
    {"type": "json_object"},
)


@dataclass(frozen=True)
class Server:
    """Where and what to ask; the key is read from the environment. ``retries`` of what passes, a request."""

    endpoint: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    timeout_s: float = 120.0
    retries: int = 2

    def __post_init__(self) -> None:
        if not self.endpoint.startswith(("http://", "https://")):
            raise InputError(f"endpoint {self.endpoint!r} is no address; give one as http://localhost:8000/v1")
        if not self.model.strip():
            raise InputError("the model's name is empty; give the one that the server knows it by")
        if not self.timeout_s > 0:
            raise InputError(f"a timeout of {self.timeout_s} s is none; give seconds above 0")

    def key(self) -> str:
        """The API key, or a placeholder when the variable is unset.

        Raises:
            InputError: the variable holds what no header can carry.
        """
        key = os.environ.get(self.api_key_env, "").strip() or _NO_KEY
        if not (key.isascii() and key.isprintable()):
            raise InputError(f"{self.api_key_env} holds what no API key is; set it to the key alone")
        return key


@dataclass(frozen=True)
class Reply:
    """What came back: a text, or why it is none; tokens where the server counts them."""

    text: str
    problem: str | None
    tokens_in: int
    tokens_out: int
    counted: bool


class ServerFault(Exception):
    """A request failed in a way that another one need not."""


class Chat:
    """A server that is asked from several threads."""

    def __init__(self, server: Server, log: Callable[[str], None]) -> None:
        self._server, self._log, self._key = server, log, server.key()
        self._form, self._lock = 0, threading.Lock()
        try:
            import openai
        except ImportError as error:
            raise InputError(
                "asking a server needs openai, which is not installed; pip install 'prism-fast[llm]'"
            ) from error
        self._client = openai.OpenAI(
            base_url=server.endpoint,
            api_key=self._key,
            timeout=openai.Timeout(server.timeout_s, connect=min(server.timeout_s, _CONNECT_S)),
            max_retries=server.retries,
        )

    def close(self) -> None:
        """Let the connections go."""
        self._client.close()

    def ask(self, messages: Sequence[Message]) -> Reply:
        """One answer.

        Raises:
            ServerFault: this request failed. InputError, RunError: every other one would, too.
        """
        import openai

        form = self._form
        try:
            return _reply(self._send(messages, form))
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            said = self._said(error)
            if not self._fell_back(form, said):
                raise ServerFault(f"the server refuses the request (HTTP {error.status_code}: {said})") from error
        except openai.APITimeoutError as error:
            raise self._timeout(error) from error
        except openai.APIConnectionError as error:
            raise self._unreachable(error) from error
        except openai.APIStatusError as error:
            raise self._of_status(error) from error
        except (openai.OpenAIError, ValueError) as error:
            raise ServerFault(f"the server's answer cannot be read: {_cut(str(error))}") from error
        return self.ask(messages)

    def _send(self, messages: Sequence[Message], form: int) -> ChatCompletion:
        turns: Any = [asdict(message) for message in messages]
        shape: Any = _FORMS[form]
        answer: Any = self._client.chat.completions.create(
            model=self._server.model, messages=turns, response_format=shape
        )
        if isinstance(answer, str):  # the client hands over a page that is no JSON as it is
            raise InputError(
                f"{self._server.endpoint} does not speak the chat-completions protocol; correct --endpoint, which "
                "usually ends with /v1"
            )
        found: ChatCompletion = answer
        return found

    def _fell_back(self, form: int, said: str) -> bool:
        """Whether to ask again, in a laxer form than ``form``, of which the server said this."""
        if not any(word in said for word in ("response_format", "json_schema", "json_object", "guided")):
            return False
        with self._lock:
            if self._form > form:
                return True
            if form + 1 == len(_FORMS):
                raise InputError(f"{self._server.endpoint} gives no structured answers ({said}); ask another server")
            self._form += 1
        self._log(
            f"{self._server.endpoint} refuses response_format {_FORMS[form]['type']}; going on with "
            f"{_FORMS[form + 1]['type']}"
        )
        return True

    def _timeout(self, error: openai.APITimeoutError) -> Exception:
        if type(error.__cause__).__name__ == "ConnectTimeout":
            return self._unreachable(error)
        return ServerFault(f"no answer within {self._server.timeout_s:g} s; a larger --timeout-s waits longer")

    def _unreachable(self, error: openai.APIConnectionError) -> PrismError:
        cause = _cut(str(error.__cause__ or error))
        return RunError(f"no server answers at {self._server.endpoint} ({cause}); start it, or correct --endpoint")

    def _of_status(self, error: openai.APIStatusError) -> Exception:
        """What a status means: for this request, or for all."""
        server, code = self._server, error.status_code
        said = f"HTTP {code}: {self._said(error)}"
        if code in (401, 403):
            what = (
                f"needs a key in {server.api_key_env}"
                if self._key == _NO_KEY
                else f"refuses the key of {server.api_key_env}"
            )
            return InputError(f"{server.endpoint} {what} ({said}); set the variable, or name another by --api-key-env")
        if code in (404, 405):
            return InputError(
                f"{server.endpoint} has no model {server.model!r}, or no chat completions ({said}); correct --model, "
                "or --endpoint, which usually ends with /v1"
            )
        if code == 402 or error.code == "insufficient_quota":
            return RunError(f"the account at {server.endpoint} is used up ({said}); add to it")
        return ServerFault(f"the server failed ({said})")

    def _said(self, error: openai.APIStatusError) -> str:
        body = error.body
        said = str((body.get("message") if isinstance(body, dict) else None) or error.response.text or error.message)
        return _cut(said if self._key == _NO_KEY else said.replace(self._key, "***"))


def _reply(answer: ChatCompletion) -> Reply:
    """What an answer holds; servers leave out what the protocol demands."""
    usage = answer.usage
    tokens_in, tokens_out = (usage.prompt_tokens or 0, usage.completion_tokens or 0) if usage else (0, 0)
    text, problem = "", "the answer has no choices"
    if answer.choices:
        choice = answer.choices[0]
        text = (choice.message.content or "") if choice.message else ""
        problem = _fault_of(choice, text)
    return Reply(text, problem or None, tokens_in, tokens_out, usage is not None)


def _fault_of(choice: Any, text: str) -> str:
    refusal = getattr(choice.message, "refusal", None)
    if refusal:
        return f"the model refused: {_cut(refusal)}"
    if choice.finish_reason == "content_filter":
        return "the server's filter held the answer back"
    if choice.finish_reason == "length":
        return "the answer was cut off at the server's limit of tokens; write fewer variants and fewer, shorter scenes"
    return "" if text.strip() else "the answer is empty"


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 3]}..."
