"""What is there: stores, tokenizers, counts, recordings by name. Reads only."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neuromill.records import ConfigError, FailureCode, RecordingId

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from neuromill.catalog.work import Counts, RunRow
    from neuromill.records import DatasetVersion
    from neuromill.stages.workspace import Workspace
    from neuromill.tokenizers.protocol import Tokenizer

SECONDS_IN_HOUR = 3600
CODEBOOKS = {"tfdual": ("temporal", "frequency")}


@dataclass(frozen=True, slots=True)
class StoreSummary:
    """One store identity of the home folder; counts are those of whole groups, ``damaged`` tells of the others.

    Attributes
    ----------
    kind
        Kind of its groups ("signal", "tokens", "features", "spikes", "spike_tokens"); "" where none is whole.
    n_columns
        Fewest and most channels (units, of spikes) of a recording.
    """

    folder: Path
    dataset_version: str
    stage: str
    identity: str
    n_recordings: int
    hours: float
    n_bytes: int
    indexed: bool
    damaged: tuple[str, ...] = ()
    kind: str = ""
    n_columns: tuple[int, int] = (0, 0)

    @property
    def columns(self) -> str:
        """What a column of its recordings is: ``units`` or ``channels``."""
        return columns_of(self.kind)


@dataclass(frozen=True, slots=True)
class StageCounts:
    """Ledger counts of one stage of one dataset version under one identity."""

    dataset_version: DatasetVersion
    stage: str
    identity: str
    counts: Counts


def require_home(workspace: Workspace) -> Workspace:
    """Return the workspace; ``ConfigError`` where its home does not exist, so that looking creates none."""
    if not workspace.home.is_dir():
        raise ConfigError(
            "there is no such home",
            where=str(workspace.home),
            next_step="give its folder with --home or NEUROMILL_HOME; `neuromill run` makes a new one",
        )
    return workspace


def list_stores(workspace: Workspace) -> tuple[StoreSummary, ...]:
    """Every store of the home folder, sorted by dataset, stage, identity."""
    return tuple(_store_summary(folder) for folder in store_folders(workspace))


def store_folders(workspace: Workspace) -> tuple[Path, ...]:
    """Folder of every store, nothing in it read: a damaged one is listed, too."""
    return tuple(folder for folder in sorted((workspace.home / "stores").glob("*/*/*")) if folder.is_dir())


def _store_summary(folder: Path) -> StoreSummary:
    from neuromill.store.contents import describe_store
    from neuromill.store.filesystem import open_file_system
    from neuromill.store.layout import INDEX_FILE

    fs = open_file_system(folder)
    recordings, damaged = describe_store(fs)
    fs.close()
    version, stage, identity = folder.parts[-3:]
    widths = [r.n_channels for r in recordings]
    return StoreSummary(
        folder=folder,
        dataset_version=version,
        stage=stage,
        identity=identity,
        n_recordings=len(recordings),
        hours=sum(seconds_of(r.kind, r.n_rows, r.attributes) for r in recordings) / SECONDS_IN_HOUR,
        n_bytes=sum(s.file_bytes for r in recordings for a in r.arrays.values() for s in a.shards),
        indexed=(folder / INDEX_FILE).is_file(),
        damaged=tuple(f"{name}: {error}" for name, error in damaged.items()),
        kind=recordings[0].kind if recordings else "",
        n_columns=(min(widths, default=0), max(widths, default=0)),
    )


def columns_of(kind: str) -> str:
    """What the columns of a kind of group are."""
    return "units" if kind in ("spikes", "spike_tokens") else "channels"


def describe_columns(attributes: Mapping[str, Any]) -> str:
    """Columns of a group in words: ``306 channels: 204 grad, 102 mag; 2 bad``, ``96 units: 96 M1``."""
    what = columns_of(attributes["kind"])
    if what == "units":
        names, groups = attributes["unit_names"], Counter(one or "no array" for one in attributes["unit_arrays"])
    else:
        names, groups = attributes["channel_names"], Counter(attributes["channel_types"])
    parts = ", ".join(f"{count} {name}" for name, count in groups.most_common())
    bad = f"; {len(attributes['bads'])} {'masked' if what == 'units' else 'bad'}" if attributes["bads"] else ""
    return f"{len(names)} {what}: {parts}{bad}"


def seconds_of(kind: str, n_rows: int, attributes: Any) -> float:
    """Length of a recording in seconds: rows are samples, bins or frames; spike tokens say how many bins they cover."""
    if kind == "spike_tokens":
        return float(attributes["n_times"]) / float(attributes["sfreq"])
    return n_rows / float(attributes["sfreq"] if kind in ("signal", "spikes") else attributes["frame_rate"])


def stage_counts(workspace: Workspace) -> tuple[StageCounts, ...]:
    """Counts of everything the ledger knows, in the order of the stages."""
    from neuromill.catalog.work import Scope
    from neuromill.stages.outcomes import Stage

    order = [stage.value for stage in Stage]
    keys = {(row.key.recording_id.dataset_version, row.key.stage, row.key.identity) for row in workspace.ledger.rows()}
    return tuple(
        StageCounts(version, stage, identity, workspace.ledger.counts(Scope(version, stage, identity)))
        for version, stage, identity in sorted(keys, key=lambda k: (str(k[0]), order.index(k[1]), k[2]))
    )


def find_recordings(workspace: Workspace, name: str) -> tuple[RecordingId, ...]:
    """Recordings of the ledger with this name (or ``dataset@version/name``).

    Raises
    ------
    ConfigError
        None has it; names that look like it are told.
    """
    known = sorted({row.key.recording_id for row in workspace.ledger.rows()}, key=str)
    found = tuple(recording for recording in known if name in (recording.name, str(recording)))
    if found:
        return found
    near = [str(recording) for recording in known if name in str(recording)][:5]
    hint = f"did you mean {', '.join(near)}" if near else "`neuromill status` shows what there is"
    raise ConfigError("the ledger knows no such recording", where=name, next_step=hint)


def notes_of(workspace: Workspace, recording_id: str) -> tuple[tuple[str, str], ...]:
    """Stage and text of what readers noted of a recording (``dataset@version/name``), each once, in order."""
    rows = [row for row in workspace.ledger.rows() if str(row.key.recording_id) == recording_id]
    found = [(row.key.stage, str(note)) for row in rows for note in row.facts.get("notes", ())]
    return tuple(dict.fromkeys(found))


def came_to(run: RunRow) -> str:
    """What a fit, a training or a probe came to, in a few words; "" for one that has not ended."""
    facts = run.facts
    if "scores" in facts:
        return _probe_came_to(facts)
    if facts.get("problems"):
        return f"refused: {'; '.join(facts['problems'])}"
    labels = {"r2": "R2", "accuracy": "accuracy", "test_r2": "test R2"}
    told = [f"{label} {_beside(facts, name)}" for name, label in labels.items() if name in facts]
    if told:
        return "; ".join(told)
    return f"loss {facts['first_loss']:.3f} -> {facts['last_loss']:.3f}" if "first_loss" in facts else ""


def _probe_came_to(facts: Mapping[str, Any]) -> str:
    scores = {name: f"{one['balanced_accuracy']:.3f}" for name, one in facts["scores"].items()}
    others = [f"{name} {value}" for name, value in scores.items() if name != "model"]
    beside = ", ".join([*others, f"chance {facts['chance']:.3f}"])
    return f"{facts['name']}: balanced accuracy {scores['model']} ({beside})"


def _beside(facts: Mapping[str, Any], name: str) -> str:
    """Score of a model, with those of the baselines in brackets: ``ridge_r2`` beside r2, ``test_ridge_r2``."""
    part, score = ("test_", name.removeprefix("test_")) if name.startswith("test_") else ("", name)
    others = {
        key.removeprefix(part).removesuffix(f"_{score}"): value
        for key, value in facts.items()
        if key.endswith(f"_{score}") and key != name and key.startswith("test_") == bool(part)
    }
    shown = ", ".join(f"{other} {value:.3f}" for other, value in others.items())
    return f"{facts[name]:.3f}" + (f" ({shown})" if shown else "")


def parse_codes(names: Iterable[str]) -> frozenset[FailureCode]:
    """Failure codes by name; ``ConfigError`` for one that does not exist."""
    try:
        return frozenset(FailureCode(name) for name in names)
    except ValueError as error:
        raise ConfigError(
            f"{error}", where="--code", next_step=f"codes: {', '.join(code.value for code in FailureCode)}"
        ) from None


def count_retries(
    workspace: Workspace,
    *,
    recordings: Sequence[RecordingId] | None,
    codes: Iterable[FailureCode] | None,
    everything: bool,
) -> int:
    """How many failures ``retry`` with these arguments would send back."""
    from neuromill.catalog.work import WorkState

    chosen = set(codes) if codes else None
    if chosen is None and recordings is None and not everything:
        chosen = {code for code in FailureCode if code.transient}
    return sum(
        (chosen is None or row.code in chosen) and (recordings is None or row.key.recording_id in recordings)
        for row in workspace.ledger.rows(states=[WorkState.FAILED])
    )


def describe_tokenizer(workspace: Workspace, source: str) -> dict[str, Any]:
    """Settings, digest, fit and codebook usage of a tokenizer, as JSON values; ``levels`` has one row per level."""
    from neuromill.tokenizers.files import open_tokenizer, read_facts

    fitted = sorted((workspace.home / "tokenizers").glob("*"))
    own = [folder for folder in fitted if source and folder.name.startswith(source)]
    if len(own) > 1:
        choices = ", ".join(folder.name for folder in own)
        raise ConfigError("more than one tokenizer begins like this", where=source, next_step=f"one of {choices}")
    place = str(own[0]) if own else source
    tokenizer, facts = open_tokenizer(place), read_facts(place)
    quality = facts.get("quality") or {}
    usage = quality.get("usage") or {}
    names = [name for name in ("perplexity", "used_share", "dominant_share") if name in usage]
    called = codebook_names(tokenizer)
    levels = [
        {
            "level": level,
            **({"codebook": called[level]} if called else {}),
            **{name: usage[name][level] for name in names},
        }
        for level in range(len(usage.get("perplexity", ())))
    ]
    return {
        "source": place,
        "kind": tokenizer.config.kind,
        "digest": tokenizer.digest,
        "parameters": tokenizer.n_parameters,
        "sfreq": tokenizer.sfreq,
        "hop_samples": tokenizer.hop_samples,
        "n_quantizers": tokenizer.n_quantizers,
        "codebook_size": tokenizer.codebook_size,
        "bits_per_second_per_channel": bits_per_second(tokenizer),
        **{name: quality[name] for name in ("correlation", "si_sdr_db", "mse", "baseline_mse") if name in quality},
        "held_out": facts.get("held_out"),
        "fitted_on": facts.get("recordings", []),
        "levels": levels,
    }


def codebook_names(tokenizer: Tokenizer) -> tuple[str, ...]:
    """Names of codebooks that are not the levels of a residual quantizer; () where they are, or there is but one."""
    return CODEBOOKS.get(tokenizer.config.kind, ())


def bits_per_second(tokenizer: Tokenizer) -> float:
    """Rate of the codes of one channel, in bits per second."""
    from math import log2

    return float(tokenizer.n_quantizers * log2(tokenizer.codebook_size) * tokenizer.sfreq / tokenizer.hop_samples)
