"""The work of writing a bank: the entries so far, and who asks for the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial

from prism_fast.errors import PrismError
from prism_fast.labels.bank import BankEntry
from prism_fast.labels.vocabulary import VocabularyName, load_vocabulary
from prism_fast.prompt_tools.writing.answer import as_answer
from prism_fast.prompt_tools.writing.client import Chat, Server
from prism_fast.prompt_tools.writing.kept import Kept
from prism_fast.prompt_tools.writing.request import Message, Request, names_scenes
from prism_fast.prompt_tools.writing.talk import Usage, correction, talk
from prism_fast.prompts.lint import lint

#: Turns of a class, by key, that come after its request: an earlier answer and what is wrong with it, or nothing.
_Pending = dict[str, tuple[Message, ...]]


@dataclass(frozen=True)
class Missing:
    """A class without an entry, and the last complaint about it."""

    name: str
    problem: str


@dataclass(frozen=True)
class Way:
    """How classes are asked about, and who is told; see :func:`prism_fast.prompt_tools.writing.write.write_bank`."""

    tries: int
    concurrency: int
    progress: Callable[[int, int, float], None] | None
    log: Callable[[str], None]


class Job:
    """The entries so far, and who asks for the others."""

    def __init__(self, requests: Sequence[Request], kept: Kept, axes: VocabularyName, way: Way) -> None:
        self.requests, self.kept, self._way = {request.key: request for request in requests}, kept, way
        vocabulary = load_vocabulary(axes)
        self._lint = partial(lint, vocabulary=vocabulary, scenes=names_scenes(vocabulary))
        self.entries = {r.key: entry for r in requests if (entry := kept.get(r, way.log)) is not None}
        self.usage, self.asked, self._problems = Usage(), set[str](), dict[str, str]()
        self._lock, self._stop = threading.Lock(), threading.Event()

    def run(self, server: Server) -> None:
        """Ask about what lacks, then once more about what the check of the whole bank finds.

        Raises:
            InputError, RunError: no request could succeed, or the disk refused.
        """
        chat: Chat | None = None
        try:
            for pending in (self._absent, self._wrong):
                if asked := pending():
                    chat = chat or Chat(server, self._way.log)
                    self._round(chat, asked)
        except PrismError as error:
            if not self.entries:
                raise
            kept = f"{len(self.entries)} of {len(self.requests)} classes are kept in {self.kept.folder}"
            raise type(error)(f"{error}; {kept}") from error
        finally:
            if chat is not None:
                chat.close()
        if lost := self.usage.uncounted:
            self._way.log(f"{lost} answers came without their number of tokens; what is counted is too low")

    def in_order(self) -> dict[str, BankEntry]:
        """The entries by label."""
        return {key: self.entries[key] for key in self.requests}

    def missing(self) -> tuple[Missing, ...]:
        """Classes that nothing was accepted for, and those that the whole bank cannot have."""
        wrong = {complaint.key: complaint.problem for complaint in reversed(list(self._lint(self.entries)))}
        absent = {key: self._problems.get(key, "not asked") for key in self.requests if key not in self.entries}
        found = wrong | absent
        return tuple(Missing(r.label.name, found[key]) for key, r in self.requests.items() if key in found)

    def _absent(self) -> _Pending:
        return {key: () for key in self.requests if key not in self.entries}

    def _wrong(self) -> _Pending:
        """Whatever the whole bank cannot have: the entry and the complaints."""
        found: dict[str, list[str]] = {}
        for complaint in self._lint(self.entries):
            found.setdefault(complaint.key, []).append(complaint.problem)
        return {key: correction(as_answer(self.entries[key]), problems) for key, problems in found.items()}

    def _round(self, chat: Chat, pending: Mapping[str, tuple[Message, ...]]) -> None:
        """Ask about several classes at once; whatever stops it, requests under way are waited for and kept."""
        self.asked |= pending.keys()
        with ThreadPoolExecutor(self._way.concurrency, thread_name_prefix="prompts-write") as pool:
            begun = [pool.submit(self._ask, chat, self.requests[key], wrong) for key, wrong in pending.items()]
            try:
                for done in as_completed(begun):
                    done.result()
                    self._tell()
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                self._way.log("stopping; requests under way are waited for")
                raise

    def _ask(self, chat: Chat, request: Request, wrong: tuple[Message, ...]) -> None:
        """In a thread: one class until it is accepted, and kept."""
        check = partial(self._check, request.key)
        try:
            made = talk(chat, request, check, self._way.tries, wrong, self._stop.is_set)
            if made.entry is not None:
                self.kept.put(request, made.entry)
        except PrismError:
            self._stop.set()  # here, or this thread would begin the next class before anybody hears of it
            raise
        with self._lock:
            self.usage.include(made.usage)
            if made.entry is not None:
                self.entries[request.key] = made.entry
            else:
                self._problems[request.key] = made.problem

    def _check(self, key: str, entry: BankEntry) -> list[str]:
        """What is wrong with an entry among those already there: only a name that it says can be another class's."""
        said = " ".join((entry.name, entry.sense, *entry.alternatives)).lower()
        with self._lock:
            near = {k: other for k, other in self.entries.items() if k != key and other.name.lower() in said}
        return [found.problem for found in self._lint({key: entry, **near}) if found.key == key]

    def _tell(self) -> None:
        if self._way.progress is not None:
            tokens = self.usage.tokens_in + self.usage.tokens_out
            self._way.progress(len(self.entries), len(self.requests), tokens / 1e3)
