"""Sections and tiles of the page of a spike pipeline."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from neuromill.reports import spike_pictures
from neuromill.reports.parts import (
    Column,
    Section,
    Table,
    Tile,
    count_of,
    duration,
    inline,
    left_out,
    number,
    short,
    without_dataset,
)
from neuromill.reports.style import label

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from neuromill.reports.contents import ReportContents
    from neuromill.reports.spike_contents import (
        Note,
        R2Scores,
        SpikeContents,
        SpikeRecordingFacts,
        SpikeTraining,
        TokenNumbers,
    )

MOST_RECORDINGS = 40
MOST_NOTES = 20
REASONS = {
    "too_short": "shorter than the pipeline's shortest chunk",
    "no_spikes": "no unit fired",
    "constant_covariates": "no covariate changed",
}


def tiles(spikes: SpikeContents) -> list[Tile]:
    """Numbers at the top of the page."""
    found = []
    if spikes.recordings:
        good = sum(one.n_units - sum(one.masked.values()) for one in spikes.recordings)
        found.append(Tile("good units", f"{good:,}"))
    if spikes.tokens:
        found.append(Tile("tokens", short(sum(one.n_tokens for one in spikes.tokens))))
    if spikes.training is not None and spikes.training.model is not None:
        found.append(Tile("R² held out", number(spikes.training.model.r2, "{:.3f}")))
        found += [
            Tile("R² ridge", number(row.r2, "{:.3f}")) for row in spikes.training.baselines if row.name == "ridge"
        ]
    if spikes.training is not None and spikes.training.test is not None:
        found.append(Tile("R² test", number(spikes.training.test.r2, "{:.3f}")))
    return found


def _spikes(contents: ReportContents) -> SpikeContents:
    if contents.spikes is None:
        raise ValueError("these are not the contents of a spike pipeline")
    return contents.spikes


def _prepared(contents: ReportContents) -> Section:
    title, items = "Prepared recordings", _spikes(contents).recordings
    if not items:
        return left_out("prepared", title, "Nothing is prepared yet.", contents.command("prepare"))
    return Section(
        "prepared",
        title,
        "Look for held-out blocks in every recording, for masked units, for a low share of observed bins (there are "
        "gaps), and for recordings without trials or covariates: nothing can be decoded from those.",
        inline(spike_pictures.splits_over_time(items)),
        "Grey lies between two splits and belongs to none, so that no window of one touches the other.",
        (_recording_table(items), *_dropped_tables(items), *_note_tables(_spikes(contents).notes)),
    )


def _recording_table(items: Sequence[SpikeRecordingFacts]) -> Table:
    columns = (
        Column("recording", whole=True), Column("units", number=True), Column("masked", number=True), Column("arrays"),
        Column("length", number=True), Column("observed", number=True), Column("covariates"),
        Column("trials", number=True), Column("successful", number=True),
    )  # fmt: skip
    names = without_dataset([one.name for one in items])
    rows = tuple(
        (
            label(names[one.name]),
            f"{one.n_units:,}",
            _counted(one.masked) or "0",
            ", ".join(f"{name or 'unnamed'} {count}" for name, count in one.arrays.items()),
            duration(one.seconds),
            f"{one.observed_share:.1%}",
            ", ".join(one.covariates) or "none",
            "-" if one.n_trials is None else f"{one.n_trials:,}",
            "-" if one.n_successes is None else f"{one.n_successes:,}",
        )
        for one in items[:MOST_RECORDINGS]
    )
    return Table(columns, rows, _cut(len(items), MOST_RECORDINGS))


def _dropped_tables(items: Sequence[SpikeRecordingFacts]) -> tuple[Table, ...]:
    """Spikes that are in no bin, where there are any."""
    some = [one for one in items if one.n_outside or one.n_saturated]
    columns = (
        Column("recording"), Column("spikes counted", number=True), Column("outside of the bins", number=True),
        Column("above 255 in a bin", number=True),
    )  # fmt: skip
    names = without_dataset([one.name for one in items])
    rows = tuple(
        (names[one.name], f"{one.n_spikes:,}", f"{one.n_outside:,}", f"{one.n_saturated:,}")
        for one in some[:MOST_RECORDINGS]
    )
    return (Table(columns, rows, _cut(len(some), MOST_RECORDINGS)),) if rows else ()


def _note_tables(notes: Sequence[Note]) -> tuple[Table, ...]:
    """One row per note, however many recordings have it."""
    counts = Counter(note.text for note in notes)
    first = {note.text: note.recording for note in reversed(notes)}
    rows = tuple((text, f"{count:,}", first[text]) for text, count in counts.most_common(MOST_NOTES))
    columns = (Column("what the reader noted"), Column("recordings", number=True), Column("one of them"))
    return (Table(columns, rows, _cut(len(counts), MOST_NOTES)),) if rows else ()


def _rates(contents: ReportContents) -> Section:
    title, items = "Rates", _spikes(contents).rates
    if not items:
        return left_out("rates", title, "No unit with a known rate is prepared yet.", contents.command("prepare"))
    silent = sum(int((one.hertz <= 0).sum()) for one in items)
    return Section(
        "rates",
        title,
        "Look for an array that is shifted against its neighbours (another threshold, or another unit of time), and "
        "for units above some hundred spikes per second, which are noise.",
        inline(spike_pictures.rates(items)),
        "A stroke is a unit (evenly picked where there are many), the bar the middle half, the circle the median; in "
        "brackets the number of good units. "
        + (f"{count_of(silent, 'good unit')} without a spike in observed time left out." if silent else ""),
    )


def _activity(contents: ReportContents) -> Section:
    title, item = "Spikes and behaviour", _spikes(contents).activity
    if item is None:
        return left_out("activity", title, "Nothing is prepared yet.", contents.command("prepare"))
    seconds = item.counts.shape[1] * item.bin_seconds
    cut = len(item.covariates) - spike_pictures.MOST_TRACES
    return Section(
        "activity",
        title,
        "Look for rates that change with the movement. A column of spikes in all units at once is an artefact; a flat "
        "or missing trace means that the covariate is not what it is called.",
        inline(spike_pictures.activity(item)),
        f"{seconds:.1f} s of the {item.split} split, in bins of {1000 * item.bin_seconds:g} ms."
        + (f" {cut} more covariates are not shown." if cut > 0 else ""),
    )


def _tokens(contents: ReportContents) -> Section:
    title, items = "Tokens", _spikes(contents).tokens
    if not items:
        return left_out("tokens", title, "No tokens are written yet.", contents.command("tokenize"))
    return Section(
        "tokens",
        title,
        "Look for a dataset without covariate tokens, which teaches no decoding, and for chunks that were left out: "
        "many without a spike mean gaps that the file does not declare.",
        inline(spike_pictures.tokens(items)),
        tables=(_token_table(items), *_left_out_tables(items)),
    )


def _token_table(items: Sequence[TokenNumbers]) -> Table:
    names = ("recordings", "in chunks", "chunks", *spike_pictures.KINDS, "all tokens")
    rows = tuple(
        (
            one.dataset,
            f"{one.n_recordings:,}",
            duration(one.seconds),
            f"{one.n_chunks:,}",
            *(f"{one.by_kind.get(kind, 0):,}" for kind in spike_pictures.KINDS),
            f"{one.n_tokens:,}",
        )
        for one in items
    )
    return Table((Column("dataset", whole=True), *(Column(name, number=True) for name in names)), rows)


def _left_out_tables(items: Sequence[TokenNumbers]) -> tuple[Table, ...]:
    rows = tuple(
        (one.dataset, REASONS.get(reason, reason), f"{count:,}", f"{count / (one.n_chunks + count):.1%}")
        for one in items
        for reason, count in sorted((one.left_out or {}).items())
        if count
    )
    columns = (
        Column("dataset"), Column("why chunks are left out"), Column("chunks", number=True),
        Column("share", number=True),
    )  # fmt: skip
    return (Table(columns, rows),) if rows else ()


def _training(contents: ReportContents) -> Section:
    title, run = "Training", _spikes(contents).training
    if run is None:
        return left_out("training", title, "No model is trained on these tokens.", contents.command("train"))
    state = "finished" if run.finished else "not finished"
    not_yet = "held-out bins are not decoded yet" if run.baselines else "no bin is held out"
    held_out = "diamonds: held-out bins" if run.validation is not None else not_yet
    calibrated = sum(len(row.calibrated) for row in run.baselines)
    return Section(
        "training",
        title,
        "Look for an R² of the model above that of ridge regression on the same bins; below it the model is not worth "
        "its training. The mean of the training bins has 0 or less.",
        inline(spike_pictures.training(run)),
        f"Run {run.identity}, {state} at step {run.train.steps[-1]:,}; {held_out}; dashed: other decoders of the same "
        "bins. R² is that of all covariates together, weighted by their variance; curves below "
        f"{spike_pictures.LOWEST_R2:g} are cut."
        + (f" Ridge has seen a part of {count_of(calibrated, 'held-out session')}." if calibrated else "")
        + (f" The model is that of step {run.best_step:,}, its best validation." if run.best_step is not None else "")
        + (" The test split was scored once, when the run ended." if run.test is not None else ""),
        tuple(table for table in _score_tables(run) if table.rows),
    )


def _score_tables(run: SpikeTraining) -> Iterator[Table]:
    """What is held out for validation, then the test, each by covariate and by recording."""
    for model, baselines, where in ((run.model, run.baselines, ""), (run.test, run.test_baselines, " test")):
        for what in ("covariate", "recording"):
            yield _scores(model, baselines, what, where)


def _scores(model: R2Scores | None, baselines: Sequence[R2Scores], what: str, where: str) -> Table:
    """R2 of the model and of each baseline, one row per covariate or recording."""
    decoders = [*([("model", model)] if model is not None else []), *((one.name, one) for one in baselines)]

    def of(one: R2Scores) -> Mapping[str, float | None]:
        return one.per_covariate if what == "covariate" else one.per_recording

    names = list(dict.fromkeys(name for _, one in decoders for name in of(one)))
    shown = without_dataset(names)
    rows = [
        (shown[name], *(number(of(one).get(name), "{:.3f}") for _, one in decoders)) for name in names[:MOST_RECORDINGS]
    ]
    if what == "covariate" and rows:
        rows.append(("all", *(number(one.r2, "{:.3f}") for _, one in decoders)))
    columns = (Column(what), *(Column(f"R²{where}, {name}", number=True) for name, _ in decoders))
    return Table(columns, tuple(rows), _cut(len(names), MOST_RECORDINGS))


def _decoded(contents: ReportContents) -> Section:
    title, item, run = "Decoded and true behaviour", _spikes(contents).decoded, _spikes(contents).training
    if item is None:
        if run is None or not run.finished:
            what, command = "There is no trained model to decode with.", contents.command("train")
        else:
            what, command = "No tokenized recording has a covariate in a chunk to decode.", ""
        return left_out("decoded", title, what, command)
    seen = " (no bin is held out)" if item.split == "train" else ""
    return Section(
        "decoded",
        title,
        "Look for movements that both lines share. A decoded line that stays flat has learned the mean; one that lags "
        "uses what came before in place of the spikes.",
        inline(spike_pictures.decoded(item)),
        f"{item.true.shape[1] * item.bin_seconds:.1f} s of the {item.split} split{seen}, in chunks of "
        f"{item.chunk_seconds:g} s. A bin is decoded from the spikes of its chunk up to it, so the first bins of a "
        "chunk rest on few. R² is that of the bins shown; both lines are what the tokens hold, clipped to their scale.",
    )


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))


def _cut(found: int, shown: int) -> str:
    return f"{found - shown} more rows are left out." if found > shown else ""


SECTIONS = (_prepared, _rates, _activity, _tokens, _training, _decoded)
"""What makes each section, in order."""
