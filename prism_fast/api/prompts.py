"""What is done with prompts before a run: banks written, senses checked, prompts measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prism_fast.api.runs import LOG, Log, Progress, path_of

if TYPE_CHECKING:
    from prism_fast.config import RunConfig
    from prism_fast.prompt_tools.checking.run import Outcome
    from prism_fast.prompt_tools.stats import PromptStats
    from prism_fast.prompt_tools.writing.write import Prices, Written
    from prism_fast.workers.stop import Stop


def check_prompts(
    config: RunConfig,
    out: Path | str,
    *,
    classes: Sequence[str | int] = (),
    images: int = 8,
    choose: Path | str | None = None,
    store: Path | str | None = None,
    progress: Progress | None = None,
    log: Log = LOG.info,
    stop: Stop | None = None,
) -> Outcome:
    """Let the teacher say whether it sees each class in a few unguided images of each of its senses.

    Args:
        config: whose prompts, networks and sampling; guidance is left out.
        out: ``check.json``, ``check.html`` and the images go there; what is there already is not made again.
        classes: names or labels; none means all.
        images: of each sense.
        choose: write a bank there in which each checked class's best sense is its sense.
        store: where compiled engines are kept; the user's own store when not given.
        progress: told after every class.
        log: told which engines are used, and of damaged files.
        stop: asks to stop; see :func:`prism_fast.workers.stop.stoppable`.

    Raises:
        InputError: no such class, bad models or prompts, or a file ``choose`` that says something else.
        RunError: the disk refused. EngineError: a named backend cannot run here. StoppedError: ``stop`` was asked for.
    """
    from prism_fast.process import prepare

    prepare()
    from prism_fast.prompt_tools.checking.run import check_prompts as check
    from prism_fast.storage.paths import local_path

    return check(
        config,
        local_path(out),
        classes=classes,
        images=images,
        choose=path_of(choose),
        store=path_of(store),
        progress=progress,
        log=log,
        stop=stop,
    )


def prompt_stats(
    config: RunConfig,
    *,
    images: int | None = None,
    classes: Sequence[str | int] = (),
    encode: bool = True,
    progress: Progress | None = None,
) -> PromptStats:
    """Count the prompts of a plan and measure how far apart they lie for the model's text encoder.

    Args:
        config: the run; its text encoder is all that is loaded.
        images: the first so many rows of the plan; None means the run's, but no more than 64 of a class.
        classes: these alone, by name or number.
        encode: False counts without any model.
        progress: told after every class: classes measured, classes in all, the latest one's Vendi score.

    Raises:
        InputError: no such class, one without a row, or a device that cannot be used. ConfigError: a template or the
            bank is wrong. DataError: the model's directory is not there or wrong.
    """
    if encode:
        from prism_fast.process import prepare

        prepare()
    from prism_fast.prompt_tools.stats import prompt_stats as measure

    return measure(config, images=images, classes=classes, encode=encode, progress=progress)


def write_bank(
    labels: str,
    out: Path | str,
    *,
    endpoint: str,
    model: str,
    api_key_env: str = "OPENAI_API_KEY",
    timeout_s: float = 120.0,
    tries: int = 3,
    concurrency: int = 4,
    prices: Prices | None = None,
    progress: Progress | None = None,
    log: Log = LOG.info,
) -> Written:
    """Write a prompt bank for a label space by asking an OpenAI-compatible server; called again it goes on.

    Args:
        labels: a bundled label space, or a YAML file.
        out: the bank; accepted answers are kept in ``OUT.answers``.
        endpoint: the server's address, which usually ends with ``/v1``.
        model: as the server calls it.
        api_key_env: the variable that holds the key, if one is needed.
        timeout_s: how long to wait for an answer.
        tries: requests a class at most.
        concurrency: classes asked about at once.
        prices: of a million tokens in and out.
        progress: told after every class: classes done, classes in all, thousands of tokens.
        log: told what the user should know.

    Raises:
        InputError: bad labels or settings, a refused key, an unknown model, a file that would be lost.
        RunError: no server answers, or the disk refused.
    """
    from prism_fast.prompt_tools.writing.client import Server
    from prism_fast.prompt_tools.writing.write import write_bank as write
    from prism_fast.storage.paths import local_path

    server, path = Server(endpoint, model, api_key_env, timeout_s), local_path(out)
    return write(labels, path, server, tries=tries, concurrency=concurrency, prices=prices, progress=progress, log=log)
