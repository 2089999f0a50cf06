"""The parts of a report that are about spikes: collected from stores, ledger, metrics and the trained model."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.reports.spike_contents import (
    Activity,
    Decoded,
    Note,
    R2Scores,
    Rates,
    SpikeContents,
    SpikeCurve,
    SpikeRecordingFacts,
    SpikeTraining,
    Stretch,
    TokenNumbers,
)
from neuromill.stages.report_groups import SPLITS_BY_HONESTY, by_dataset, spread
from neuromill.stages.sections import ndt3_training
from neuromill.stages.spike_training import spans_of
from neuromill.training.task import TEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neuromill.catalog.work import WorkRow
    from neuromill.records import RecordingId, UnitTable
    from neuromill.reports.contents import RecordingFacts
    from neuromill.stages.choosing import Chosen
    from neuromill.stages.report_groups import Published
    from neuromill.stages.work import WorkContext
    from neuromill.stages.workspace import Workspace
    from neuromill.training.spike_source import Span

RASTER_SECONDS = 10.0
RASTER_UNITS = 36
DECODED_SECONDS = 20.0

Spans = dict["RecordingId", "tuple[Span, ...]"]


def collect_spikes(
    workspace: Workspace,
    chosen: Chosen,
    context: WorkContext,
    prepared: Sequence[Published],
    tokenized: Sequence[Published],
    tokenize_rows: Iterable[WorkRow],
) -> SpikeContents:
    """Collect what a page shows of prepared counts, tokens and an NDT3 run; what is not made yet stays empty.

    Parameters
    ----------
    prepared, tokenized
        Groups of both kinds that are in place.
    tokenize_rows
        What the ledger says of the finished work of ``tokenize``: which chunks were left out, and why.
    """
    spans = _spans(chosen, prepared, tokenized)
    run = _run_folder(workspace, chosen, context)
    return SpikeContents(
        recordings=tuple(_recording(one, spans[one.recording.id]) for one in prepared),
        rates=tuple(_rates(prepared)),
        activity=_activity(spans, prepared),
        tokens=tuple(_tokens(tokenized, tokenize_rows)),
        training=_training(run),
        decoded=_decoded(context, run, spans, prepared, tokenized),
        notes=tuple(_notes(prepared)),
    )


def with_parts(facts: RecordingFacts, stretches: Iterable[Stretch]) -> RecordingFacts:
    """Say how the time of a recording is shared between splits, where blocks of it are held out; guards are in none."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for stretch in stretches:
        seconds[stretch.split] += stretch.stop - stretch.start
    return replace(facts, parts=tuple(seconds.items())) if len(seconds) > 1 else facts


def _spans(chosen: Chosen, prepared: Sequence[Published], tokenized: Sequence[Published]) -> Spans:
    """Splits of each recording as training has them: over its prepared bins, else those up to the last chunk's end."""
    n_bins = {one.recording: int(np.sum(_chunks(one)[-1])) for one in tokenized}
    n_bins |= {one.recording: one.group.n_rows for one in prepared}
    widths = {one.recording: float(one.group.attributes["bin_seconds"]) for one in (*prepared, *tokenized)}
    return {recording.id: spans_of(chosen, recording, n, widths[recording]) for recording, n in n_bins.items()}


def _chunks(one: Published) -> NDArray[np.int64]:
    """First bin and number of bins of each chunk: int64 [chunk, 2]."""
    columns = [one.reader.read(one.name, name) for name in ("chunk_start_bins", "chunk_n_bins")]
    return np.stack(columns, axis=1).astype(np.int64)


def _units(one: Published) -> UnitTable:
    from neuromill.store.attributes import unit_table_of

    return unit_table_of(one.group.attributes)


