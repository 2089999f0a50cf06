"""``neuromill demo``: the whole road on synthetic archives, offline."""

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

    from neuromill.stages.demonstration import Demonstration, Road
    from neuromill.stages.settings import Settings

COMMON, OVERRIDES, RUNNING = Common(), Overrides(), Running()
HOME = Path("neuromill-demo")
REAL_THING = {
    "meg": ("neuromill plan meg-xl --where \"subject = '01' and run = '1'\"", "needs the network"),
    "spikes": ("neuromill plan ndt3", "needs the network"),
    "eeg": ("neuromill plan codebrain", "TUEG is given by agreement: says where to ask and where to put it"),
}
"""What to try after the demo of a road, and what that needs."""


def register(app: App) -> None:
    """Add the verb of this file."""
    app.command(demo)


def demo(*roads: str, overrides: Overrides = OVERRIDES, running: Running = RUNNING, common: Common = COMMON) -> None:
    """Write small synthetic archives, run every stage on them, show what came out. Offline; minutes.

    One road alone is `neuromill demo eeg`. Everything goes below ./neuromill-demo (or --home); delete the folder to
    start over.

    Parameters
    ----------
    roads
        Which roads to walk, of meg, spikes and eeg; all of them by default.
    """
    from neuromill.records import ConfigError
    from neuromill.stages.demonstration import roads as known_roads

    begin = time.perf_counter()
    known = known_roads()
    chosen = [_road(known, name) for name in roads] or list(known.values())
    if overrides.set and len(chosen) > 1:
        raise ConfigError("--set is about one pipeline", where="demo", next_step="name one road, e.g. `demo meg`")
    home = (common.home or HOME).absolute()
    if running.dry_run:
        for road in chosen:
            say(f"would write {road.plan()} to {home} and run every stage of {road.pipeline} on it")
        return
    settings = running.apply(replace(common, home=home).workspace()).settings
    shown = [_walk(road, settings, overrides, quiet=common.json) for road in chosen]
    if common.json:
        print_json({one.road: _document(one) for one in shown})
    else:
        _next_steps(shown, home, time.perf_counter() - begin)
    for one in shown:
        one.check()


def _road(known: dict[str, Road], name: str) -> Road:
    from neuromill.records import ConfigError

    if name not in known:
        raise ConfigError(f"no road {name!r}", where="demo", next_step=f"one of: {', '.join(known)}")
    return known[name]


def _walk(road: Road, settings: Settings, overrides: Overrides, *, quiet: bool) -> Demonstration:
    from neuromill.stages.demonstration import demonstrate

    begin = time.perf_counter()
    if not quiet:
        say(f"\n{road.name}: {road.plan()}")
    with road.archive(settings) as workspace, open_report() as report:
        written = time.perf_counter() - begin
        shown = demonstrate(road, workspace, overrides.pipeline(road.pipeline), report)
    if not quiet:
        _print(shown, written)
    return shown


def _print(shown: Demonstration, written: float) -> None:
    from neuromill.cli.work import stage_row

    rows = [("archive", "", shown.recordings, "", "", "", size(shown.bytes_raw), duration(written), "")]
    columns = ("stage", "identity", "found", "already done", "done", "failed", "written", "time", "note")
    print_table("", columns, [*rows, *(stage_row(result) for result in shown.results)])
    per_hour = 1 / shown.hours
    lines = [
        ("recordings", f"{shown.recordings} ({shown.hours:.2f} h)"),
        ("bytes raw", size(shown.bytes_raw)),
        ("bytes prepared", f"{size(shown.bytes_prepared)} ({size(shown.bytes_prepared * per_hour)} per hour)"),
        ("bytes tokens", f"{size(shown.bytes_tokens)} ({size(shown.bytes_tokens * per_hour)} per hour)"),
    ]
    print_table("", (f"what came out of {shown.road}", ""), [*lines, *shown.measured.lines])


def _next_steps(shown: list[Demonstration], home: Path, seconds: float) -> None:
    say(f"\nAll of it took {duration(seconds)}. The stores are in")
    for one in shown:
        say("\n".join(f"  {store}" for store in one.stores))
    say("Pictures of all of it, for a browser:")
    for one in shown:
        say(f"  {one.report}")
    group = next(iter(sorted(shown[0].stores[1].glob("*.zarr"))))
    say("\nWhat to type next:")
    say(f"  neuromill shards ls --home {home}")
    say(f"  neuromill shards inspect {group}")
    say(f"  neuromill catalog query \"subject = '01'\" --home {home}")
    say(f"  neuromill demo {' '.join(one.road for one in shown)} --home {home}   # again: nothing is left to do")
    for one in shown:
        command, needs = REAL_THING[one.road]
        say(f"  {command}   # {one.road}, the real thing; {needs}")


def _document(shown: Demonstration) -> dict[str, object]:
    from neuromill.cli.work import result_document

    names = ("recordings", "hours", "bytes_raw", "bytes_prepared", "bytes_tokens")
    document: dict[str, object] = {name: getattr(shown, name) for name in names}
    return document | {
        **shown.measured.facts,
        "stages": [result_document(result) for result in shown.results],
        "stores": [str(store) for store in shown.stores],
        "report": str(shown.report),
    }
