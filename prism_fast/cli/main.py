"""The command line: parses, calls, prints. Heavy imports happen inside the commands."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import NoReturn

import typer

from prism_fast.cli.bench import bench
from prism_fast.cli.build_engines import build_engines
from prism_fast.cli.common import failure
from prism_fast.cli.compress import compress
from prism_fast.cli.configs import configs
from prism_fast.cli.demo import demo
from prism_fast.cli.distill import distill
from prism_fast.cli.doctor import doctor
from prism_fast.cli.engines import app as engines
from prism_fast.cli.evaluate import evaluate
from prism_fast.cli.export import export
from prism_fast.cli.export_student import export_student
from prism_fast.cli.extend import extend
from prism_fast.cli.gpu_check import gpu_check
from prism_fast.cli.kernels import kernels
from prism_fast.cli.merge import merge
from prism_fast.cli.minis import app as minis
from prism_fast.cli.plan import plan
from prism_fast.cli.prompts import app as prompts
from prism_fast.cli.repair import repair
from prism_fast.cli.report import report
from prism_fast.cli.seeds import seeds
from prism_fast.cli.select import select
from prism_fast.cli.stats import stats
from prism_fast.cli.study import study
from prism_fast.cli.synthesize import synthesize
from prism_fast.cli.tune import tune
from prism_fast.cli.verify import verify
from prism_fast.cli.views import views
from prism_fast.cli.watch import watch
from prism_fast.errors import PrismError, StoppedError

app = typer.Typer(
    name="prism-fast",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Distil a classifier without its data: energy-guided synthesis, then a student.",
)
for _command in (demo, build_engines, configs, synthesize, verify, distill, evaluate, report, seeds, study, doctor):
    app.command()(_command)
app.command("gpu-check")(gpu_check)
app.command()(kernels)
app.command()(bench)
app.command()(tune)
app.command()(plan)
app.command()(watch)
app.command()(export)
app.command()(compress)
app.command("export-student")(export_student)
app.command()(extend)
app.command()(repair)
app.command()(stats)
app.command()(merge)
app.command()(select)
app.command()(views)
app.add_typer(minis, name="minis")
app.add_typer(engines, name="engines")
app.add_typer(prompts, name="prompts")


@app.callback()
def _options(debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error.")) -> None:
    """Options of every command."""
    failure.traceback = debug


def main() -> None:
    """Entry point: an expected error becomes one line and its exit code."""
    failure.traceback = failure.json = False
    _let_every_letter_through()
    try:
        app()
    except SystemExit:
        if lost := _lost_output():
            _say_lost(lost)
        raise
    except KeyboardInterrupt:
        _say("interrupted; what is finished is kept, the same command goes on")
        sys.exit(130)
    except StoppedError as stopped:
        _say(str(stopped))
        sys.exit(stopped.exit_code)
    except PrismError as error:
        if failure.traceback:
            raise
        _say(f"error: {' '.join(str(error).split())}")  # libraries' texts may span lines
        sys.exit(error.exit_code)
    except OSError:
        if lost := _lost_output("\n"):  # what was refused once is gone from Python's buffer: ask again
            _say_lost(lost)
        raise


def _let_every_letter_through() -> None:
    """A terminal or pipe of another encoding, as the C locale's ASCII, shows escapes where it lacks a letter."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _lost_output(text: str = "") -> OSError | None:
    """Why standard output refuses ``text`` and what it holds; dropped then, or Python would complain at its end."""
    try:
        if sys.stdout is not None:
            sys.stdout.write(text)
            sys.stdout.flush()
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return error
    return None


def _say_lost(error: OSError) -> NoReturn:
    """A reader that has gone, as ``head`` does, is no news."""
    if error.errno != errno.EPIPE:
        _say(f"error: standard output cannot be written: {error.strerror or error}; make room or send it elsewhere")
    sys.exit(1)


def _say(line: str) -> None:
    """The last line on standard error, in JSON where the lines before it were."""
    if not failure.json:
        typer.echo(line, err=True)
        return
    import logging

    from prism_fast.workers.json_log import json_log

    with json_log():
        logging.getLogger("prism_fast").error(line)
