"""The report: collect what the stages wrote about a pipeline and a selection, and make one page of it. Reads only."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from neuromill.reports.contents import (
    CodebookUse,
    Curve,
    Example,
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
from neuromill.stages.channels import channel_table, good_channels
from neuromill.stages.choosing import choose
from neuromill.stages.contexts import done_recordings, training_recordings, work_context
from neuromill.stages.identities import fit_identity, prepare_identity
from neuromill.stages.looking import bits_per_second, seconds_of
from neuromill.stages.outcomes import Stage
from neuromill.stages.work import WorkContext

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from neuromill.catalog.work import WorkRow
    from neuromill.records import ChannelTable, DatasetVersion, Recording
    from neuromill.stages.choosing import Chosen
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.selection import Selection
    from neuromill.stages.workspace import Workspace
    from neuromill.store.contents import IndexedRecording
    from neuromill.store.reader import StoreReader

COUNTED = (Stage.INGEST, Stage.PREPARE, Stage.TOKENIZE)
SAMPLED_RECORDINGS = 6
SAMPLED_SECONDS = 60.0
EXAMPLE_SECONDS = 10.0
EXAMPLE_CHANNELS = 4
SPLITS_BY_HONESTY = ("validation", "test", "train")
"""Where an example comes from: what the tokenizer was not fitted on, if there is any."""


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

    text = render(collect(workspace, pipeline, selection))
    path = to / "report.html" if to.is_dir() else to
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    return temporary.replace(path)


def collect(workspace: Workspace, pipeline: Pipeline, selection: Selection) -> ReportContents:
    """Collect everything that a page shows; parts that are not made yet stay empty.

    The page is about all chosen recordings: a ``part`` in the selection does not matter.
    """
    chosen = choose(workspace, pipeline, selection.model_copy(update={"part": None}))
    context = _context(workspace, pipeline, chosen)
    prepared = _published(workspace, chosen, Stage.PREPARE, context)
    works = [_work(workspace, chosen, stage, context) for stage in COUNTED]
    return ReportContents(
        pipeline=pipeline.name,
        title=pipeline.title,
        version=version("neuromill"),
        own_folder=selection.data is not None,
        recordings=tuple(_recording_facts(chosen, prepared)),
        stages=tuple(_progress(chosen, context, works)),
        failures=tuple(_failure(row) for work in works for row in work.failed),
        spectra=tuple(_spectra(prepared)),
        sensors=tuple(_sensors(prepared)),
        tokenizer=_tokenizer_facts(context),
        usage=_usage(_published(workspace, chosen, Stage.TOKENIZE, context)),
        example=_example(chosen, context, prepared),
        training=_training(workspace, chosen, context),
        identities=_identities(chosen, context),
    )


@dataclass(frozen=True, slots=True)
class Published:
    """A group that is in a store, opened."""

    recording: Recording
    reader: StoreReader

    @property
    def name(self) -> str:
        """Name of the group."""
        return self.recording.id.name

    @property
    def group(self) -> IndexedRecording:
        """What the group says of itself."""
        return self.reader.recording(self.name)

    @property
    def channels(self) -> ChannelTable:
        """Its channel table."""
        return channel_table(self.reader, self.name)

    def middle(self, seconds: float) -> tuple[int, int]:
        """Return first and last row + 1 of at most ``seconds`` in the middle."""
        rows = min(self.group.n_rows, round(seconds * self.group.sfreq))
        start = (self.group.n_rows - rows) // 2
        return start, start + rows

    def signal(self, start: int, stop: int) -> NDArray[np.float32]:
        """Signal in SI units: float32 [channel, time]; bad channels may be NaN."""
        return self.reader.read_physical(self.name, start, stop).T


@dataclass(frozen=True, slots=True)
class Work:
    """What the ledger says of the chosen recordings at one stage, with the inputs they have now."""

    done: tuple[WorkRow, ...]
    failed: tuple[WorkRow, ...]


def _context(workspace: Workspace, pipeline: Pipeline, chosen: Chosen) -> WorkContext:
    """Context of ``tokenize`` where a tokenizer is there, else one without."""
    fitted = fit_identity(pipeline, training_recordings(workspace, pipeline, chosen))
    if pipeline.pretrained is None and not workspace.tokenizer_folder(fitted).is_dir():
        return WorkContext(workspace.settings, pipeline, tuple(dataset.origin for dataset in chosen.datasets))
    return work_context(workspace, pipeline, chosen, Stage.TOKENIZE)


def _published(workspace: Workspace, chosen: Chosen, stage: Stage, context: WorkContext) -> tuple[Published, ...]:
    """Groups of the chosen recordings that the ledger calls done and that are still in place."""
    from neuromill.store.layout import MANIFEST_FILE, group_name
    from neuromill.store.reader import StoreReader

    identity = context.identity(stage)
    if not identity:
        return ()
    by_version: defaultdict[DatasetVersion, list[Recording]] = defaultdict(list)
    for recording in done_recordings(workspace, chosen, stage, identity):
        store = workspace.store(recording.id.dataset_version, stage, identity)
        if (store / group_name(recording.id.name) / MANIFEST_FILE).is_file():
            by_version[recording.id.dataset_version].append(recording)
    return tuple(
        Published(recording, reader)
        for dataset_version, recordings in sorted(by_version.items(), key=lambda item: str(item[0]))
        for reader in [
            StoreReader.of_groups(workspace.store(dataset_version, stage, identity), [r.id.name for r in recordings])
        ]
        for recording in recordings
    )


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


def _by_dataset(prepared: Iterable[Published]) -> dict[str, list[Published]]:
    groups: defaultdict[str, list[Published]] = defaultdict(list)
    for one in prepared:
        groups[one.recording.id.dataset].append(one)
    return dict(sorted(groups.items()))


def _spread(items: Sequence[Published], count: int) -> list[Published]:
    """At most ``count``, evenly spread over the list: never only the first subject."""
    places = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[place] for place in places]


@dataclass(frozen=True, slots=True)
class _Kind:
    """Spectra with the same kind go into one line."""

    channel_type: str
    unit: str
    sfreq: float


def _spectra(prepared: Iterable[Published]) -> Iterator[Spectrum]:
    from neuromill.reports.measures import frequencies

    for dataset, groups in _by_dataset(prepared).items():
        sampled = _spread(groups, SAMPLED_RECORDINGS)
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

    for groups in _by_dataset(prepared).values():
        best = max(_spread(groups, SAMPLED_RECORDINGS), key=lambda one: _n_placed(one.channels))
        channels = best.channels
        rms = root_mean_square(best.signal(*best.middle(SAMPLED_SECONDS)))
        for kind, rows in _rows_by_type(channels).items():
            some = channels.pick(rows)
            if _n_placed(some):
                values = np.where([bool(bad) for bad in some.bads], np.nan, rms[rows])
                yield Sensors(best.name, kind, some.units[0], some.names, some.positions, values, some.bads)


def _n_placed(channels: ChannelTable) -> int:
    return int(np.isfinite(channels.positions).all(axis=1).sum())


def _tokenizer_facts(context: WorkContext) -> TokenizerFacts | None:
    from neuromill.tokenizers.files import read_facts

    if not context.tokenizer_source:
        return None
    tokenizer = context.tokenizer()
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
        **{name: quality.get(name) for name in ("correlation", "si_sdr_db", "mse", "baseline_mse")},
    )


def _usage(tokenized: Sequence[Published]) -> CodebookUse | None:
    if not tokenized:
        return None
    counts = [np.asarray(one.reader.read(one.name, "codebook_usage"), np.int64) for one in tokenized]
    return CodebookUse(np.sum(counts, axis=0, dtype=np.int64), len(tokenized))


def _example(chosen: Chosen, context: WorkContext, prepared: Sequence[Published]) -> Example | None:
    """Encode and decode a window of a recording that was held out, if one was."""
    candidates = [one for one in prepared if context.tokenizer_source and good_channels(one.channels)]
    if not candidates:
        return None
    best = min(candidates, key=lambda one: _rank(chosen, one))
    good = good_channels(best.channels)
    picks = [good[i] for i in np.unique(np.linspace(0, len(good) - 1, EXAMPLE_CHANNELS).round().astype(int))]
    start, stop = best.middle(EXAMPLE_SECONDS)
    original, reconstruction = _reconstruct(context, best.signal(start, stop)[picks])
    return Example(
        recording=str(best.recording.id),
        split=chosen.split_of(best.recording),
        sfreq=best.group.sfreq,
        start_seconds=start / best.group.sfreq,
        channels=tuple(best.channels.names[i] for i in picks),
        original=original,
        reconstruction=reconstruction,
    )


def _rank(chosen: Chosen, one: Published) -> tuple[int, bool, int, str]:
    """Held-out ones first, then long enough ones, then many channels, then by name."""
    split = chosen.split_of(one.recording)
    order = SPLITS_BY_HONESTY.index(split) if split in SPLITS_BY_HONESTY else len(SPLITS_BY_HONESTY)
    short = one.group.n_rows < EXAMPLE_SECONDS * one.group.sfreq
    return order, short, -one.group.n_channels, str(one.recording.id)


def _reconstruct(context: WorkContext, signal: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Signal as the tokenizer sees it, and what comes back from its codes: float32 [channel, time]."""
    import torch

    tokenizer = context.tokenizer()
    rows = torch.from_numpy(np.ascontiguousarray(signal))
    with torch.inference_mode():
        seen = tokenizer.normalize(rows)
        back = tokenizer.decode(tokenizer.encode(rows), rows.shape[1])
    return seen.cpu().numpy(), back.cpu().numpy()


