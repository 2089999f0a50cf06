"""One HTML page: sections with a sentence that says what to look for, pictures inline, nothing loaded from elsewhere.

Names come from archives and are hostile until shown otherwise: the template escapes everything but the pictures, and
matplotlib escapes the texts inside them.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from neuromill.reports import pictures, probe_page, spike_page
from neuromill.reports.contents import Level, codebook_name
from neuromill.reports.measures import perplexity
from neuromill.reports.parts import (
    Column,
    Section,
    Table,
    Tile,
    count_of,
    inline,
    left_out,
    length,
    number,
    short,
)
from neuromill.reports.style import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from neuromill.reports.contents import (
        CodebookUse,
        RecordingFacts,
        RejectionFacts,
        ReportContents,
        Sensors,
        TokenizerFacts,
        Training,
    )

MOST_FAILURES = 20
MOST_DATASETS = 50
MOST_BADS = 20


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
    return environment.get_template("page.html").render(
        c=contents, tiles=_tiles(contents), sections=[make(contents) for make in _makers(contents)]
    )


def _makers(contents: ReportContents) -> Sequence[Callable[[ReportContents], Section]]:
    """What makes the sections of this page, in order."""
    if contents.spikes is not None:
        return (_recordings, *spike_page.SECTIONS, _identities)
    rejections = (_rejections,) if contents.rejections else ()
    probes = (probe_page.probes,) if contents.probes else ()
    before = (_recordings, _spectra, _sensors, *rejections, _tokenizer, _codebooks, _example)
    return (*before, _training, *probes, _identities)


def _visible(value: object) -> object:
    """Take control characters out of foreign text: one that turns the writing direction would turn our words, too."""
    from markupsafe import Markup

    return value if isinstance(value, Markup) or not isinstance(value, str) else printable(value)


def _tiles(contents: ReportContents) -> list[Tile]:
    failed = len({failure.recording for failure in contents.failures})
    tiles = [
        Tile("recordings", f"{len(contents.recordings):,}"),
        Tile("length", length([recording.seconds for recording in contents.recordings])),
        Tile("failed recordings", f"{failed:,}", warn=failed > 0),
    ]
    if contents.spikes is not None:
        return tiles + spike_page.tiles(contents.spikes)
    if contents.usage is not None:
        tiles.append(Tile("codes", short(int(contents.usage.counts.sum()))))
    if contents.tokenizer is not None and contents.tokenizer.correlation is not None:
        tiles.append(Tile("reconstruction r", f"{contents.tokenizer.correlation:.3f}"))
    if contents.training is not None:
        run = contents.training
        curve, name = (run.validation, "validation") if run.validation is not None else (run.train, "training")
        if curve.per_level.shape[1]:
            tiles.append(Tile(f"{name} accuracy", f"{100 * curve.per_level[-1].mean():.2f} %"))
        else:
            tiles.append(Tile(f"{name} loss", f"{curve.loss[-1]:.3f}"))
    return tiles


def _recordings(contents: ReportContents) -> Section:
    return Section(
        "recordings",
        "Recordings and failures",
        "Look for a split that has no recordings, for a dataset that dwarfs the others, and for failures: each "
        "has a code, and a table says what to do about it.",
        inline(pictures.overview(contents.recordings, contents.stages)),
        tables=(_dataset_table(contents.recordings), *_failure_tables(contents)),
    )


def _dataset_table(recordings: Sequence[RecordingFacts]) -> Table:
    groups: dict[tuple[str, str], list[float | None]] = {}
    for recording in recordings:
        for split, seconds in recording.by_split:
            groups.setdefault((recording.dataset, split), []).append(seconds)
    rows = [
        (dataset, split, f"{len(group):,}", length(group), f"{group.count(None):,}")
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
        return left_out("spectra", title, "Nothing long enough is prepared yet.", contents.command("prepare"))
    items = contents.spectra
    sampled = {s.dataset: s.n_recordings for s in items}
    return Section(
        "spectra",
        title,
        "Look for a smooth fall towards high frequencies; a broad bump near 10 Hz is alpha rhythm. A narrow peak at "
        "the dashed line is mains interference that the filters left; a wide band means that channels differ much.",
        inline(pictures.spectra(items)),
        "Line: median over good channels; band: 10th to 90th percentile. Welch, 2 s Hann windows, up to 60 s from the "
        f"middle of {'; '.join(count_of(n, 'recording') + f' of {name}' for name, n in sorted(sampled.items()))}.",
    )


def _sensors(contents: ReportContents) -> Section:
    title = "Sensors"
    if not contents.sensors:
        what = "No prepared recording has sensors with known positions."
        return left_out("sensors", title, what, contents.command("prepare"))
    shown = contents.sensors[: pictures.MOST_MAPS]
    return Section(
        "sensors",
        title,
        "Look for single sensors that stand out from their neighbours (broken, or close to metal), for a crossed-out "
        "region, and for a helmet with holes: then positions are missing.",
        inline(pictures.sensor_maps(shown)),
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


def _rejections(contents: ReportContents) -> Section:
    shown = contents.rejections[: pictures.MOST_REJECTED]
    more = len(contents.rejections) - len(shown)
    return Section(
        "rejected",
        "Rejected windows",
        "Look for a row that is full: that channel was broken all along. A full column is a movement or a loose "
        "reference; much of both means that the bounds do not fit the device.",
        inline(pictures.rejections(shown)),
        "A mark is a window of one channel that no model is shown."
        + (f" The {len(shown)} recordings with the largest share; {more} more are left out." if more > 0 else ""),
        (_rejection_table(shown),),
    )


def _rejection_table(items: Sequence[RejectionFacts]) -> Table:
    reasons = sorted({name for item in items for name in item.legend[1:]})
    rows = []
    for item in items:
        counts = {name: int((item.reasons == i).sum()) for i, name in enumerate(item.legend)}
        total = max(item.reasons.size, 1)
        shares = [f"{counts.get(name, 0) / total:.2%}" for name in reasons]
        whole = f"{(item.reasons == 0).all(axis=1).mean():.1%}" if len(item.reasons) else "-"
        rows.append((item.recording, f"{len(item.reasons):,} of {item.window_seconds:g} s", *shares, whole))
    columns = (
        Column("recording"),
        Column("windows", number=True),
        *(Column(name, number=True) for name in reasons),
        Column("windows kept whole", number=True),
    )
    return Table(columns, tuple(rows))


def _tokenizer(contents: ReportContents) -> Section:
    title = "Tokenizer"
    facts = contents.tokenizer
    if facts is None:
        return left_out("tokenizer", title, "No tokenizer is fitted on these recordings.", contents.command("fit"))
    if facts.by_rule and facts.correlation is None:
        look_for = (
            "Its codes follow from a rule, nothing was learned and nothing was measured: compare the others with it."
        )
        return Section("tokenizer", title, look_for, tables=(_quality_table(facts),))
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
        ("correlation with the original", number(facts.correlation, "{:.3f}")),
        ("SI-SDR", number(facts.si_sdr_db, "{:.1f} dB")),
        ("squared error, normalised", number(facts.mse, "{:.4f}")),
        ("squared error of predicting the mean", number(facts.baseline_mse, "{:.4f}")),
        ("codes per frame", f"{facts.n_quantizers}, each one of {facts.codebook_size}"),
        ("rate per channel", f"{facts.bits_per_second:,.0f} bit/s"),
    ]
    return Table((Column("measure"), Column("value", number=True)), tuple(rows))


def _codebooks(contents: ReportContents) -> Section:
    title = "Codebooks"
    facts, usage = contents.tokenizer, contents.usage
    if usage is None and (facts is None or not facts.levels):
        return left_out("codebooks", title, "No codes are written yet.", contents.command("tokenize"))
    caption = ""
    if usage is not None:
        stores = count_of(usage.n_recordings, "recording")
        caption = f"Token stores: {int(usage.counts[0].sum()):,} frames of good channels, {stores}."
    return Section(
        "codebooks",
        title,
        "Look for levels near 1: a codebook that uses one code says nothing. Points near the dashed line use all codes "
        "alike; a level below is dead or was never needed.",
        inline(pictures.codebooks(facts, usage)),
        caption,
        (_level_table(contents),),
    )


def _level_table(contents: ReportContents) -> Table:
    """One row per level: perplexity in both places, the rest from the stores, or from the gate before there are any."""
    fitted = contents.tokenizer.levels if contents.tokenizer is not None else ()
    stored = _stored_levels(contents.usage) if contents.usage is not None else ()
    rows = tuple(
        (
            codebook_name(contents.tokenizer, level),
            f"{fitted[level].perplexity:.1f}" if fitted else "-",
            f"{stored[level].perplexity:.1f}" if stored else "-",
            f"{one.used_share:.1%}",
            f"{one.dominant_share:.1%}",
        )
        for level, one in enumerate(stored or fitted)
    )
    place = "stores" if stored else "gate"
    first = "codebook" if contents.tokenizer is not None and contents.tokenizer.codebooks else "level"
    names = (first, "perplexity, gate", "perplexity, stores", f"codes used, {place}", f"commonest code, {place}")
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
        return left_out("example", title, what, contents.command(stage))
    seconds = item.original.shape[1] / item.sfreq
    seen = " (no prepared recording is held out)" if item.split == "train" else ""
    return Section(
        "example",
        title,
        "Look for slow waves and bursts that both lines share. A flat reconstruction means that the tokenizer has not "
        "learned; what only the original has is lost to every model trained on these codes.",
        inline(pictures.traces(item)),
        f"{seconds:.1f} s of a recording of the {item.split} split{seen}, encoded and decoded; r is their correlation.",
    )


def _training(contents: ReportContents) -> Section:
    title = "Training"
    run = contents.training
    if run is None:
        return left_out("training", title, "No model is trained on these codes.", contents.command("train"))
    state = "finished" if run.finished else "not finished"
    held_out = "diamonds: held-out recordings" if run.validation is not None else "no recording is held out"
    if not run.train.per_level.shape[1]:
        return Section(
            "training",
            title,
            "Look for a loss that falls, and for validation that follows it; where validation turns up, the model "
            "learns its recordings by heart.",
            inline(pictures.training(run)),
            f"Run {run.identity}, {state} at step {run.train.steps[-1]:,}; {held_out}.",
        )
    return Section(
        "training",
        title,
        "Look for a loss that falls below chance and for validation that follows it; where validation turns up, the "
        "model learns its recordings by heart. A level counts as learned when its accuracy is above the share of its "
        "commonest code: naming that one every time is free.",
        inline(pictures.training(run)),
        f"Run {run.identity}, {state} at step {run.train.steps[-1]:,}. Dashed: chance among {run.codebook_size} codes; "
        f"{held_out}.",
        (_accuracy_table(run, contents),),
    )


def _accuracy_table(run: Training, contents: ReportContents) -> Table:
    """Last accuracy of each level beside what two ways of guessing reach."""
    curve, name = (run.validation, "validation") if run.validation is not None else (run.train, "training")
    stored = _stored_levels(contents.usage) if contents.usage is not None else ()
    rows = tuple(
        (
            codebook_name(contents.tokenizer, level),
            f"{accuracy:.2%}",
            f"{stored[level].dominant_share:.2%}" if level < len(stored) else "-",
            f"{1 / run.codebook_size:.2%}",
        )
        for level, accuracy in enumerate(curve.per_level[-1])
    )
    first = "codebook" if contents.tokenizer is not None and contents.tokenizer.codebooks else "level"
    names = (first, f"{name} accuracy", "commonest code, stores", "chance")
    return Table(tuple(Column(name, number=True) for name in names), rows)


def _identities(contents: ReportContents) -> Section:
    title = "What this page is about"
    rows = tuple((name, value) for name, value in contents.identities.items())
    table = Table((Column("what"), Column("identity")), rows)
    look_for = "Compare with the folders of your stores: the same identity is the same bytes."
    return Section("identities", title, look_for, tables=(table,))
