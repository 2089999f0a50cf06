"""The ``neuromill`` command."""

from __future__ import annotations

import io
import logging
import os
import sys
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from cyclopts import App, CycloptsError, Parameter

from neuromill import __version__
from neuromill.cli import catalog, demo, look, probe, shards, work
from neuromill.cli.output import plain

if TYPE_CHECKING:
    from neuromill.records import NeuroMillError

# Libraries that would ask a server of theirs about versions or usage are told not to.
QUIET = {"NO_ET": "1", "DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "MNE_LOGGING_LEVEL": "ERROR"}
# Threads that wait by spinning starve each other where cores are shared: 25 steps of the demo's fit took 19 s with two
# of them on a busy machine, 8 s with two that sleep or with one alone, 6 s with two on an idle one.
PATIENT = {"OMP_WAIT_POLICY": "PASSIVE"}
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
BROKEN = 1
USAGE = 2
INTERRUPTED = 130

app = App(
    name="neuromill",
    help="Turn public brain recordings into token shards a model can be trained on.",
    version=__version__,
    help_flags=["--help", "-h"],
    help_format="plaintext",
    default_parameter=Parameter(show_default=False),  # nearly all are empty; where one is not, the text says so
    exit_on_error=False,
    print_error=False,
    verbose=False,
    suppress_keyboard_interrupt=False,
)
demo.register(app)
catalog.register(app)
work.register(app)
probe.register(app)
shards.register(app)
look.register(app)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors made on purpose end in one line and their exit code, never in a traceback."""
    tokens = sys.argv[1:] if arguments is None else arguments
    _set_up()
    try:
        _name_plugins()
        _run(tokens)
    except SystemExit:
        raise
    except KeyboardInterrupt:
        _fail("interrupted; run the same command again and it goes on where it stopped", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except CycloptsError as error:
        _fail(f"{str(error).rstrip('.')} -> {_help_of(error)}", USAGE)
    except OSError as error:
        logging.getLogger(__name__).debug("the system refused", exc_info=True)
        _fail(f"{error.strerror or error} [{error.filename or 'system'}] -> check the path, rights and space", BROKEN)
    except _made_on_purpose() as error:
        _fail(str(error), error.exit_code)


def _run(tokens: list[str]) -> None:
    try:
        app(tokens)
    finally:
        sys.stdout.flush()  # a pipe that nobody reads any more shows here, not after the last line of this program


def _set_up() -> None:
    for name, value in (QUIET | PATIENT).items():
        os.environ.setdefault(name, value)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name need not be text in the encoding of the output
    level = os.environ.get("NEUROMILL_LOG", "WARNING").upper()
    if level not in LOG_LEVELS:
        _fail(f"no such log level [NEUROMILL_LOG={level}] -> one of {', '.join(LOG_LEVELS)}", USAGE)
    logging.basicConfig(level=level, format="%(levelname)s %(name)s %(message)s")


def _made_on_purpose() -> type[NeuroMillError]:
    """Import the class of our errors once one is on its way: pydantic and numpy behind it take 0.3 s."""
    from neuromill.records import NeuroMillError

    return NeuroMillError


def _help_of(error: CycloptsError) -> str:
    return f"`{' '.join(['neuromill', *(error.command_chain or ())])} --help`"


def _fail(text: str, code: int) -> None:
    sys.stderr.write(plain(f"neuromill: {text}") + "\n")
    sys.exit(code)


@cache
def _name_plugins() -> None:
    """Add the verbs that other packages bring, unimported until one is asked for: Prefect takes 2 s."""
    for entry in entry_points(group="neuromill.cli"):
        app.command(entry.value, name=entry.name, help="Schedule and run the stages with Prefect: setup, serve, run.")


if __name__ == "__main__":
    main()
