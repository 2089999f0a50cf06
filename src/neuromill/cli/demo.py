"""``neuromill demo``: the whole road on a synthetic snapshot, offline."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from neuromill.cli.options import Common, Overrides, Running
from neuromill.cli.output import duration, print_json, print_table, say, size
from neuromill.cli.progress import open_report

if TYPE_CHECKING:
    from cyclopts import App

    from neuromill.stages.demonstration import Demonstration

COMMON, OVERRIDES, RUNNING = Common(), Overrides(), Running()
HOME = Path("neuromill-demo")
PIPELINE = "demo"


def register(app: App) -> None:
    """Add the verb of this file."""
    app.command(demo)


def demo(*, overrides: Overrides = OVERRIDES, running: Running = RUNNING, common: Common = COMMON) -> None:
    """Write a small synthetic OpenNeuro snapshot, run every stage on it, show what came out. Offline; minutes.

    Everything goes below ./neuromill-demo (or --home); delete the folder to start over.
    """
    from neuromill.cli.work import stage_row
    from neuromill.stages.demonstration import demo_spec, demo_workspace, demonstrate

    begin = time.perf_counter()
    home = (common.home or HOME).absolute()
    if running.dry_run:
        spec = demo_spec()
        number = spec.subjects * spec.runs
        say(
            f"would write a synthetic snapshot of {number} recordings to {home} and run every stage of {PIPELINE} on it"
        )
        return
    if not common.json and not (home / "snapshot").is_dir():
        say(f"writing a synthetic snapshot to {home / 'snapshot'} ...")
    workspace = running.apply(demo_workspace(replace(common, home=home).workspace().settings))
    written = time.perf_counter() - begin
    with open_report() as report:
        shown = demonstrate(workspace, overrides.pipeline(PIPELINE), report)
    if common.json:
        print_json(_document(shown))
    else:
        rows = [("snapshot", "", shown.recordings, "", "", "", size(shown.bytes_raw), duration(written), "")]
        columns = ("stage", "identity", "found", "already done", "done", "failed", "written", "time", "note")
        print_table("", columns, [*rows, *(stage_row(result) for result in shown.results)])
        print_table("", ("what came out", ""), _rows(shown))
        _next_steps(shown, home, time.perf_counter() - begin)
    shown.check()


def _rows(shown: Demonstration) -> list[tuple[str, str]]:
    levels = ", ".join(f"{value:.0f}" for value in shown.perplexity)
    per_hour = 1 / shown.hours
    rows = [
        ("recordings", f"{shown.recordings} ({shown.hours:.2f} h of 306 channels)"),
        ("bytes raw", size(shown.bytes_raw)),
        ("bytes prepared", f"{size(shown.bytes_prepared)} ({size(shown.bytes_prepared * per_hour)} per hour)"),
        ("bytes tokens", f"{size(shown.bytes_tokens)} ({size(shown.bytes_tokens * per_hour)} per hour)"),
        ("codebook perplexity per level", f"{levels} of {shown.codebook_size}"),
        ("reconstruction correlation", f"{shown.correlation:.3f} (predicting the mean: 0)"),
        ("reconstruction SI-SDR", f"{shown.si_sdr_db:.2f} dB"),
        ("reconstruction error", f"{shown.mse:.3f} (predicting the mean: {shown.baseline_mse:.3f})"),
        ("training loss", f"{shown.first_loss:.3f} -> {shown.last_loss:.3f}"),
    ]
    if shown.validation_accuracy is not None:
        guess = 100 * shown.commonest_share
        rows.append(
            (
                "masked-token accuracy, held-out subject",
                f"{100 * shown.validation_accuracy:.2f} % (always the commonest code: {guess:.2f} %)",
            )
        )
    return rows


def _next_steps(shown: Demonstration, home: Path, seconds: float) -> None:
    prepared, tokens = shown.stores
    group = next(iter(sorted(tokens.glob("*.zarr"))))
    say(f"\nAll of it took {duration(seconds)}. The stores are in\n  {prepared}\n  {tokens}")
    say(f"Pictures of all of it, for a browser:\n  {shown.report}\n\nWhat to type next:")
    say(f"  neuromill shards ls --home {home}")
    say(f"  neuromill shards inspect {group}")
    say(f"  neuromill catalog query \"subject = '01'\" --home {home}")
    say(f"  neuromill demo --home {home}            # again: nothing is left to do")
    say("  neuromill plan meg-xl --where \"subject = '01' and run = '1'\"   # the real thing, needs the network")


def _document(shown: Demonstration) -> dict[str, object]:
    from neuromill.cli.work import result_document

    names = (
        "recordings", "hours", "bytes_raw", "bytes_prepared", "bytes_tokens", "codebook_size", "perplexity",
        "correlation", "si_sdr_db", "mse", "baseline_mse", "first_loss", "last_loss", "validation_accuracy",
        "commonest_share",
    )  # fmt: skip
    document: dict[str, object] = {name: getattr(shown, name) for name in names}
    return document | {
        "stages": [result_document(result) for result in shown.results],
        "stores": [str(store) for store in shown.stores],
        "report": str(shown.report),
    }
