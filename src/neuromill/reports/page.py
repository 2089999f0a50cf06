"""One HTML page: sections with a sentence that says what to look for, pictures inline, nothing loaded from elsewhere.

Names come from archives and are hostile until shown otherwise: the template escapes everything but the pictures, and
matplotlib escapes the texts inside them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuromill.reports import pictures
from neuromill.reports.contents import SECONDS_IN_HOUR, SECONDS_IN_MINUTE, Level
from neuromill.reports.measures import perplexity
from neuromill.reports.style import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

    from neuromill.reports.contents import (
        CodebookUse,
        RecordingFacts,
        ReportContents,
        Sensors,
        TokenizerFacts,
        Training,
    )

MOST_FAILURES = 20
MOST_DATASETS = 50
MOST_BADS = 20


@dataclass(frozen=True, slots=True)
class Tile:
    """A number at the top of the page."""

    name: str
    value: str
    warn: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """Heading of a table; numbers stand on the right, and our own words are never broken."""

    name: str
    number: bool = False
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table below a picture."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Missing:
    """Why a section is left out, and the command that makes it."""

    what: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the page."""

    key: str
    title: str
    look_for: str = ""
    picture: Markup | None = None
    caption: str = ""
    tables: tuple[Table, ...] = ()
    missing: Missing | None = None


def render(contents: ReportContents) -> str:
    """Render the page; the same contents give the same text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("neuromill.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
        keep_trailing_newline=True,
    )
    sections = (_recordings, _spectra, _sensors, _tokenizer, _codebooks, _example, _training, _identities)
    return environment.get_template("page.html").render(
        c=contents, tiles=_tiles(contents), sections=[make(contents) for make in sections]
    )


def _visible(value: object) -> object:
    """Take control characters out of foreign text: one that turns the writing direction would turn our words, too."""
    from markupsafe import Markup

    return value if isinstance(value, Markup) or not isinstance(value, str) else printable(value)


def duration(seconds: float) -> str:
    """Write a length as people say it: ``12.5 s``, ``3.4 min``, ``27.1 h``."""
    if seconds < SECONDS_IN_MINUTE:
        return f"{seconds:.1f} s"
    if seconds < SECONDS_IN_HOUR:
        return f"{seconds / SECONDS_IN_MINUTE:.1f} min"
    return f"{seconds / SECONDS_IN_HOUR:,.1f} h"


def count_of(number: int, thing: str) -> str:
    """Write ``1 recording``, ``2 recordings``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _tiles(contents: ReportContents) -> list[Tile]:
    failed = len({failure.recording for failure in contents.failures})
    tiles = [
        Tile("recordings", f"{len(contents.recordings):,}"),
        Tile("length", _length(contents.recordings)),
        Tile("failed recordings", f"{failed:,}", warn=failed > 0),
    ]
    if contents.usage is not None:
        tiles.append(Tile("codes", _short(int(contents.usage.counts.sum()))))
    if contents.tokenizer is not None and contents.tokenizer.correlation is not None:
        tiles.append(Tile("reconstruction r", f"{contents.tokenizer.correlation:.3f}"))
    if contents.training is not None:
        run = contents.training
        curve, name = (run.validation, "validation") if run.validation is not None else (run.train, "training")
        tiles.append(Tile(f"{name} accuracy", f"{100 * curve.per_level[-1].mean():.2f} %"))
    return tiles


def _recordings(contents: ReportContents) -> Section:
    return Section(
        "recordings",
        "Recordings and failures",
        "Look for a split that has no recordings, for a dataset that dwarfs the others, and for failures: each "
        "has a code, and a table says what to do about it.",
        _inline(pictures.overview(contents.recordings, contents.stages)),
        tables=(_dataset_table(contents.recordings), *_failure_tables(contents)),
    )


def _dataset_table(recordings: Sequence[RecordingFacts]) -> Table:
    groups: dict[tuple[str, str], list[RecordingFacts]] = {}
    for recording in recordings:
        groups.setdefault((recording.dataset, recording.split), []).append(recording)
    rows = [
        (dataset, split, f"{len(group):,}", _length(group), f"{sum(r.seconds is None for r in group):,}")
        for (dataset, split), group in sorted(groups.items())
    ]
    columns = (
        Column("dataset"), Column("split"), Column("recordings", number=True),
        Column("length", number=True), Column("of unknown length", number=True),
    )  # fmt: skip
    note = f"{len(rows) - MOST_DATASETS} more rows are left out." if len(rows) > MOST_DATASETS else ""
    return Table(columns, tuple(rows[:MOST_DATASETS]), note)


