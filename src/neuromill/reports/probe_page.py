"""The section on probes: what can be read from the features of a model, beside random weights and chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuromill.reports.parts import Column, Section, Table, count_of, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuromill.reports.contents import Probed, ReportContents

MOST_PROBES = 20
MEASURES = {"balanced_accuracy": "balanced accuracy", "kappa": "kappa", "auroc": "AUROC", "accuracy": "accuracy"}


def probes(contents: ReportContents) -> Section:
    """Make the section; to be left out where nothing was probed."""
    shown = contents.probes[-MOST_PROBES:]
    return Section(
        "probes",
        "Probes",
        "Look for a balanced accuracy above chance and above that of random weights: the rest the network reads from "
        "the signal without having learned anything. Few subjects make all of them uncertain.",
        tables=(_scores(shown), _tasks(shown, len(contents.probes) - len(shown))),
    )


def _scores(items: Sequence[Probed]) -> Table:
    rows: list[tuple[str, ...]] = []
    for one in items:
        for name, scores in one.scores.items():
            rows.append((one.task, name, *(number(scores.get(measure), "{:.3f}") for measure in MEASURES)))
        rows.append((one.task, "chance", f"{one.chance:.3f}", "0.000", "0.500", "-"))
    columns = (Column("task"), Column("read from"), *(Column(name, number=True) for name in MEASURES.values()))
    return Table(columns, tuple(rows))


def _tasks(items: Sequence[Probed], n_more: int) -> Table:
    rows = tuple(
        (
            one.task,
            one.mode,
            ", ".join(f"{name} {count:,}" for name, count in one.classes.items()),
            f"{one.n_subjects:,}",
            "held out by the card" if one.split == "card" else f"{count_of(one.n_folds, 'fold')} over subjects",
            f"{one.tested:,}",
            one.model,
            "; ".join(one.notes),
        )
        for one in items
    )
    columns = (
        Column("task"), Column("probe"), Column("windows of each class"), Column("subjects", number=True),
        Column("tested on"), Column("windows tested", number=True), Column("model"), Column("to know"),
    )  # fmt: skip
    return Table(columns, rows, f"{count_of(n_more, 'older probe')} left out." if n_more > 0 else "")
