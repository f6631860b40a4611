"""The conversation about one class: an answer, what is wrong with it, another answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from prism_fast.labels.bank import BankEntry
from prism_fast.prompt_tools.writing.answer import read_answer
from prism_fast.prompt_tools.writing.client import Reply, ServerFault
from prism_fast.prompt_tools.writing.request import Message, Request

#: Of an answer that was not accepted, how much the model is shown again.
_REMEMBERED = 8_000
_SHOWN_PROBLEMS = 12


class Asks(Protocol):
    """Whoever answers messages, see :class:`prism_fast.prompt_tools.writing.client.Chat`."""

    def ask(self, messages: Sequence[Message]) -> Reply:
        """One answer."""


@dataclass
class Usage:
    """What was asked and what it took."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    uncounted: int = 0

    def add(self, reply: Reply) -> None:
        """One more answer."""
        self.tokens_in += reply.tokens_in
        self.tokens_out += reply.tokens_out
        self.uncounted += not reply.counted

    def include(self, other: Usage) -> None:
        """What another conversation took."""
        self.requests += other.requests
        self.tokens_in += other.tokens_in
        self.tokens_out += other.tokens_out
        self.uncounted += other.uncounted


@dataclass
class Talk:
    """How it ended: with an entry, or with the last complaint."""

    entry: BankEntry | None = None
    problem: str = ""
    usage: Usage = field(default_factory=Usage)


def talk(
    chat: Asks,
    request: Request,
    check: Callable[[BankEntry], list[str]],
    tries: int,
    wrong: tuple[Message, ...] = (),
    stopped: Callable[[], bool] = lambda: False,
) -> Talk:
    """Ask until an answer is accepted.

    Args:
        chat: who is asked.
        request: about which class.
        check: what is wrong with an entry, nothing if it can be taken.
        tries: requests at most.
        wrong: an earlier answer and the complaint about it.
        stopped: whether to give up before the next request.

    Raises:
        InputError, RunError: no request could succeed.
    """
    made, messages = Talk(problem="not asked"), (*request.messages, *wrong)
    while made.usage.requests < tries and not stopped():
        made.usage.requests += 1
        try:
            reply = chat.ask(messages)
        except ServerFault as fault:  # the model has said nothing that could be corrected
            made.problem = str(fault)
            continue
        made.usage.add(reply)
        entry, problems = _judged(reply, check)
        if not problems:
            made.entry, made.problem = entry, ""
            return made
        made.problem = problems[0]
        messages = (*request.messages, *correction(reply.text, problems))
    return made


def correction(answer: str, problems: Sequence[str]) -> tuple[Message, Message]:
    """What the model said, and what to do about it; only the latest answer is remembered, contexts are small."""
    listed = "\n".join(f"- {problem}" for problem in problems[:_SHOWN_PROBLEMS])
    return (
        Message("assistant", answer[:_REMEMBERED] or "{}"),
        Message("user", f"This entry cannot be taken:\n{listed}\nAnswer again with the whole corrected JSON object."),
    )


def _judged(reply: Reply, check: Callable[[BankEntry], list[str]]) -> tuple[BankEntry | None, list[str]]:
    if reply.problem:
        return None, [reply.problem]
    try:
        entry = read_answer(reply.text)
    except ValueError as error:
        return None, [str(error)]
    return entry, check(entry)
