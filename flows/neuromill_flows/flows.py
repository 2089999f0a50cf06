"""The flows. Each runs one stage of ``neuromill.stages``; ``pipeline`` runs them in order."""

# No postponed annotations here: Prefect reads the types of the parameters to draw the form.
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

from prefect import flow
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


def _request(pipeline: str, selection: Selection, engine: Engine, options: Options) -> Request:
    return Request(pipeline=pipeline, selection=selection, engine=engine, options=options)


@flow(name="ingest", flow_run_name=_named("ingest"), persist_result=False)
def ingest(
    pipeline: PipelineName = DEFAULT_PIPELINE,
    selection: Selection = EVERYTHING,
    engine: Engine = ENGINE,
    options: Options = OPTIONS,
) -> StageResult:
    """Fetch the raw files of the selected recordings into the cache, each digest checked."""
    return run_stage(Stage.INGEST, _request(pipeline, selection, engine, options))


@flow(name="prepare", flow_run_name=_named("prepare"), persist_result=False)
def prepare(
    pipeline: PipelineName = DEFAULT_PIPELINE,
    selection: Selection = EVERYTHING,
    engine: Engine = ENGINE,
    options: Options = OPTIONS,
) -> StageResult:
    """Filter and resample the recordings that are there; publish one Zarr group each."""
    return run_stage(Stage.PREPARE, _request(pipeline, selection, engine, options))


@flow(name="fit_tokenizer", flow_run_name=_named("fit_tokenizer"), persist_result=False)
def fit_tokenizer(
    pipeline: PipelineName = DEFAULT_PIPELINE,
    selection: Selection = EVERYTHING,
    engine: Engine = ENGINE,
    options: Options = OPTIONS,
) -> StageResult:
    """Fit the tokenizer on the train split of the prepared recordings; publish it if no codebook is dead."""
    return run_stage(Stage.FIT, _request(pipeline, selection, engine, options))


@flow(name="tokenize", flow_run_name=_named("tokenize"), persist_result=False)
def tokenize(
    pipeline: PipelineName = DEFAULT_PIPELINE,
    selection: Selection = EVERYTHING,
    engine: Engine = ENGINE,
    options: Options = OPTIONS,
) -> StageResult:
    """Encode the prepared recordings; publish one group of codes each."""
    return run_stage(Stage.TOKENIZE, _request(pipeline, selection, engine, options))


@flow(name="train", flow_run_name=_named("train"), persist_result=False)
def train(
    pipeline: PipelineName = DEFAULT_PIPELINE,
    selection: Selection = EVERYTHING,
    engine: Engine = ENGINE,
    options: Options = OPTIONS,
) -> StageResult:
    """Train the model of the pipeline on the token stores, from its last checkpoint where there is one."""
    return run_stage(Stage.TRAIN, _request(pipeline, selection, engine, options))


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
