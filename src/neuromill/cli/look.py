"""Looking at work: status, explain, retry, report, doctor."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from neuromill.cli.options import Choice, Common, Flag
from neuromill.cli.output import duration, print_json, print_table, say

if TYPE_CHECKING:
    from neuromill.catalog.work import HistoryEvent, RunRow, WorkRow

COMMON, CHOICE = Common(), Choice()
NOT_WELL = 1


def register(app: App) -> None:
    """Add the verbs of this file."""
    for verb in (status, explain, retry, report, doctor):
        app.command(verb)


def status(*, failures: Annotated[bool, Flag] = False, common: Common = COMMON) -> None:
    """Show how far every stage of every dataset is, found = done + failed + waiting, and each fit, training and probe.

    Parameters
    ----------
    failures
        List each failed recording with its code.
    """
    from neuromill.catalog.work import WorkState
    from neuromill.stages.looking import require_home, stage_counts

    workspace = require_home(common.workspace())
    counts = stage_counts(workspace)
    failed, runs = workspace.ledger.rows(states=[WorkState.FAILED]), workspace.ledger.runs()
    if common.json:
        print_json({
            "stages": [_counts(c) for c in counts],
            "runs": [_run(row) for row in runs],
            "failures": [_failure(row) for row in failed],
        })  # fmt: skip
        return
    rows = [
        (str(c.dataset_version), c.stage, c.identity, c.counts.found, c.counts.done, c.counts.failed, c.counts.waiting,
         ", ".join(f"{code.value} {n}" for code, n in c.counts.by_code.items()))
        for c in counts
    ]  # fmt: skip
    columns = ("dataset", "stage", "identity", "found", "done", "failed", "waiting", "why")
    print_table("", columns, rows)
    if runs:
        say("")
        print_table("", ("run", "identity", "started", "took", "ended", "came to"), [_run_row(row) for row in runs])
    if failures:
        print_table("", ("recording", "stage", "code", "message"), [
            (str(r.key.recording_id), r.key.stage, r.code.value if r.code else "", r.message) for r in failed
        ])  # fmt: skip


def explain(recording: str, /, *, common: Common = COMMON) -> None:
    """Tell everything that happened to a recording, and what to do next.

    Parameters
    ----------
    recording
        Name of a recording, or dataset@version/name.
    """
    from neuromill.stages.looking import find_recordings, notes_of, require_home

    workspace = require_home(common.workspace())
    ids = find_recordings(workspace, recording)
    histories = {str(name): workspace.ledger.history(name) for name in ids}
    if common.json:
        print_json({name: [_event(event) for event in events] for name, events in histories.items()})
        return
    for name, events in histories.items():
        print_table(name, ("when", "stage", "identity", "what", "code", "message"), [_event_row(e) for e in events])
        for stage, note in notes_of(workspace, name):
            say(f"noted at {stage}: {note}")
        for event in {event.key: event for event in events}.values():  # the last word on each stage and identity
            if event.code is not None:
                say(
                    f"next: {event.next_step}"
                    if event.next_step
                    else f"{event.key.stage} ended with {event.code.value}"
                )
                say(f"about this code: docs/failures/{event.code.value}.md")


def retry(
    *recordings: str,
    code: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    everything: Annotated[bool, Flag] = False,
    dry_run: Annotated[bool, Flag] = False,
    common: Common = COMMON,
) -> None:
    """Send failed work back to waiting; the next run tries it again. Without choice: the failures that may pass.

    Parameters
    ----------
    recordings
        Only these.
    code
        Only failures with this code, repeatable.
    everything
        Also failures that are final as long as input and pipeline stay as they are.
    dry_run
        Count and change nothing.
    """
    from neuromill.stages.looking import find_recordings, parse_codes, require_home

    workspace = require_home(common.workspace())
    ids = [found for name in recordings for found in find_recordings(workspace, name)] or None
    codes = parse_codes(code) or None
    if dry_run:
        from neuromill.stages.looking import count_retries

        number = count_retries(workspace, recordings=ids, codes=codes, everything=everything)
    else:
        number = workspace.ledger.retry(codes=codes, recordings=ids, everything=everything)
    if common.json:
        print_json({"retried": number, "dry_run": dry_run})
    else:
        say(f"{number} failures {'would go' if dry_run else 'went'} back to waiting")


def report(
    pipeline: str, /, *, to: Path = Path("report.html"), choice: Choice = CHOICE, common: Common = COMMON
) -> None:
    """Write one HTML page with pictures: recordings, failures, signals or spikes, tokens, training, what is decoded.

    Parameters
    ----------
    pipeline
        A pipeline file, or the name of one that comes with the package.
    to
        File to write, report.html by default.
    """
    from neuromill.stages.looking import require_home
    from neuromill.stages.reporting import write_report

    written = write_report(require_home(common.workspace()), choice.pipeline(pipeline), choice.selection(), to)
    if common.json:
        print_json({"report": str(written)})
    else:
        say(str(written))


def doctor(*, network: Annotated[bool, Flag] = False, common: Common = COMMON) -> None:
    """Check versions, disk, inodes, ledger, programs and, if asked, the archives; exit code 1 where something is wrong.

    Parameters
    ----------
    network
        Also ask the archives for one small listing.
    """
    from neuromill.stages.health import check_health

    findings = check_health(common.workspace(), network=network)
    if common.json:
        print_json([{"check": f.check, "ok": f.ok, "found": f.found, "next": f.next_step} for f in findings])
    else:
        rows = [("ok" if f.ok else "PROBLEM", f.check, f.found, "" if f.ok else f.next_step) for f in findings]
        print_table("", ("", "check", "found", "next"), rows)
    if not all(finding.ok for finding in findings):
        sys.exit(NOT_WELL)


def _counts(row: Any) -> dict[str, Any]:
    counts = row.counts
    return {
        "dataset": str(row.dataset_version),
        "stage": row.stage,
        "identity": row.identity,
        "found": counts.found,
        "done": counts.done,
        "failed": counts.failed,
        "waiting": counts.waiting,
        "by_code": {code.value: n for code, n in counts.by_code.items()},
    }


def _run(row: RunRow) -> dict[str, Any]:
    return {
        "stage": row.stage,
        "identity": row.identity,
        "started": _time(row.started_at),
        "ended": None if row.ended_at is None else _time(row.ended_at),
        "seconds": row.seconds,
        "facts": dict(row.facts),
    }


def _run_row(row: RunRow) -> tuple[object, ...]:
    from neuromill.stages.looking import came_to

    took = "" if row.seconds is None else duration(row.seconds)
    ended = "not ended" if row.ended_at is None else _time(row.ended_at)
    return (row.stage, row.identity, _time(row.started_at), took, ended, came_to(row))


def _failure(row: WorkRow) -> dict[str, Any]:
    return {
        "recording": str(row.key.recording_id),
        "stage": row.key.stage,
        "identity": row.key.identity,
        "code": row.code.value if row.code else None,
        "message": row.message,
        "next": row.next_step,
        "attempts": row.attempts,
    }


def _event(event: HistoryEvent) -> dict[str, Any]:
    return {
        "at": _time(event.at),
        "stage": event.key.stage,
        "identity": event.key.identity,
        "what": event.happening.value,
        "code": event.code.value if event.code else None,
        "message": event.message,
        "next": event.next_step,
        "attempt": event.attempt,
    }


def _event_row(event: HistoryEvent) -> tuple[object, ...]:
    code = event.code.value if event.code else ""
    return (_time(event.at), event.key.stage, event.key.identity, event.happening.value, code, event.message)


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