def _recording(one: Published, spans: Sequence[Span]) -> SpikeRecordingFacts:
    about, units = one.group.attributes, _units(one)
    width = float(about["bin_seconds"])
    segment = one.reader.read(one.name, "segment")
    counting: Mapping[str, int] = about["facts"].get("counting", {})
    success = one.reader.read(one.name, "trial_success") if "trial_success" in one.group.arrays else None
    return SpikeRecordingFacts(
        name=str(one.recording.id),
        dataset=one.recording.id.dataset,
        n_units=len(units),
        masked=Counter(bad for bad in units.bads if bad),
        arrays=Counter(units.arrays),
        seconds=one.group.n_rows * width,
        observed_share=float((segment >= 0).mean()),
        covariates=tuple(about["covariate_names"]),
        n_trials=None if success is None else len(success),
        n_successes=None if success is None else int(success.sum()),
        n_spikes=int(about["n_spikes"]),
        n_outside=int(counting.get("n_before", 0)) + int(counting.get("n_after", 0)),
        n_saturated=int(counting.get("n_saturated", 0)),
        stretches=tuple(Stretch(span.split, span.start * width, span.stop * width) for span in spans),
    )


def _notes(prepared: Iterable[Published]) -> Iterator[Note]:
    for one in prepared:
        facts: Mapping[str, Any] = one.group.attributes["facts"].get("spikes", {})
        yield from (Note(str(one.recording.id), str(text)) for text in facts.get("notes", ()))


def _rates(prepared: Sequence[Published]) -> Iterator[Rates]:
    for dataset, groups in by_dataset(prepared).items():
        hertz: defaultdict[str, list[float]] = defaultdict(list)
        seen: Counter[str] = Counter()
        for one in groups:
            units, measured = _units(one), one.reader.read(one.name, "unit_mean_rate")
            known = [i for i in units.good if np.isfinite(measured[i])]
            for i in known:
                hertz[units.arrays[i]].append(float(measured[i]))
            seen.update({units.arrays[i] for i in known})
        for array, values in sorted(hertz.items()):
            yield Rates(dataset, array, np.sort(np.asarray(values, np.float64)), seen[array])


@dataclass(frozen=True, slots=True)
class _Window:
    """Bins of a recording to look at."""

    one: Published
    split: str
    start: int
    stop: int


def _activity(spans: Spans, prepared: Sequence[Published]) -> Activity | None:
    window = _window(spans, prepared)
    if window is None:
        return None
    one, about, units = window.one, window.one.group.attributes, _units(window.one)
    by_array = sorted(units.good, key=lambda i: (units.arrays[i], i))
    picks = spread(by_array, RASTER_UNITS)
    counts = one.reader.read(one.name, "counts", window.start, window.stop)
    n_times, names = window.stop - window.start, tuple(about["covariate_names"])
    values = np.empty((n_times, 0), np.float32)
    if names:
        raw, valid = (one.reader.read(one.name, a, window.start, window.stop) for a in ("covariate", "covariate_valid"))
        values = np.where(valid, raw, np.float32(np.nan))
    return Activity(
        recording=str(one.recording.id),
        split=window.split,
        start_seconds=float(about["start_seconds"]) + window.start * float(about["bin_seconds"]),
        bin_seconds=float(about["bin_seconds"]),
        units=tuple(units.names[i] for i in picks),
        arrays=tuple(units.arrays[i] for i in picks),
        counts=np.ascontiguousarray(counts[:, picks].T),
        n_units=len(units.good),
        covariates=names,
        covariate_units=tuple(about["covariate_units"]),
        values=np.ascontiguousarray(values.T),
    )


def _window(spans: Spans, prepared: Sequence[Published]) -> _Window | None:
    """Choose some seconds of uninterrupted observation, of a held-out span where there is one."""
    candidates = [(one, span) for one in prepared for span in spans[one.recording.id] if _units(one).good]
    if not candidates:
        return None

    def rank(item: tuple[Published, Span]) -> tuple[int, bool, bool, str]:
        one, span = item
        short = (span.stop - span.start) * float(one.group.attributes["bin_seconds"]) < RASTER_SECONDS
        blind = not one.group.attributes["covariate_names"]
        return _honesty(span.split), short, blind, str(one.recording.id)

    one, span = min(candidates, key=rank)
    start, stop = _longest_run(one.reader.read(one.name, "segment", span.start, span.stop) >= 0)
    wanted = min(stop - start, round(RASTER_SECONDS / float(one.group.attributes["bin_seconds"])))
    first = span.start + start + (stop - start - wanted) // 2
    return _Window(one, span.split, first, first + wanted) if wanted else None


