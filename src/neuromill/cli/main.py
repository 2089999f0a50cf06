"""The ``neuromill`` command."""

from __future__ import annotations

import logging
import os
import sys
from importlib.metadata import entry_points

from cyclopts import App

from neuromill import __version__
from neuromill.cli import catalog, demo, look, shards, work
from neuromill.records import NeuroMillError

# Libraries that would ask a server of theirs about versions or usage are told not to.
QUIET = {"NO_ET": "1", "DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "MNE_LOGGING_LEVEL": "ERROR"}
INTERRUPTED = 130
USAGE = 2

app = App(
    name="neuromill",
    help="Turn public brain recordings into token shards a model can be trained on.",
    version=__version__,
    help_flags=["--help", "-h"],
)
demo.register(app)
catalog.register(app)
work.register(app)
shards.register(app)
look.register(app)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors made on purpose end in one line and their exit code, never in a traceback."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.basicConfig(
        level=os.environ.get("NEUROMILL_LOG", "WARNING").upper(), format="%(levelname)s %(name)s %(message)s"
    )
    tokens = sys.argv[1:] if arguments is None else arguments
    if tokens[:1] == ["flows"]:
        _load_plugins()
    else:
        _list_plugins()
    try:
        app(tokens)
    except NeuroMillError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted; run the same command again and it goes on where it stopped", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(text: str, code: int) -> None:
    sys.stderr.write(f"neuromill: {text}\n")
    sys.exit(code)


def _load_plugins() -> None:
    """Add the verbs that other packages bring (``flows``); only when one is asked for, Prefect takes 2 s to import."""
    for entry in entry_points(group="neuromill.cli"):
        app.command(entry.load(), name=entry.name)


def _list_plugins() -> None:
    """Name those verbs in the help without importing them."""
    for entry in entry_points(group="neuromill.cli"):
        app.command(App(name=entry.name, help="Schedule and run the stages with Prefect: serve, run, setup."))


if __name__ == "__main__":
    main()
