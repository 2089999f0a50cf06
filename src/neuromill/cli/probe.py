"""``neuromill probe``: how well a labelled task can be read from a trained EEGSSM."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - cyclopts reads the annotations
from typing import TYPE_CHECKING

from neuromill.cli.options import Choice, Common
from neuromill.cli.output import print_json, print_table, say
from neuromill.cli.progress import open_report

if TYPE_CHECKING:
    from cyclopts import App

    from neuromill.stages.probing import ProbeResult

COMMON, CHOICE = Common(), Choice()


def register(app: App) -> None:
    """Add the verb of this file."""
    app.command(probe)


def probe(pipeline: str, /, *, task: Path, model: str = "", choice: Choice = CHOICE, common: Common = COMMON) -> None:
    """Learn a labelled task from the features of the model, and score it on other subjects.

    Parameters
    ----------
    pipeline
        A pipeline file, or the name of one that comes with the package; its recordings must be prepared.
    task
        YAML file of the task: labels, windows, linear or finetune (docs/training.md).
    model
        Folder or Hub id of a model in place of the one the pipeline trains.
    """
    from neuromill.stages.probe_examples import load_probe
    from neuromill.stages.probing import run_probe

    config = load_probe(task)
    if model:
        config = config.model_copy(update={"model": model})
    with open_report() as report:
        result = run_probe(common.workspace(), choice.pipeline(pipeline), choice.selection(), config, report)
    if common.json:
        print_json(result.as_dict())
        return
    _show(result)


def _show(result: ProbeResult) -> None:
    rows: list[tuple[object, ...]] = [
        (name, *(f"{value:.3f}" for value in scores.row().values())) for name, scores in result.scores.items()
    ]
    rows.append(("chance", f"{result.chance:.3f}", "0.000", "0.500", ""))
    print_table("", (result.name, "balanced accuracy", "kappa", "AUROC", "accuracy"), rows)
    classes = ", ".join(f"{name} {count}" for name, count in result.counts.items())
    folds = "held out by the card" if result.split == "card" else f"{result.n_folds} folds over subjects"
    say(f"{result.mode}; {classes}; {result.n_subjects} subjects, {folds}; {result.tested} windows tested")
    for reason, count in result.left_out.items():
        say(f"left out: {count} windows {reason}")
    for note in result.notes:
        say(note)