def _honesty(split: str) -> int:
    return SPLITS_BY_HONESTY.index(split) if split in SPLITS_BY_HONESTY else len(SPLITS_BY_HONESTY)


def _longest_run(inside: NDArray[np.bool_]) -> tuple[int, int]:
    """First and last + 1 of the longest run of True; the first of several."""
    edges = np.flatnonzero(np.diff(inside.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
    if not len(edges):
        return 0, 0
    start, stop = edges[np.argmax(edges[:, 1] - edges[:, 0])]
    return int(start), int(stop)


def _tokens(tokenized: Sequence[Published], rows: Iterable[WorkRow]) -> Iterator[TokenNumbers]:
    noted = {row.key.recording_id: row.facts["left_out"] for row in rows if "left_out" in row.facts}
    for dataset, groups in by_dataset(tokenized).items():
        kinds: Counter[str] = Counter()
        left_out: Counter[str] = Counter()
        for one in groups:
            kinds.update(one.group.attributes["n_tokens_of_kind"])
            left_out.update(noted.get(one.recording.id, {}))
        about = [one.group.attributes for one in groups]
        yield TokenNumbers(
            dataset=dataset,
            n_recordings=len(groups),
            n_chunks=sum(int(each["n_chunks"]) for each in about),
            seconds=sum(int(each["n_times"]) * float(each["bin_seconds"]) for each in about),
            by_kind=dict(kinds),
            left_out=dict(left_out) if any(one.recording.id in noted for one in groups) else None,
        )


def _run_folder(workspace: Workspace, chosen: Chosen, context: WorkContext) -> Path:
    from neuromill.stages.training import model_folder

    return model_folder(workspace, chosen, context).parent


def _training(run: Path) -> SpikeTraining | None:
    """Metrics of the run on these tokens, also of one that is not finished."""
    from neuromill.models.files import is_complete
    from neuromill.stages.training import MODEL
    from neuromill.training.metrics import MetricsFile

    rows = MetricsFile(run / "metrics.jsonl").rows()
    kinds = ("train", "validation", "baseline", TEST, "model")
    of_kind = {kind: [row for row in rows if row["kind"] == kind] for kind in kinds}
    train = _curve(of_kind["train"])
    if train is None:
        return None
    best = of_kind["model"][-1]["weights_of_step"] if of_kind["model"] else None
    validation = [row for row in of_kind["validation"] if best in (None, row["step"])]
    return SpikeTraining(
        identity=run.name,
        finished=is_complete(run / MODEL),
        train=train,
        validation=_curve(of_kind["validation"]),
        model=_scores("model", validation[-1]) if validation else None,
        baselines=tuple(_scores(row["name"], row) for row in of_kind["baseline"] if row["split"] != TEST),
        test=_scores("model", of_kind[TEST][-1]) if of_kind[TEST] else None,
        test_baselines=tuple(_scores(row["name"], row) for row in of_kind["baseline"] if row["split"] == TEST),
        best_step=best,
    )


def _curve(rows: Sequence[dict[str, Any]]) -> SpikeCurve | None:
    if not rows:
        return None
    return SpikeCurve(
        steps=np.array([row["step"] for row in rows], np.int64),
        spike_loss=np.array([row["spike_loss"] for row in rows], np.float64),
        covariate_loss=np.array([row["covariate_loss"] for row in rows], np.float64),
        r2=np.array([np.nan if row["r2"] is None else row["r2"] for row in rows], np.float64),
    )


def _scores(name: str, row: Mapping[str, Any]) -> R2Scores:
    calibrated = tuple(row.get("calibrated", ()))
    return R2Scores(name, row["r2"], row["r2_per_covariate"], row["r2_per_recording"], calibrated)


def _decoded(
    context: WorkContext, run: Path, spans: Spans, prepared: Sequence[Published], tokenized: Sequence[Published]
) -> Decoded | None:
    """Decode some seconds of a held-out span with the trained model, chunk by chunk."""
    from neuromill.models.files import is_complete
    from neuromill.stages.training import MODEL

    if not is_complete(run / MODEL):
        return None
    found = _chunk_run(_honest_spans(context, spans), tokenized)
    if found is None:
        return None
    one, about = found.one, found.one.group.attributes
    start_bin, true, decoded = _decode(run / MODEL, found)
    scale = one.reader.read(one.name, "covariate_scale")[:, None]
    units = {other.recording.id: other.group.attributes["covariate_units"] for other in prepared}
    names = tuple(about["covariate_names"])
    return Decoded(
        recording=str(one.recording.id),
        split=found.split,
        start_seconds=float(about["start_seconds"]) + start_bin * float(about["bin_seconds"]),
        bin_seconds=float(about["bin_seconds"]),
        chunk_seconds=int(about["chunk_bins"]) * float(about["bin_seconds"]),
        covariates=names,
        units=tuple(units.get(one.recording.id, ("",) * len(names))),
        true=true * scale,
        decoded=decoded * scale,
    )


def _honest_spans(context: WorkContext, spans: Spans) -> Spans:
    """Call validation "train" where a run drew its held-out chunks at random: then it has seen parts of every span."""
    if ndt3_training(context.pipeline).split == "stored":
        return spans
    return {
        recording: tuple(span._replace(split="train") if span.split == "validation" else span for span in each)
        for recording, each in spans.items()
    }


def _chunk_run(spans: Spans, tokenized: Sequence[Published]) -> _Window | None:
    """Choose neighbouring chunks (numbers, not bins) that lie wholly within one span and have covariates."""
    candidates = []
    for one in tokenized:
        about, chunks = one.group.attributes, _chunks(one)
        if not about["n_tokens_of_kind"]["covariate"] or not about["covariate_names"]:
            continue
        most = max(1, round(DECODED_SECONDS / (int(about["chunk_bins"]) * float(about["bin_seconds"]))))
        for span in spans[one.recording.id]:
            inside = (chunks[:, 0] >= span.start) & (chunks.sum(axis=1) <= span.stop)
            first, stop = _longest_run(inside)
            if taken := min(stop - first, most):
                first += (stop - first - taken) // 2
                candidates.append(_Window(one, span.split, first, first + taken))
    return min(
        candidates,
        key=lambda found: (_honesty(found.split), found.start - found.stop, str(found.one.recording.id)),
        default=None,
    )


def _decode(model: Path, found: _Window) -> tuple[int, NDArray[np.float32], NDArray[np.float32]]:
    """First bin, true and decoded values of a run of chunks, normalised: float32 [covariate, time]."""
    import torch

    from neuromill.models.files import from_pretrained
    from neuromill.models.ndt3 import Ndt3
    from neuromill.models.ndt3_batch import Chunk, collate
    from neuromill.models.ndt3_decoding import covariate_grid, decode
    from neuromill.store.spike_tokens_reading import read_chunks

    one, n_covariates = found.one, len(found.one.group.attributes["covariate_names"])
    tokens = read_chunks(one.reader, one.name, found.start, found.stop)
    patch_channels = np.asarray(one.reader.read(one.name, "patch_channels"), np.uint8)
    chunks = [Chunk.of(tokens, number, patch_channels) for number in range(tokens.n_chunks)]
    guesses = decode(from_pretrained(model, Ndt3), chunks, chunks_per_pass=1)
    batch = collate(chunks)
    known = torch.where(batch.covariate_valid, batch.covariates, torch.nan)
    start = int(tokens.chunk_start_bins[0])
    n_times = int(tokens.chunk_start_bins[-1] + tokens.chunk_n_bins[-1]) - start
    places = tokens.chunk_start_bins - start
    true, decoded = (
        _joined(grids, places, (n_covariates, n_times)) for grids in (covariate_grid(batch, known), guesses)
    )
    return start, true, decoded


def _joined(
    grids: Sequence[NDArray[np.float32]], places: NDArray[np.int64], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Put the grids [bin, covariate] of chunks at their places; NaN between them."""
    whole = np.full(shape, np.nan, np.float32)
    for grid, place in zip(grids, places.tolist(), strict=True):
        whole[: grid.shape[1], place : place + len(grid)] = grid.T
    return whole
