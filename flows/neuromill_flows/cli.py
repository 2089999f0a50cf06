"""``neuromill flows``: set a Prefect server up, serve deployments from a laptop, run a flow here and now."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path  # noqa: TC003 - cyclopts reads the annotations
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App

from neuromill.cli.options import Choice, Common, Flag, Running, parse_part
from neuromill.cli.output import print_json, print_table, say
from neuromill_flows.deployments import EVERY_NIGHT, Job, ready_deployments
from neuromill_flows.environment import environment_lines, names_given, set_defaults
from neuromill_flows.parameters import DEFAULT_PIPELINE, Engine, EngineChoice, Options, Request, Selection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuromill.stages.outcomes import Stage, StageResult

app = App(name="flows", help="Schedule pipelines with Prefect: set a server up, serve deployments, run a flow.")

FlowName = Literal["ingest", "prepare", "fit_tokenizer", "tokenize", "train", "pipeline"]
Last = Literal["ingest", "prepare", "fit", "tokenize", "train"]
Switch = Annotated[bool, Flag]


@app.command
def setup(*, schedule: Switch = False, dry_run: Switch = False, json: Switch = False) -> int:
    """Make the Prefect server fit for NeuroMill: settings, work pool, crash automation, limits, deployments.

    Do it as often as you like: the second time changes nothing.

    Parameters
    ----------
    schedule
        Switch the nightly run of the work pool on (it needs a worker). `flows serve` has a schedule of its own.
    dry_run
        Show what would be done and do nothing.
    json
        Print JSON for programs instead of a table for people.
    """
    set_defaults()
    from neuromill_flows.setup import Change, set_up

    steps = list(set_up(dry_run=dry_run, schedule=schedule, given=names_given()))
    if json:
        print_json([asdict(step) for step in steps])
    else:
        title = "Would be done" if dry_run else "Prefect set-up"
        print_table(title, ("what", "change", "detail"), [(step.what, step.change, step.detail) for step in steps])
    return int(any(step.change is Change.MISSING and step.what.startswith("server") for step in steps))


@app.command
def env() -> None:
    """Print the environment lines that a Prefect server and its workers need, with the reason of each."""
    for line in environment_lines():
        say(line)


@app.command
def serve(
    pipeline: str = DEFAULT_PIPELINE,
    /,
    *,
    data: Path | None = None,
    where: str = "",
    cron: str = EVERY_NIGHT,
    until: Last = "prepare",
    limit: int = 1,
) -> None:
    """Serve the deployments, with their schedules, from this process: a laptop's server, worker and scheduler's end.

    Needs a running server (`prefect server start`). Stop it with Ctrl-C: the schedules are paused.

    Parameters
    ----------
    pipeline
        Pipeline that comes with NeuroMill, or a file.
    data
        A folder of recordings in place of the pipeline's datasets.
    where
        SQL condition over the recording index.
    cron
        When the nightly run starts, in UTC: minute, hour, day of the month, month, day of the week.
    until
        Last stage of the nightly run.
    limit
        Flow runs at a time.
    """
    set_defaults()
    job = Job(pipeline=pipeline, selection=Selection(where=where, data=data), cron=cron, until=until).checked()
    from neuromill_flows import serving

    serving.serve([spec.to_prefect(None) for spec in ready_deployments(job)], limit)


@app.command
def run(
    flow: FlowName,
    pipeline: str = DEFAULT_PIPELINE,
    /,
    *,
    until: Last = "train",
    common: Common = Common(),  # noqa: B008  (frozen)
    choice: Choice = Choice(),  # noqa: B008
    running: Running = Running(),  # noqa: B008
) -> None:
    """Run a flow in this process: under Prefect where a server is set up, else the same stages without it.

    Parameters
    ----------
    flow
        Which flow.
    pipeline
        Pipeline that comes with NeuroMill, or a file.
    until
        Last stage of the flow `pipeline`.
    """
    from neuromill.cli.work import show_plan, show_results

    set_defaults()
    if running.dry_run:
        show_plan(pipeline, choice, common, None if flow == "pipeline" else to_stage(flow))
        return
    results = run_flow(flow, to_request(pipeline, common, choice, running), until)
    show_results(tuple(results), as_json=common.json)


def to_request(pipeline: str, common: Common, choice: Choice, running: Running) -> Request:
    """Make the parameters of a flow run of command-line options and ``NEUROMILL_*`` variables."""
    settings = running.apply(common.workspace()).settings
    engine = settings.engine
    return Request(
        pipeline=pipeline,
        selection=Selection(where=choice.where, data=choice.data, part=parse_part(choice.part)),
        engine=Engine(
            kind=EngineChoice(engine.kind.value),
            workers=engine.workers,
            threads_per_worker=engine.threads_per_worker,
            address=engine.dask_address,
        ),
        options=Options(overrides=choice.set, home=settings.home),
    )


def to_stage(flow: str) -> Stage:
    """Stage of a flow that runs one."""
    from neuromill.stages.outcomes import Stage

    return Stage("fit" if flow == "fit_tokenizer" else flow)


def run_flow(flow: str, request: Request, until: str) -> Sequence[StageResult]:
    """Run a flow here. Without a server Prefect would start one for the run, slowly, and lose its last records."""
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        return _run_with_prefect(flow, request, until)
    from neuromill.cli.progress import open_report
    from neuromill.stages.outcomes import Stage
    from neuromill_flows import work

    with open_report() as report:
        if flow == "pipeline":
            return work.run_all(request, Stage(until), report)
        return [work.run_whole(request, to_stage(flow), report)]


def _run_with_prefect(flow: str, request: Request, until: str) -> Sequence[StageResult]:
    from neuromill_flows.flows import STAGE_FLOWS, LastStage
    from neuromill_flows.flows import pipeline as pipeline_flow

    given = (request.pipeline, request.selection, request.engine)
    if flow == "pipeline":
        return pipeline_flow(*given, LastStage(until), request.options)
    return [STAGE_FLOWS[LastStage(to_stage(flow).value)](*given, request.options)]
