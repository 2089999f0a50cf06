"""The daily verbs: plan, ingest, prepare, tokenizer, tokenize, train, embed, import, run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path  # noqa: TC003 - cyclopts reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from neuromill.cli.options import Choice, Common, Running
from neuromill.cli.output import duration, print_json, print_table, say, size
from neuromill.cli.progress import open_report

if TYPE_CHECKING:
    from neuromill.stages.forecast import StageForecast
    from neuromill.stages.outcomes import Stage, StageResult

COMMON, CHOICE, RUNNING = Common(), Choice(), Running()
StageName = Literal["ingest", "prepare", "fit", "tokenize", "train"]
FAILED_SOME = 3
tokenizer = App(name="tokenizer", help="Fit a tokenizer, look at one, or compare several.")


def register(app: App) -> None:
    """Add the verbs of this file."""
    for verb in (plan, ingest, prepare, tokenize, train, embed, run):
        app.command(verb)
    app.command(import_checkpoint, name="import")
    app.command(tokenizer)


def plan(pipeline: str, /, *, choice: Choice = CHOICE, common: Common = COMMON) -> None:
    """Show what a run would do: recordings, bytes, disk, minutes; what is done, what is left, what failed and why.

    Parameters
    ----------
    pipeline
        A pipeline file, or the name of one that comes with the package.
    """
    show_plan(pipeline, choice, common)


def ingest(pipeline: str, /, *, choice: Choice = CHOICE, running: Running = RUNNING, common: Common = COMMON) -> None:
    """Fetch the member files of the recordings into the raw cache, digests checked."""
    _run_one("ingest", pipeline, choice, running, common)


def prepare(pipeline: str, /, *, choice: Choice = CHOICE, running: Running = RUNNING, common: Common = COMMON) -> None:
    """Filter, resample and publish each recording as one Zarr group."""
    _run_one("prepare", pipeline, choice, running, common)


@tokenizer.command
def fit(pipeline: str, /, *, choice: Choice = CHOICE, running: Running = RUNNING, common: Common = COMMON) -> None:
    """Fit the tokenizer on the train split of what is prepared; refused if a codebook is dead."""
    _run_one("fit", pipeline, choice, running, common)


@tokenizer.command
def show(source: str, /, *, common: Common = COMMON) -> None:
    """Show a tokenizer: settings, digest, fit, codebook usage.

    Parameters
    ----------
    source
        A folder, a hub id, or the identity of one in the home folder (its first digits).
    """
    from neuromill.stages.looking import describe_tokenizer

    described = describe_tokenizer(common.workspace(), source)
    if common.json:
        print_json(described)
        return
    print_table("", ("", "tokenizer"), [(name, value) for name, value in described.items() if name != "levels"])
    levels = described["levels"]
    if levels:
        print_table("", tuple(levels[0]), [tuple(level.values()) for level in levels])


@tokenizer.command
def compare(
    *pipelines: str,
    with_: Annotated[tuple[str, ...], Parameter(name="--with", negative="")] = (),
    n_windows: Annotated[int, Parameter(validator=Number(gte=1))] = 16,
    seconds: float | None = None,
    html: Path | None = None,
    png: Path | None = None,
    choice: Choice = CHOICE,
    common: Common = COMMON,
) -> None:
    """Encode the same held-out windows with several tokenizers: rate, fidelity, codebook use and speed in one table.

    The first pipeline says which prepared signals are encoded; signals are brought to the rate of each tokenizer.

    Parameters
    ----------
    pipelines
        Pipeline files, or names of those that come with the package; each brings its tokenizer along.
    with_
        One more tokenizer, repeatable: mu_law, quantile, a folder, a hub id, or the first digits of a fitted one.
    n_windows
        Windows to encode, evenly spread over the held-out recordings.
    seconds
        Length of a window; by default the longest that one of the tokenizers sees at once, 30 s if none cares.
    html
        Write table and picture as a page.
    png
        Write the picture.
    """
    from neuromill.cli.comparing import compare_and_show

    asked = [choice.pipeline(name) for name in pipelines]
    compare_and_show(common, choice, asked, with_, n_windows=n_windows, seconds=seconds, html=html, png=png)


def tokenize(pipeline: str, /, *, choice: Choice = CHOICE, running: Running = RUNNING, common: Common = COMMON) -> None:
    """Encode what is prepared and publish the codes."""
    _run_one("tokenize", pipeline, choice, running, common)


def train(pipeline: str, /, *, choice: Choice = CHOICE, running: Running = RUNNING, common: Common = COMMON) -> None:
    """Train the model of the pipeline on its tokens, or continue the run that was interrupted."""
    _run_one("train", pipeline, choice, running, common)


def embed(
    pipeline: str,
    /,
    *,
    model: Path | None = None,
    choice: Choice = CHOICE,
    running: Running = RUNNING,
    common: Common = COMMON,
) -> None:
    """Write features [frame, channel, dim] of the trained model as Zarr groups.

    Parameters
    ----------
    pipeline
        A pipeline file, or the name of one that comes with the package.
    model
        Folder of a model to use in place of the one the pipeline trains (see `neuromill import`).
    """
    if model is not None:
        choice = replace(choice, set=(*choice.set, f"pretrained_model={json.dumps(str(model))}"))
    _run_one("embed", pipeline, choice, running, common)


def import_checkpoint(
    checkpoint: Path, /, *, to: Path, heads: int = 8, parity: bool = False, common: Common = COMMON
) -> None:
    """Turn a published checkpoint (MEG-XL `.ckpt`, BioCodec `.pt`) into folders for `pretrained` and `embed --model`.

    Parameters
    ----------
    checkpoint
        The file; nothing in it can run code.
    to
        Folder to write, must not exist: `tokenizer/` and, if the checkpoint holds one, `model/`.
    heads
        Attention heads of the model, both branches together.
    parity
        Let the model behave as published (docs/training.md).
    """
    from neuromill.stages.published import open_published, save_system

    written = save_system(open_published(checkpoint, n_heads=heads, parity=parity), to)
    if common.json:
        print_json({folder.name: str(folder) for folder in written})
        return
    for folder in written:
        say(f"{folder.name}: {folder}")
    say(f'use the tokenizer in a pipeline file: pretrained: {{source: "{written[0]}"}}')


def run(
    pipeline: str,
    /,
    *,
    until: Annotated[StageName | None, Parameter()] = None,
    choice: Choice = CHOICE,
    running: Running = RUNNING,
    common: Common = COMMON,
) -> None:
    """Run all stages: ingest, prepare, fit, tokenize, train. What is done is not done again.

    Parameters
    ----------
    pipeline
        A pipeline file, or the name of one that comes with the package.
    until
        Last stage to run.
    """
    from neuromill.stages.outcomes import Stage
    from neuromill.stages.running import run_pipeline

    if running.dry_run:
        show_plan(pipeline, choice, common)
        return
    workspace = running.apply(common.workspace())
    with open_report() as report:
        results = run_pipeline(
            workspace,
            choice.pipeline(pipeline),
            choice.selection(),
            until=Stage(until) if until else None,
            report=report,
        )
    show_results(results, as_json=common.json)


def _run_one(stage: str, pipeline: str, choice: Choice, running: Running, common: Common) -> None:
    from neuromill.stages.outcomes import Stage
    from neuromill.stages.running import run_stage

    if running.dry_run:
        show_plan(pipeline, choice, common, Stage(stage))
        return
    workspace = running.apply(common.workspace())
    with open_report() as report:
        result = run_stage(workspace, choice.pipeline(pipeline), choice.selection(), Stage(stage), report)
    show_results((result,), as_json=common.json)


def show_results(results: tuple[StageResult, ...], *, as_json: bool) -> None:
    """Show what each stage did; exit code 3 where a recording failed."""
    import sys

    if as_json:
        print_json([result_document(result) for result in results])
    else:
        columns = ("stage", "identity", "found", "already done", "done", "failed", "written", "time", "note")
        print_table("", columns, [stage_row(result) for result in results])
    failed = sum(result.failed for result in results)
    if failed and not as_json:
        say(f"{failed} failures: `neuromill status` lists them, `neuromill explain RECORDING` says why")
    if failed:
        sys.exit(FAILED_SOME)


def stage_row(result: StageResult) -> tuple[object, ...]:
    """One line of the table of stages."""
    counts = (result.found, result.already_done, result.done, result.failed)
    return (result.stage.value, result.identity, *counts, size(result.bytes_out), duration(result.seconds), result.note)


def result_document(result: StageResult) -> dict[str, Any]:
    """JSON values of one stage result."""
    return {
        "stage": result.stage.value,
        "identity": result.identity,
        "found": result.found,
        "already_done": result.already_done,
        "done": result.done,
        "failed": result.failed,
        "seconds": round(result.seconds, 3),
        "bytes_out": result.bytes_out,
        "note": result.note,
    }


def show_plan(pipeline: str, choice: Choice, common: Common, only: Stage | None = None) -> None:
    from neuromill.stages.forecast import forecast
    from neuromill.stages.running import PIPELINE_STAGES

    stages = PIPELINE_STAGES if only is None else (only,)
    forecasts = forecast(common.workspace(), choice.pipeline(pipeline), choice.selection(), stages)
    if common.json:
        print_json([f.as_dict() for f in forecasts])
        return
    rows = [_forecast_row(f) for f in forecasts]
    print_table("", ("stage", "found", "done", "failed", "to do", "reads", "writes", "time", "note"), rows)


def _forecast_row(forecast: StageForecast) -> tuple[object, ...]:
    reads = size(forecast.bytes_in) if forecast.bytes_in else ""
    writes = "" if forecast.bytes_out is None else f"~{size(forecast.bytes_out)}"
    seconds = "" if forecast.seconds is None else f"~{duration(forecast.seconds)}"
    counts = (forecast.found, forecast.done, forecast.failed, forecast.todo)
    return (forecast.stage.value, *counts, reads, writes, seconds, forecast.note)
