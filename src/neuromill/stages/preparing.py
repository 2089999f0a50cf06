"""Ingest and prepare: one recording from its archive to a published Zarr group."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from neuromill.records import FailureCode, FileState, RecordingError, canonical_json
from neuromill.stages.checksums import require_stated_sums
from neuromill.stages.event_times import move_events
from neuromill.stages.raw_files import drop_raw, ensure_raw, lay_out_raw
from neuromill.stages.sections import signal_preparation

if TYPE_CHECKING:
    from pathlib import Path

    from neuromill.readers.protocol import SignalFacts, SignalRecording
    from neuromill.records import Recording
    from neuromill.signals.chain import Chain
    from neuromill.signals.quality import ChainReport
    from neuromill.stages.outcomes import WorkItem
    from neuromill.stages.work import Made, WorkContext
    from neuromill.store.attributes import SignalAttributes


def ingest_recording(context: WorkContext, item: WorkItem) -> Made:
    """Bring the raw files of a recording into the cache.

    Raises
    ------
    RecordingError
        ``missing_member`` where only sidecars of it are there, or git-annex's stand-in for a file in a folder;
        ``digest_mismatch`` where the folder's own checksums say otherwise; and whatever ``ensure_raw`` raises.
    """
    from neuromill.stages.work import Made

    folder = context.origin(item.recording.id.dataset).folder
    _require_data(item.recording, folder)
    ensure_raw(context, item.recording)
    require_stated_sums(folder, item.recording)
    return Made(bytes_out=item.recording.size, facts={"n_files": len(item.recording.members)})


def _require_data(recording: Recording, folder: Path | None) -> None:
    main = recording.path
    if not any(member.path == main or member.path.startswith(f"{main}/") for member in recording.members):
        raise RecordingError(
            FailureCode.MISSING_MEMBER,
            "its sidecars are in the snapshot, the recording is not",
            where=main,
            next_step="fetch the dataset again, or tell its authors",
        )
    unfetched = [member.path for member in recording.members if member.state is FileState.LOST]
    if folder is not None and unfetched:  # nothing upstream is lost: the folder has not got it
        raise RecordingError(
            FailureCode.MISSING_MEMBER,
            "git-annex has not fetched this file",
            where=unfetched[0],
            next_step="run `git annex get` (or `datalad get`) in the folder, then run again",
        )


def prepare_recording(context: WorkContext, item: WorkItem) -> Made:
    """Stream one recording through the steps of the pipeline and publish it.

    Members that are not in the cache are fetched first, so that ``keep_raw: false`` and a later change of the
    steps go together.
    """
    from neuromill.readers.opening import open_recording
    from neuromill.stages.scratch import scratch_folder
    from neuromill.stages.work import Made

    recording = item.recording
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder(context.scratch()))
        lay_out_raw(context, recording, folder)
        signal = stack.enter_context(open_recording(recording, folder))
        chain = _plan(context, recording, signal)
        published, report = _stream(context, item, signal, chain)
    if not context.pipeline.keep_raw:
        drop_raw(context, recording)
    bads = {chain.channels.names[i]: reason for i, reason in report.bads.items()}
    facts: dict[str, Any] = {
        "n_channels": len(chain.channels),
        "n_times": chain.n_times,
        "sfreq": chain.sfreq,
        "seconds": chain.n_times / chain.sfreq,
        "bads": bads,
        "shorter_than_filter": chain.facts.shorter_than_filter,
        "notes": list(signal.facts.notes),
    } | _looked_at(chain, report)
    return Made(bytes_out=published.n_bytes, adopted=not published.created, facts=facts)


def _plan(context: WorkContext, recording: Recording, signal: SignalRecording) -> Chain:
    from neuromill.signals.chain import plan_chain

    seconds = signal.n_times / signal.sfreq
    minimum = signal_preparation(context.pipeline).min_seconds
    if seconds < minimum:
        raise RecordingError(
            FailureCode.TOO_SHORT,
            f"{seconds:.3g} s of signal, the pipeline asks for {minimum:g} s",
            where=recording.path,
            next_step="lower prepare.min_seconds if this is wanted",
        )
    line_freq = signal.facts.line_freq or recording.line_freq
    channels = signal.channels.require_unique_names(recording.path)
    return plan_chain(
        signal_preparation(context.pipeline).steps,
        channels,
        signal.sfreq,
        signal.n_times,
        line_freq,
        where=recording.path,
    )


def _stream(context: WorkContext, item: WorkItem, signal: SignalRecording, chain: Chain) -> tuple[Any, ChainReport]:
    from neuromill.signals.chain import run_chain
    from neuromill.store.writer import SignalWriter

    run = run_chain(chain, lambda start, stop: signal.read(start, stop, chain.picks))
    with SignalWriter(
        context.store(item),
        item.recording.id.name,
        n_channels=len(chain.channels),
        sfreq=chain.sfreq,
        encoding=signal_preparation(context.pipeline).dtype,
    ) as writer:
        for block in run:
            writer.write(block.T)
        moved = move_events(signal.events, chain)
        attributes = _attributes(context, item, signal.facts, chain, {**moved.facts, **_looked_at(chain, run.report)})
        channels = chain.channels.with_bads(run.report.bads)
        rejection = run.report.rejection
        return writer.publish(attributes, channels, events=moved.events, rejection=rejection, replace=True), run.report


def _looked_at(chain: Chain, report: ChainReport) -> dict[str, Any]:
    """What steps that only look have found; nothing without such steps, so that other groups keep their bytes."""
    found: dict[str, Any] = {}
    if report.rejection is not None:
        found["rejection"] = report.rejection.statistics(chain.channels)
    if report.typical_volts is not None:
        found["typical_volts"] = report.typical_volts
    return found


def _attributes(
    context: WorkContext, item: WorkItem, facts: SignalFacts, chain: Chain, found: dict[str, Any]
) -> SignalAttributes:
    from neuromill.signals.steps import Filter
    from neuromill.store.attributes import SignalAttributes, recording_facts

    filters = [step for step in signal_preparation(context.pipeline).steps if isinstance(step, Filter)]
    edges = [step.h_freq for step in filters if step.h_freq] + [chain.sfreq / 2]
    known = recording_facts(item.recording)
    return SignalAttributes.model_validate(
        known
        | {
            "sfreq": chain.sfreq,
            "line_freq": facts.line_freq or known["line_freq"],
            "highpass": max([step.l_freq for step in filters if step.l_freq], default=facts.highpass),
            "lowpass": min(edges),
            "facts": _as_json({"signal": asdict(facts), "chain": _chain_facts(chain)} | found),
            "pipeline": context.pipeline_attributes(item),
        }
    )


def _as_json(value: dict[str, Any]) -> dict[str, Any]:
    """Turn tuples into lists, as they come back from JSON."""
    document: dict[str, Any] = json.loads(canonical_json(value))
    return document


def _chain_facts(chain: Chain) -> dict[str, Any]:
    return asdict(chain.facts) | {"input_sfreq": chain.input_sfreq, "input_n_times": chain.input_n_times}