def _failure_tables(contents: ReportContents) -> tuple[Table, ...]:
    failures = contents.failures
    if not failures:
        return ()
    counts = Counter((failure.stage, failure.code) for failure in failures)
    by_code = Table(
        (Column("stage"), Column("failure code"), Column("recordings", number=True)),
        tuple((stage, code, f"{count:,}") for (stage, code), count in sorted(counts.items())),
    )
    more = len(failures) - MOST_FAILURES
    each = Table(
        (Column("recording"), Column("code", whole=True), Column("what happened"), Column("what to do")),
        tuple((f.recording, f.code, f.message, f.next_step) for f in failures[:MOST_FAILURES]),
        f"{more} more failures: `neuromill status --failures` lists them all." if more > 0 else "",
    )
    return by_code, each


def _spectra(contents: ReportContents) -> Section:
    title = "Spectra of the prepared signals"
    if not contents.spectra:
        return _left_out("spectra", title, "Nothing long enough is prepared yet.", contents.command("prepare"))
    items = contents.spectra
    sampled = {s.dataset: s.n_recordings for s in items}
    return Section(
        "spectra",
        title,
        "Look for a smooth fall towards high frequencies; a broad bump near 10 Hz is alpha rhythm. A narrow peak at "
        "the dashed line is mains interference that the filters left; a wide band means that channels differ much.",
        _inline(pictures.spectra(items)),
        "Line: median over good channels; band: 10th to 90th percentile. Welch, 2 s Hann windows, up to 60 s from the "
        f"middle of {'; '.join(count_of(n, 'recording') + f' of {name}' for name, n in sorted(sampled.items()))}.",
    )


def _sensors(contents: ReportContents) -> Section:
    title = "Sensors"
    if not contents.sensors:
        what = "No prepared recording has sensors with known positions."
        return _left_out("sensors", title, what, contents.command("prepare"))
    shown = contents.sensors[: pictures.MOST_MAPS]
    return Section(
        "sensors",
        title,
        "Look for single sensors that stand out from their neighbours (broken, or close to metal), for a crossed-out "
        "region, and for a helmet with holes: then positions are missing.",
        _inline(pictures.sensor_maps(shown)),
        "Seen from above, nose up; one recording of each dataset. Coils at the same place are shown as one; a cross "
        "marks a bad channel.",
        _bad_tables(shown),
    )


def _bad_tables(items: Sequence[Sensors]) -> tuple[Table, ...]:
    rows = [
        (item.recording, name, reason)
        for item in items
        for name, reason in zip(item.names, item.bads, strict=True)
        if reason
    ]
    note = f"{len(rows) - MOST_BADS} more are left out." if len(rows) > MOST_BADS else ""
    columns = (Column("recording"), Column("bad channel"), Column("reason"))
    return (Table(columns, tuple(rows[:MOST_BADS]), note),) if rows else ()


def _tokenizer(contents: ReportContents) -> Section:
    title = "Tokenizer"
    facts = contents.tokenizer
    if facts is None:
        return _left_out("tokenizer", title, "No tokenizer is fitted on these recordings.", contents.command("fit"))
    on = "recordings it was not fitted on" if facts.held_out else "its own training recordings: no split holds any out"
    return Section(
        "tokenizer",
        title,
        "Look for a correlation well above 0 and an error well below that of predicting the mean; else the codes carry "
        f"little of the signal. Measured on {on}.",
        tables=(_quality_table(facts),),
    )


def _quality_table(facts: TokenizerFacts) -> Table:
    rows = [
        ("correlation with the original", _number(facts.correlation, "{:.3f}")),
        ("SI-SDR", _number(facts.si_sdr_db, "{:.1f} dB")),
        ("squared error, normalised", _number(facts.mse, "{:.4f}")),
        ("squared error of predicting the mean", _number(facts.baseline_mse, "{:.4f}")),
        ("codes per frame", f"{facts.n_quantizers}, each one of {facts.codebook_size}"),
        ("rate per channel", f"{facts.bits_per_second:,.0f} bit/s"),
    ]
    return Table((Column("measure"), Column("value", number=True)), tuple(rows))


def _codebooks(contents: ReportContents) -> Section:
    title = "Codebooks"
    facts, usage = contents.tokenizer, contents.usage
    if usage is None and (facts is None or not facts.levels):
        return _left_out("codebooks", title, "No codes are written yet.", contents.command("tokenize"))
    caption = ""
    if usage is not None:
        stores = count_of(usage.n_recordings, "recording")
        caption = f"Token stores: {int(usage.counts[0].sum()):,} frames of good channels, {stores}."
    return Section(
        "codebooks",
        title,
        "Look for levels near 1: a codebook that uses one code says nothing. Points near the dashed line use all codes "
        "alike; a level below is dead or was never needed.",
        _inline(pictures.codebooks(facts, usage)),
        caption,
        (_level_table(contents),),
    )