def _training(workspace: Workspace, chosen: Chosen, context: WorkContext) -> Training | None:
    """Metrics of the run on these tokens, also of one that is not finished."""
    from neuromill.models.files import is_complete
    from neuromill.stages.training import model_folder
    from neuromill.training.metrics import MetricsFile

    if not context.token_identity:
        return None
    model = model_folder(workspace, chosen, context)
    rows = MetricsFile(model.parent / "metrics.jsonl").rows()
    train, validation = (_curve(rows, kind) for kind in ("train", "validation"))
    if train is None:
        return None
    size = context.tokenizer().codebook_size
    return Training(model.parent.name, is_complete(model), size, train, validation)


def _curve(rows: Iterable[dict[str, Any]], kind: str) -> Curve | None:
    chosen = [row for row in rows if row["kind"] == kind]
    if not chosen:
        return None
    return Curve(
        np.array([row["step"] for row in chosen], np.int64),
        np.array([row["loss"] for row in chosen], np.float64),
        np.array([row["per_level"] for row in chosen], np.float64),
    )


def _identities(chosen: Chosen, context: WorkContext) -> dict[str, str]:
    pipeline = context.pipeline
    found = {f"dataset {dataset.card.id}": str(dataset.card.dataset_version) for dataset in chosen.datasets}
    found["prepared signals"] = prepare_identity(pipeline)
    if pipeline.pretrained is not None:
        found["published tokenizer"] = f"{pipeline.pretrained.source} {pipeline.pretrained.revision}".strip()
    if context.tokenizer_source:
        found["tokenizer (SHA-256)"] = context.tokenizer().digest
        found["codes"] = context.token_identity
    return found
