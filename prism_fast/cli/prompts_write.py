"""``prism-fast prompts write``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prism_fast.cli.common import JsonOpt, ProgressBars, echo_json, log
from prism_fast.storage.paths import local_path

if TYPE_CHECKING:
    from prism_fast.labels.vocabulary import VocabularyName
    from prism_fast.prompt_tools.writing.captions import FromCaptions
    from prism_fast.prompt_tools.writing.write import Prices, Written


class Axes(StrEnum):
    """Names of the bundled vocabularies."""

    pictures = "pictures"
    emoji = "emoji"


_NAMES: dict[Axes, VocabularyName] = {Axes.pictures: "pictures", Axes.emoji: "emoji"}


def write(
    labels: Annotated[str, typer.Argument(help="Name of a bundled label space, or a YAML file.")],
    out: Annotated[Path, typer.Option("--out", parser=local_path, help="Write the bank to this YAML file.")],
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", help="An OpenAI-compatible server, as http://localhost:8000/v1.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="The model, as the server calls it.")] = None,
    captions: Annotated[
        Path | None, typer.Option("--from", parser=local_path, help="Take scenes from these captions; no server.")
    ] = None,
    api_key_env: Annotated[str, typer.Option(help="Variable that holds the key, if one is needed.")] = "OPENAI_API_KEY",
    axes: Annotated[Axes, typer.Option(help="Vocabulary that the bank is for.")] = Axes.pictures,
    tries: Annotated[int, typer.Option(min=1, help="Requests a class until its entry is right.")] = 3,
    timeout_s: Annotated[float, typer.Option("--timeout-s", help="Seconds to wait for an answer.")] = 120.0,
    concurrency: Annotated[int, typer.Option(min=1, help="Classes asked about at once.")] = 4,
    price_in: Annotated[float | None, typer.Option(min=0, help="Price of a million tokens that go in.")] = None,
    price_out: Annotated[float | None, typer.Option(min=0, help="Price of a million tokens that come out.")] = None,
    json_output: JsonOpt = False,
) -> None:
    """Write a prompt bank for your classes: asked of a language model (--endpoint, --model), or from captions (--from).

    Started again it asks only for what lacks. Exit code 1 if classes are missing, 2 if what the captions gave is wrong.
    """
    from prism_fast.errors import InputError

    if captions is not None:
        if endpoint is not None or model is not None:
            raise InputError("--from needs no server; give either --from, or --endpoint and --model")
        from prism_fast.prompt_tools.writing.captions import bank_from_captions

        _show_captions(bank_from_captions(labels, captions, out, axes=_NAMES[axes]), json_output)
        return
    if endpoint is None or model is None:
        raise InputError("whom to ask? Give --endpoint and --model, or captions with --from")
    from prism_fast.prompt_tools.writing.client import Server
    from prism_fast.prompt_tools.writing.write import write_bank

    server, prices = Server(endpoint, model, api_key_env, timeout_s), _prices(price_in, price_out)
    with ProgressBars().phase("write") as progress:
        written = write_bank(
            labels, out, server, axes=_NAMES[axes], tries=tries, concurrency=concurrency, prices=prices,
            progress=progress, log=log,
        )  # fmt: skip
    _show(written, json_output)


def _prices(price_in: float | None, price_out: float | None) -> Prices | None:
    from prism_fast.errors import InputError
    from prism_fast.prompt_tools.writing.write import Prices

    if price_in is None and price_out is None:
        return None
    if price_in is None or price_out is None:
        raise InputError("a cost needs both prices; give --price-in and --price-out")
    return Prices(price_in, price_out)


def _show(written: Written, json_output: bool) -> None:
    """What was done; an error when classes are missing."""
    from prism_fast.errors import RunError

    if json_output:
        echo_json(_document(written))
    else:
        for one in written.missing:
            typer.echo(f"{one.name}: {one.problem}")
        cost = "" if written.cost is None else f", cost {written.cost:.4g}"
        typer.echo(
            f"{written.written} of {written.classes} classes ({written.cached} from before), {written.asked} asked, "
            f"{written.retries} retries, {written.tokens_in} tokens in, {written.tokens_out} out{cost}"
        )
    if written.missing:
        raise RunError(
            f"{len(written.missing)} of {written.classes} classes are missing, so {written.out} is not written; "
            f"{written.written} are kept in {written.answers}, the same command asks for the others again"
        )
    if not json_output:
        typer.echo(f"bank: {written.out}")


def _document(written: Written) -> dict[str, Any]:
    from dataclasses import asdict

    missing = [{"class": one.name, "problem": one.problem} for one in written.missing]
    return {**asdict(written), "missing": missing}


def _show_captions(found: FromCaptions, json_output: bool) -> None:
    """What was found; an error when the linter complains."""
    from dataclasses import asdict

    from prism_fast.errors import ConfigError

    if json_output:
        echo_json(asdict(found))
    else:
        for complaint in found.complaints:
            typer.echo(f"{complaint.key}: {complaint.problem}")
        if found.bare:
            typer.echo(f"no caption gives a scene of: {', '.join(found.bare)}")
        typer.echo(
            f"{found.classes} classes, {found.scenes} scenes and {found.variants} variants from {found.captions} "
            f"captions, {found.unused} of them unused"
        )
        typer.echo(f"bank: {found.out}")
    if found.complaints:
        raise ConfigError(
            f"the prompt bank {found.out} has {len(found.complaints)} problems; correct it there, or give more captions"
        )
