"""Write a bank by asking a server about each class, several at a time; what is accepted is kept at once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prism_fast.errors import InputError
from prism_fast.labels.load import load_label_space
from prism_fast.labels.vocabulary import VocabularyName
from prism_fast.prompt_tools.writing.bank_file import BankFile
from prism_fast.prompt_tools.writing.client import Server
from prism_fast.prompt_tools.writing.job import Job, Missing, Way
from prism_fast.prompt_tools.writing.kept import Kept
from prism_fast.prompt_tools.writing.request import requests_of
from prism_fast.prompt_tools.writing.talk import Usage

_LOG = logging.getLogger("prism_fast")


@dataclass(frozen=True)
class Prices:
    """Of a million tokens that go in, and that come out; in whatever currency."""

    tokens_in: float
    tokens_out: float

    def cost(self, usage: Usage) -> float:
        """What a number of tokens costs."""
        return (usage.tokens_in * self.tokens_in + usage.tokens_out * self.tokens_out) / 1e6


@dataclass(frozen=True)
class Written:
    """What a call did; the bank is there when nothing is missing.

    ``written`` classes have an entry, of which ``cached`` were there before; ``asked`` were asked about, with
    ``retries`` requests more than one each. Tokens and cost are this call's.
    """

    classes: int
    written: int
    asked: int
    cached: int
    retries: int
    tokens_in: int
    tokens_out: int
    cost: float | None
    missing: tuple[Missing, ...]
    out: Path
    answers: Path


def write_bank(
    labels: str,
    out: Path,
    server: Server,
    *,
    axes: VocabularyName = "pictures",
    tries: int = 3,
    concurrency: int = 4,
    prices: Prices | None = None,
    progress: Callable[[int, int, float], None] | None = None,
    log: Callable[[str], None] = _LOG.info,
) -> Written:
    """Ask for the entry of every class that has none yet; write the bank when all are there.

    Args:
        labels: a bundled label space, or a YAML file.
        out: the bank; accepted answers are kept in ``OUT.answers``.
        server: who is asked.
        axes: the vocabulary that the bank is checked with.
        tries: requests a class at most, a second round after the check of the whole bank apart.
        concurrency: classes asked about at once.
        prices: of tokens.
        progress: told after every class: classes with an entry, classes in all, thousands of tokens so far.
        log: told what the user should know.

    Raises:
        InputError: bad labels or settings, a refused key, an unknown model, a file at ``out`` that would be lost.
        RunError: no server answers, or the disk refused.
    """
    if tries < 1 or concurrency < 1:
        raise InputError(f"{tries} tries of {concurrency} classes at once ask nothing; give at least one of each")
    requests, file = requests_of(load_label_space(labels), axes), BankFile.at(out)
    job = Job(requests, Kept.beside(out, server.model), axes, Way(tries, concurrency, progress, log))
    cached = len(job.entries)
    file.require_own(job.entries if cached == len(requests) else None)
    job.run(server)
    missing = job.missing()
    if not missing:
        file.write(job.in_order(), server.model)
    return Written(
        classes=len(requests),
        written=len(requests) - len(missing),
        asked=len(job.asked),
        cached=cached,
        retries=job.usage.requests - len(job.asked),
        tokens_in=job.usage.tokens_in,
        tokens_out=job.usage.tokens_out,
        cost=prices.cost(job.usage) if prices else None,
        missing=missing,
        out=out,
        answers=job.kept.folder,
    )
