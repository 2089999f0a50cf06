"""The flows. Each runs one stage of ``neuromill.stages``; ``pipeline`` runs them in order."""

# No postponed annotations here: Prefect reads the types of the parameters to draw the form.
from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from typing import Annotated, ParamSpec

from prefect import Flow, flow
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run
from pydantic import Field

from neuromill.stages.outcomes import Stage, StageResult
from neuromill_flows.parameters import DEFAULT_PIPELINE, Engine, Options, Request, Selection
from neuromill_flows.reporting import run_name, summary_markdown
from neuromill_flows.running import run_stage

PipelineName = Annotated[
    str, Field(description="Pipeline that comes with NeuroMill, or a file on the worker's machine")
]

P = ParamSpec("P")
EVERYTHING = Selection()
ENGINE = Engine()
OPTIONS = Options()


class LastStage(StrEnum):
    """Stage after which the pipeline stops."""

    INGEST = "ingest"
    PREPARE = "prepare"
    FIT = "fit"
    TOKENIZE = "tokenize"
    TRAIN = "train"


def _named(flow_name: str) -> Callable[[], str]:
    def name_run() -> str:
        return run_name(flow_name, flow_run.parameters)

    return name_run


def _request(
    pipeline: PipelineName = DEFAULT_PIPELINE,
    selection: Selection = EVERYTHING,
    engine: Engine = ENGINE,
    options: Options = OPTIONS,
) -> Request:
    return Request(pipeline=pipeline, selection=selection, engine=engine, options=options)


def _stage_flow(name: str, stage: Stage, purpose: str, read: Callable[P, Request]) -> Flow[P, StageResult]:
    """Return the flow of one stage, with the parameters of ``read``."""

    @wraps(read)
    def run(*args: P.args, **kwargs: P.kwargs) -> StageResult:
        return run_stage(stage, read(*args, **kwargs))

    run.__name__ = run.__qualname__ = name
    run.__doc__ = purpose
    return flow(name=name, flow_run_name=_named(name), persist_result=False)(run)


ingest = _stage_flow(
    "ingest",
    Stage.INGEST,
    "Fetch the raw files of the selected recordings into the cache, each digest checked.",
    _request,
)
prepare = _stage_flow(
    "prepare",
    Stage.PREPARE,
    "Filter and resample the recordings that are there; publish one Zarr group each.",
    _request,
)
fit_tokenizer = _stage_flow(
    "fit_tokenizer",
    Stage.FIT,
    "Fit the tokenizer on the train split of the prepared recordings; publish it if no codebook is dead.",
    _request,
)
tokenize = _stage_flow(
    "tokenize",
    Stage.TOKENIZE,
    "Encode the prepared recordings; publish one group of codes each.",
    _request,
)
train = _stage_flow(
    "train",
    Stage.TRAIN,
    "Train the model of the pipeline on the token stores, from its last checkpoint where there is one.",
    _request,
)


STAGE_FLOWS = {
    LastStage.INGEST: ingest,
    LastStage.PREPARE: prepare,
    LastStage.FIT: fit_tokenizer,
    LastStage.TOKENIZE: tokenize,
    LastStage.TRAIN: train,
}


@flow(name="pipeline", flow_run_name=_named("pipeline"), persist_result=False)
def pipeline(
    pipeline: PipelineName = DEFAULT_PIPELINE,
    selection: Selection = EVERYTHING,
    engine: Engine = ENGINE,
    until: LastStage = LastStage.TRAIN,
    options: Options = OPTIONS,
) -> list[StageResult]:
    """Run all stages in order, each as a flow run of its own; stop at the first that fails, or after ``until``."""
    results: list[StageResult] = []
    for stage, stage_flow in STAGE_FLOWS.items():
        results.append(stage_flow(pipeline, selection, engine, options))
        if stage is until:
            break
    create_markdown_artifact(summary_markdown(results), key="pipeline-summary", description="Result of all stages")
    return results


FLOWS = {each.name: each for each in (ingest, prepare, fit_tokenizer, tokenize, train, pipeline)}