def _level_table(contents: ReportContents) -> Table:
    """One row per level: perplexity in both places, the rest from the stores, or from the gate before there are any."""
    fitted = contents.tokenizer.levels if contents.tokenizer is not None else ()
    stored = _stored_levels(contents.usage) if contents.usage is not None else ()
    rows = tuple(
        (
            str(level),
            f"{fitted[level].perplexity:.1f}" if fitted else "-",
            f"{stored[level].perplexity:.1f}" if stored else "-",
            f"{one.used_share:.1%}",
            f"{one.dominant_share:.1%}",
        )
        for level, one in enumerate(stored or fitted)
    )
    place = "stores" if stored else "gate"
    names = ("level", "perplexity, gate", "perplexity, stores", f"codes used, {place}", f"commonest code, {place}")
    return Table(tuple(Column(name, number=True) for name in names), rows)


def _stored_levels(usage: CodebookUse) -> tuple[Level, ...]:
    used, dominant = (usage.counts > 0).mean(axis=1), usage.shares.max(axis=1)
    return tuple(Level(*row) for row in zip(perplexity(usage.shares), used, dominant, strict=True))


def _example(contents: ReportContents) -> Section:
    title = "Original and reconstruction"
    item = contents.example
    if item is None:
        stage = "fit" if contents.tokenizer is None else "prepare"
        what = (
            "There is no tokenizer to reconstruct with."
            if stage == "fit"
            else "No prepared recording has a good channel."
        )
        return _left_out("example", title, what, contents.command(stage))
    seconds = item.original.shape[1] / item.sfreq
    seen = " (no prepared recording is held out)" if item.split == "train" else ""
    return Section(
        "example",
        title,
        "Look for slow waves and bursts that both lines share. A flat reconstruction means that the tokenizer has not "
        "learned; what only the original has is lost to every model trained on these codes.",
        _inline(pictures.traces(item)),
        f"{seconds:.1f} s of a recording of the {item.split} split{seen}, encoded and decoded; r is their correlation.",
    )


def _training(contents: ReportContents) -> Section:
    title = "Training"
    run = contents.training
    if run is None:
        return _left_out("training", title, "No model is trained on these codes.", contents.command("train"))
    state = "finished" if run.finished else "not finished"
    held_out = "diamonds: held-out recordings" if run.validation is not None else "no recording is held out"
    return Section(
        "training",
        title,
        "Look for a loss that falls below chance and for validation that follows it; where validation turns up, the "
        "model learns its recordings by heart. A level counts as learned when its accuracy is above the share of its "
        "commonest code: naming that one every time is free.",
        _inline(pictures.training(run)),
        f"Run {run.identity}, {state} at step {run.train.steps[-1]:,}. Dashed: chance among {run.codebook_size} codes; "
        f"{held_out}.",
        (_accuracy_table(run, contents.usage),),
    )


def _accuracy_table(run: Training, usage: CodebookUse | None) -> Table:
    """Last accuracy of each level beside what two ways of guessing reach."""
    curve, name = (run.validation, "validation") if run.validation is not None else (run.train, "training")
    stored = _stored_levels(usage) if usage is not None else ()
    rows = tuple(
        (
            str(level),
            f"{accuracy:.2%}",
            f"{stored[level].dominant_share:.2%}" if stored else "-",
            f"{1 / run.codebook_size:.2%}",
        )
        for level, accuracy in enumerate(curve.per_level[-1])
    )
    names = ("level", f"{name} accuracy", "commonest code, stores", "chance")
    return Table(tuple(Column(name, number=True) for name in names), rows)


def _identities(contents: ReportContents) -> Section:
    title = "What this page is about"
    rows = tuple((name, value) for name, value in contents.identities.items())
    table = Table((Column("what"), Column("identity")), rows)
    look_for = "Compare with the folders of your stores: the same identity is the same bytes."
    return Section("identities", title, look_for, tables=(table,))


def _left_out(key: str, title: str, what: str, command: str) -> Section:
    return Section(key, title, missing=Missing(what, command))


def _inline(picture: str) -> Markup:
    from markupsafe import Markup

    return Markup(picture)  # noqa: S704  # drawn here; matplotlib escapes the texts in it


def _length(recordings: Sequence[RecordingFacts]) -> str:
    known = [recording.seconds for recording in recordings if recording.seconds is not None]
    return duration(sum(known)) if known else "unknown"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _short(count: int) -> str:
    for size, letter in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if count >= size:
            return f"{count / size:.1f}{letter}"
    return str(count)
