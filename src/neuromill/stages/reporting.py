"""The report: collect what the stages wrote about a pipeline and a selection, and make one page of it. Reads only."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from neuromill.reports.contents import (
    CodebookUse,
    Curve,
    Failure,
    Level,
    RecordingFacts,
    ReportContents,
    Sensors,
    Spectrum,
    StageProgress,
    TokenizerFacts,
    Training,
)
from neuromill.stages.choosing import choose
from neuromill.stages.contexts import training_recordings, work_context
from neuromill.stages.identities import fit_identity, prepare_identity
from neuromill.stages.looking import bits_per_second, codebook_names, seconds_of
from neuromill.stages.outcomes import Stage
from neuromill.stages.report_examples import example_of, rejection_facts
from neuromill.stages.report_groups import by_dataset, published_groups, spread
from neuromill.stages.report_probes import collect_probes
from neuromill.stages.work import WorkContext
from neuromill.store.usage import codebook_usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from neuromill.catalog.work import WorkRow
    from neuromill.records import ChannelTable
    from neuromill.stages.choosing import Chosen
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.report_groups import Published
    from neuromill.stages.selection import Selection
    from neuromill.stages.workspace import Workspace
    from neuromill.tokenizers.protocol import Tokenizer

COUNTED = (Stage.INGEST, Stage.PREPARE, Stage.TOKENIZE)
SAMPLED_RECORDINGS = 6
SAMPLED_SECONDS = 60.0


def write_report(workspace: Workspace, pipeline: Pipeline, selection: Selection, to: Path) -> Path:
    """Write the page of a pipeline; a page that is there already is replaced whole.

    Parameters
    ----------
    to
        The HTML file, or a folder that gets ``report.html``.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ConfigError
        No recording is chosen, or a condition is no SQL expression.
    """
    from neuromill.reports.page import render
    from neuromill.reports.writing import write_page

    text = render(collect(workspace, pipeline, selection))
    path = to / "report.html" if to.is_dir() else to
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_page(text, path)


def collect(workspace: Workspace, pipeline: Pipeline, selection: Selection) -> ReportContents:
    """Collect everything that a page shows; parts that are not made yet stay empty.

    The page is about all chosen recordings: a ``part`` in the selection does not matter.
    """
    chosen = choose(workspace, pipeline, selection.model_copy(update={"part": None}))
    context = _context(workspace, pipeline, chosen)
    prepared = published_groups(workspace, chosen, Stage.PREPARE, context)
    works = [_work(workspace, chosen, stage, context) for stage in COUNTED]
    contents = ReportContents(
        pipeline=pipeline.name,
        title=pipeline.title,
        version=version("neuromill"),
        own_folder=selection.data is not None,
        recordings=tuple(_recording_facts(chosen, prepared)),
        stages=tuple(_progress(chosen, context, works)),
        failures=tuple(_failure(row) for work in works for row in work.failed),
    )
    if pipeline.prepare.kind == "spikes":
        from neuromill.stages.spike_reporting import collect_spikes, with_parts

        tokenized = published_groups(workspace, chosen, Stage.TOKENIZE, context)
        spikes = collect_spikes(workspace, chosen, context, prepared, tokenized, works[-1].done)
        stretches = {one.name: one.stretches for one in spikes.recordings}
        recordings = tuple(with_parts(one, stretches.get(one.name, ())) for one in contents.recordings)
        return replace(contents, recordings=recordings, spikes=spikes, identities=_identities(chosen, context, None))
    return _with_signals(workspace, chosen, context, prepared, contents)


def _with_signals(
    workspace: Workspace, chosen: Chosen, context: WorkContext, prepared: Sequence[Published], contents: ReportContents
) -> ReportContents:
    """Add what a page of continuous signals and their codes shows."""
    tokenizer, rows = _tokenizer(context), context.pipeline.tokenize.rows_per_forward
    return replace(
        contents,
        spectra=tuple(_spectra(prepared)),
        sensors=tuple(_sensors(prepared)),
        rejections=rejection_facts(prepared),
        tokenizer=None if tokenizer is None else _tokenizer_facts(context, tokenizer),
        usage=_usage(published_groups(workspace, chosen, Stage.TOKENIZE, context)),
        example=None if tokenizer is None else example_of(chosen, tokenizer, rows, prepared),
        training=None if tokenizer is None else _training(workspace, chosen, context, tokenizer.codebook_size),
        probes=collect_probes(workspace, context.pipeline),
        identities=_identities(chosen, context, tokenizer),
    )


@dataclass(frozen=True, slots=True)
class Work:
    """What the ledger says of the chosen recordings at one stage, with the inputs they have now."""

    done: tuple[WorkRow, ...]
    failed: tuple[WorkRow, ...]


def _context(workspace: Workspace, pipeline: Pipeline, chosen: Chosen) -> WorkContext:
    """Context of ``tokenize`` where a tokenizer is there, else one without."""
    if pipeline.tokenizer.kind == "ndt3":  # tokens by rule: there is nothing that may not be there yet
        return work_context(workspace, pipeline, chosen, Stage.TOKENIZE)
    fitted = fit_identity(pipeline, training_recordings(workspace, pipeline, chosen))
    if pipeline.pretrained is None and not workspace.tokenizer_folder(fitted).is_dir():
        return WorkContext(workspace.settings, pipeline, tuple(dataset.origin for dataset in chosen.datasets))
    return work_context(workspace, pipeline, chosen, Stage.TOKENIZE)


def _work(workspace: Workspace, chosen: Chosen, stage: Stage, context: WorkContext) -> Work:
    from neuromill.catalog.work import Scope, WorkState

    identity = context.identity(stage)
    inputs = {recording.id: recording.input_digest for recording in chosen.selected}
    rows = [
        row
        for dataset in chosen.datasets
        for row in workspace.ledger.rows(Scope(dataset.card.dataset_version, stage.value, identity))
        if identity and row.input_digest == inputs.get(row.key.recording_id)
    ]
    return Work(
        tuple(row for row in rows if row.state is WorkState.DONE),
        tuple(row for row in rows if row.state is WorkState.FAILED),
    )


def _progress(chosen: Chosen, context: WorkContext, works: Sequence[Work]) -> Iterator[StageProgress]:
    """Count; what failed at one stage is not waiting for the next."""
    found = len(chosen.selected)
    for stage, work in zip(COUNTED, works, strict=True):
        done, failed = len(work.done), len(work.failed)
        yield StageProgress(stage.value, context.identity(stage), done, failed, max(0, found - done - failed))
        found -= failed


def _failure(row: WorkRow) -> Failure:
    code = row.code.value if row.code is not None else ""
    return Failure(str(row.key.recording_id), row.key.stage, code, row.message, row.next_step)


def _recording_facts(chosen: Chosen, prepared: Iterable[Published]) -> Iterator[RecordingFacts]:
    measured = {
        one.recording.id: seconds_of(one.group.kind, one.group.n_rows, one.group.attributes) for one in prepared
    }
    for recording in chosen.selected:
        seconds = measured.get(recording.id, recording.duration_seconds)
        yield RecordingFacts(str(recording.id), recording.id.dataset, chosen.split_of(recording), seconds)


@dataclass(frozen=True, slots=True)
class _Kind:
    """Spectra with the same kind go into one line."""

    channel_type: str
    unit: str
    sfreq: float


def _spectra(prepared: Iterable[Published]) -> Iterator[Spectrum]:
    from neuromill.reports.measures import frequencies

    for dataset, groups in by_dataset(prepared).items():
        sampled = spread(groups, SAMPLED_RECORDINGS)
        densities: defaultdict[_Kind, list[NDArray[np.float64]]] = defaultdict(list)
        for one in sampled:
            for kind, density in _densities(one):
                densities[kind].append(density)
        stated = [one.group.attributes.get("line_freq") for one in sampled]
        for kind, rows in sorted(densities.items(), key=lambda item: (item[0].channel_type, item[0].sfreq)):
            every = np.concatenate(rows)
            low, middle, high = np.percentile(every, (10, 50, 90), axis=0)
            yield Spectrum(
                dataset=dataset,
                channel_type=kind.channel_type,
                unit=kind.unit,
                freqs=frequencies(kind.sfreq),
                low=low,
                middle=middle,
                high=high,
                n_channels=len(every),
                n_recordings=len(rows),
                line_freq=next((float(line) for line in stated if line), None),
            )


def _densities(one: Published) -> Iterator[tuple[_Kind, NDArray[np.float64]]]:
    from neuromill.reports.measures import amplitude_density

    channels, sfreq = one.channels, one.group.sfreq
    signal = one.signal(*one.middle(SAMPLED_SECONDS))
    for kind, rows in _rows_by_type(channels).items():
        good = [i for i in rows if not channels.bads[i] and np.isfinite(signal[i]).all()]
        density = amplitude_density(signal[good], sfreq)
        if len(density):
            yield _Kind(kind, channels.units[rows[0]], sfreq), density


def _rows_by_type(channels: ChannelTable) -> dict[str, list[int]]:
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for i, kind in enumerate(channels.types):
        rows[kind].append(i)
    return dict(sorted(rows.items()))


def _sensors(prepared: Iterable[Published]) -> Iterator[Sensors]:
    """Sensors of one recording per dataset: the one with the most channels whose place is known."""
    from neuromill.reports.measures import root_mean_square

    for groups in by_dataset(prepared).values():
        best = max(spread(groups, SAMPLED_RECORDINGS), key=lambda one: _n_placed(one.channels))
        channels = best.channels
        rms = root_mean_square(best.signal(*best.middle(SAMPLED_SECONDS)))
        for kind, rows in _rows_by_type(channels).items():
            some = channels.pick(rows)
            if _n_placed(some):
                values = np.where([bool(bad) for bad in some.bads], np.nan, rms[rows])
                yield Sensors(best.name, kind, some.units[0], some.names, some.positions, values, some.bads)


def _n_placed(channels: ChannelTable) -> int:
    return int(np.isfinite(channels.positions).all(axis=1).sum())


def _tokenizer(context: WorkContext) -> Tokenizer | None:
    from neuromill.tokenizers.files import open_tokenizer

    if not context.tokenizer_source:
        return None
    return open_tokenizer(context.tokenizer_source, revision=context.tokenizer_revision or None)


def _tokenizer_facts(context: WorkContext, tokenizer: Tokenizer) -> TokenizerFacts:
    from neuromill.tokenizers.files import read_facts

    facts = read_facts(context.tokenizer_source, revision=context.tokenizer_revision or None)
    quality: dict[str, Any] = facts.get("quality") or {}
    usage: dict[str, Any] = quality.get("usage") or {}
    rows = zip(*(usage.get(name, ()) for name in ("perplexity", "used_share", "dominant_share")), strict=True)
    return TokenizerFacts(
        digest=tokenizer.digest,
        codebook_size=tokenizer.codebook_size,
        n_quantizers=tokenizer.n_quantizers,
        bits_per_second=bits_per_second(tokenizer),
        held_out=bool(facts.get("held_out")),
        levels=tuple(Level(*row) for row in rows),
        codebooks=codebook_names(tokenizer),
        by_rule=tokenizer.n_parameters == 0,
        **{name: quality.get(name) for name in ("correlation", "si_sdr_db", "mse", "baseline_mse")},
    )


def _usage(tokenized: Sequence[Published]) -> CodebookUse | None:
    if not tokenized:
        return None
    counts = [codebook_usage(one.reader, one.name) for one in tokenized]
    return CodebookUse(np.sum(counts, axis=0, dtype=np.int64), len(tokenized))


def _training(workspace: Workspace, chosen: Chosen, context: WorkContext, codebook_size: int) -> Training | None:
    """Metrics of the run on these tokens, also of one that is not finished."""
    from neuromill.models.files import is_complete
    from neuromill.stages.training import model_folder
    from neuromill.training.metrics import MetricsFile

    model = model_folder(workspace, chosen, context)
    rows = MetricsFile(model.parent / "metrics.jsonl").rows()
    train, validation = (_curve(rows, kind) for kind in ("train", "validation"))
    if train is None:
        return None
    return Training(model.parent.name, is_complete(model), codebook_size, train, validation)


def _curve(rows: Iterable[dict[str, Any]], kind: str) -> Curve | None:
    chosen = [row for row in rows if row["kind"] == kind]
    if not chosen:
        return None
    return Curve(
        np.array([row["step"] for row in chosen], np.int64),
        np.array([row["loss"] for row in chosen], np.float64),
        np.array([row.get("per_level", ()) for row in chosen], np.float64),
    )


def _identities(chosen: Chosen, context: WorkContext, tokenizer: Tokenizer | None) -> dict[str, str]:
    pipeline = context.pipeline
    found = {f"dataset {dataset.card.id}": str(dataset.card.dataset_version) for dataset in chosen.datasets}
    of_spikes = pipeline.prepare.kind == "spikes"
    found["prepared counts" if of_spikes else "prepared signals"] = prepare_identity(pipeline)
    if pipeline.pretrained is not None:
        found["published tokenizer"] = f"{pipeline.pretrained.source} {pipeline.pretrained.revision}".strip()
    if tokenizer is not None:
        found["tokenizer (SHA-256)"] = tokenizer.digest
    if context.token_identity:
        found["tokens" if of_spikes else "codes"] = context.token_identity
    return found
