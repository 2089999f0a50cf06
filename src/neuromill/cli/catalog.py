"""``neuromill catalog``: cards, recording indexes, SQL."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from cyclopts import App

from neuromill.cli.options import Common
from neuromill.cli.output import plain, print_json, print_table, say, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuromill.catalog.cards import Card
    from neuromill.stages.refreshing import Refreshed

catalog = App(name="catalog", help="Datasets and recordings: refresh, list, show, query.")
COMMON = Common()
SHOWN_PROBLEMS = 10


def register(app: App) -> None:
    """Add the verbs of this file."""
    app.command(catalog)


@catalog.command
def refresh(*datasets: str, common: Common = COMMON) -> None:
    """List datasets in their archives and write their recording indexes; fetches nothing but sidecars.

    An archive that cannot be reached does not keep the others from being listed; the exit code is 3 then.

    Parameters
    ----------
    datasets
        Card ids; without any, every real dataset whose archive is open and supported.
    """
    from neuromill.records import RecordingError
    from neuromill.sources.opening import ARCHIVES
    from neuromill.stages.refreshing import refresh as refresh_dataset

    workspace = common.workspace()
    open_cards = (c for c in workspace.cards() if c.archive in ARCHIVES and c.access.value == "open")
    names = datasets or tuple(card.id for card in open_cards if not card.synthetic)
    results, errors = [], []
    for name in names:
        try:
            results.append(refresh_dataset(workspace, workspace.dataset(name)))
        except RecordingError as error:
            errors.append((name, error))
    if results or common.json:
        _show_refreshed(results, as_json=common.json)
    for name, why in errors:
        sys.stderr.write(plain(f"neuromill: {name}: {why}") + "\n")
    if errors:
        sys.exit(RecordingError.exit_code)


def _show_refreshed(results: Sequence[Refreshed], *, as_json: bool) -> None:
    if as_json:
        print_json([_refreshed(result) for result in results])
        return
    rows = [
        (str(r.dataset_version), len(r.recordings), size(r.size), len(r.left_out), len(r.problems) + len(r.skipped))
        for r in results
    ]
    print_table("", ("dataset", "recordings", "bytes", "left out", "problems"), rows)
    for result in results:
        _tell_problems(result)


@catalog.command(name="list")
def list_cards(*, common: Common = COMMON) -> None:
    """List the dataset cards."""
    workspace = common.workspace()
    cards = [(card, workspace.index_path(card.dataset_version).is_file()) for card in workspace.cards()]
    if common.json:
        print_json([card.model_dump(mode="json") | {"indexed": indexed} for card, indexed in cards])
        return
    rows = [
        (c.id, c.version, c.modality, c.archive, c.access.value, c.licence, "yes" if indexed else "no", c.title)
        for c, indexed in cards
    ]
    print_table("", ("id", "version", "modality", "archive", "access", "licence", "indexed", "title"), rows)


@catalog.command
def show(dataset: str, *, common: Common = COMMON) -> None:
    """Show one card, and how its index differs from what the card expects.

    Parameters
    ----------
    dataset
        Card id.
    """
    from neuromill.catalog.index import read_index
    from neuromill.catalog.splits import check_expected

    workspace = common.workspace()
    card = workspace.dataset(dataset).card
    path = workspace.index_path(card.dataset_version)
    recordings = read_index(path) if path.is_file() else ()
    differences = check_expected(recordings, card) if recordings else ()
    if common.json:
        found = [{"fact": d.fact, "expected": d.expected, "found": d.found} for d in differences]
        print_json(card.model_dump(mode="json") | {"indexed_recordings": len(recordings), "differences": found})
        return
    print_table("", ("", card.id), _card_rows(card))
    if not recordings:
        say(f"not indexed yet: neuromill catalog refresh {card.id}")
        return
    by_split = {name: sum(card.split_of(r) == name for r in recordings) for name in ("train", "validation", "test")}
    say(f"index: {len(recordings)} recordings; " + ", ".join(f"{n} {name}" for name, n in by_split.items()))
    for difference in differences:
        say(f"differs from the card: {difference.fact} expected {difference.expected:g}, found {difference.found:g}")


@catalog.command
def query(sql: str, *, common: Common = COMMON) -> None:
    """Ask the recording indexes: a condition, or a whole SELECT over the table recordings.

    Parameters
    ----------
    sql
        "subject = '01' AND duration_seconds > 300", or "SELECT dataset, count(*) FROM recordings GROUP BY 1".
    """
    from neuromill.catalog.index import read_table
    from neuromill.catalog.query import query as run_query
    from neuromill.records import ConfigError

    workspace = common.workspace()
    paths = sorted((workspace.home / "catalog").glob("*.parquet"))
    if not paths:
        raise ConfigError("nothing is indexed", where=str(workspace.home), next_step="`neuromill catalog refresh`")
    statement = sql if sql.lstrip().lower().startswith(("select", "with")) else f"{_COLUMNS} WHERE {sql}"
    result = run_query([read_table(path) for path in paths], statement)
    if common.json:
        print_json(result.as_dicts())
        return
    print_table("", result.columns, result.rows)
    say(f"{len(result.rows)} rows")


_COLUMNS = (
    "SELECT dataset, version, recording, subject, session, task, run, datatype, format, "
    "n_channels, sfreq, duration_seconds, size, split FROM recordings"
)


def _refreshed(result: Refreshed) -> dict[str, Any]:
    return {
        "dataset": str(result.dataset_version),
        "index": str(result.index),
        "revision": result.revision,
        "recordings": len(result.recordings),
        "bytes": result.size,
        "left_out": [{"path": left.path, "reason": left.reason} for left in result.left_out],
        "problems": [
            {"path": p.path, "code": p.code.value, "message": p.message, "recording": p.recording}
            for p in result.problems
        ],
        "skipped": [{"path": s.path, "code": s.code.value, "reason": s.reason} for s in result.skipped],
        "differences": [{"fact": d.fact, "expected": d.expected, "found": d.found} for d in result.differences],
    }


def _tell_problems(result: Refreshed) -> None:
    lines = [f"{p.path}: {p.code.value}: {p.message}" for p in result.problems]
    lines += [f"{s.path}: {s.code.value}: {s.reason}" for s in result.skipped]
    lines += [f"card expects {d.fact} {d.expected:g}, found {d.found:g}" for d in result.differences]
    for line in lines[:SHOWN_PROBLEMS]:
        say(f"{result.dataset_version} {line}")
    if len(lines) > SHOWN_PROBLEMS:
        say(f"{result.dataset_version} ... and {len(lines) - SHOWN_PROBLEMS} more (--json lists them)")


def _card_rows(card: Card) -> list[tuple[str, object]]:
    expected = card.expected
    shown = ("subjects", "recordings", "hours", "n_channels", "sfreq", "classes")
    facts = {name: getattr(expected, name) for name in shown}
    told = [
        f"{name} {fact.value:g}" + ("" if fact.verified else " (unverified)") for name, fact in facts.items() if fact
    ]
    names = ("title", "archive", "version", "modality", "device", "line_freq", "licence", "citation", "notes")
    rows: list[tuple[str, object]] = [(name, getattr(card, name)) for name in names]
    rows += [("access", card.access.value)]
    rows += [(name, value) for name in ("url", "agreement", "folder", "no_reader") if (value := getattr(card, name))]
    held_out = {name: dict(getattr(card.splits, name)) for name in ("validation", "test")}
    return [*rows, ("expected", ", ".join(told)), ("held out", str(held_out))]
