"""The EEG road of the demo: a synthetic OpenNeuro snapshot of a cap with 19 electrodes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from neuromill.stages.choosing import choose
from neuromill.stages.contexts import done_recordings
from neuromill.stages.demo_snapshots import fidelity_lines, fidelity_problems, snapshot_workspace, tokenizer_facts
from neuromill.stages.demonstration import Measured, loss_facts, loss_line, loss_problems, metrics_of
from neuromill.stages.outcomes import Stage
from neuromill.stages.selection import Selection

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from neuromill.stages.compared import Compared, Comparison
    from neuromill.stages.outcomes import StageResult
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.settings import Settings
    from neuromill.stages.workspace import Workspace

SNAPSHOT = "eeg-snapshot"
CODEBOOKS = ("temporal", "frequency")
BASELINES = ("mu_law", "quantile")
COMPARED_WINDOWS = 8


class EegRoad:
    """EDF files of a cap, windows of channels rejected by amplitude, TFDual codes beside those of fixed tokenizers."""

    name = "eeg"
    pipeline = "demo-eeg"
    dataset = "ds999003"

    def plan(self) -> str:
        """Say what would be written."""
        from neuromill.synthetic.eeg_snapshot import EegSnapshotSpec

        return f"a synthetic OpenNeuro snapshot of {EegSnapshotSpec().subjects} EEG recordings"

    def archive(self, settings: Settings) -> AbstractContextManager[Workspace]:
        """Give a workspace whose OpenNeuro is a snapshot in the home folder, written if it is not there yet."""
        from neuromill.synthetic.eeg_snapshot import EegSnapshotSpec, write_eeg_snapshot
        from neuromill.synthetic.repository import SnapshotPlace

        spec = EegSnapshotSpec()
        place = SnapshotPlace(settings.home / SNAPSHOT, spec.dataset, spec.version)
        return snapshot_workspace(settings, place, partial(write_eeg_snapshot, spec=spec))

    def measure(self, workspace: Workspace, pipeline: Pipeline, results: tuple[StageResult, ...]) -> Measured:
        """Rejected windows, use of both codebooks, reconstruction, fixed tokenizers beside it, and the training."""
        from neuromill.stages.comparing import compare_tokenizers

        comparison = compare_tokenizers(workspace, (pipeline,), Selection(), BASELINES, n_windows=COMPARED_WINDOWS)
        facts = {
            **tokenizer_facts(workspace, pipeline),
            "rejection": _rejection(workspace, pipeline),
            "comparison": comparison.as_dict(),
            **_training(metrics_of(workspace, results)),
        }
        return Measured((*_lines(facts), *_compared(comparison), *_learnt(facts)), facts, _problems(facts))


def _training(rows: list[dict[str, Any]]) -> dict[str, Any]:
    held_out = [row for row in rows if row["kind"] == "validation"][-1]
    return {
        **loss_facts(rows),
        "validation_accuracy": held_out["per_quantizer"],
        "commonest_share": held_out["commonest"],
    }


def _learnt(facts: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    right = zip(CODEBOOKS, facts["validation_accuracy"], facts["commonest_share"], strict=True)
    shown = ", ".join(f"{name} {100 * share:.1f} % (commonest {100 * most:.1f} %)" for name, share, most in right)
    return (
        loss_line(facts),
        ("masked codes predicted, held-out subject", shown),
    )


def _lines(facts: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    rejection = facts["rejection"]
    of_channels = f"{rejection['rejected']} of {rejection['channel_windows']} channels of windows"
    kept = f"{rejection['kept_whole']} of {rejection['windows']} windows have every channel"
    size = facts["codebook_size"]
    columns = zip(CODEBOOKS, facts["perplexity"], facts["used_share"], facts["dominant_share"], strict=True)
    return (
        ("rejected by amplitude", f"{of_channels} ({100 * rejection['share']:.1f} %); {kept}"),
        *(
            (f"{name} codebook", f"perplexity {p:.0f} of {size}, {100 * used:.0f} % used, commonest {100 * most:.1f} %")
            for name, p, used, most in columns
        ),
        *fidelity_lines(facts),
    )


def _compared(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    """One line per tokenizer, all on the same windows."""
    return tuple((f"compared: {one.kind}", _score(one)) for one in comparison.tokenizers)


def _score(one: Compared) -> str:
    return (
        f"{one.rate.nominal:.4g} bit/s per channel, correlation {one.fidelity.correlation:.3f}, "
        f"SI-SDR {one.fidelity.si_sdr_db:.1f} dB"
    )


def _problems(facts: dict[str, Any]) -> tuple[str, ...]:
    problems = (*loss_problems(facts), *fidelity_problems(facts))
    share = facts["rejection"]["share"]
    return problems if 0 < share < 1 else (*problems, f"the share of rejected windows is {share:.3f}")


def _rejection(workspace: Workspace, pipeline: Pipeline) -> dict[str, Any]:
    """Add the statistics of the prepared groups up."""
    from neuromill.stages.identities import prepare_identity
    from neuromill.store.reader import StoreReader

    identity = prepare_identity(pipeline)
    chosen = choose(workspace, pipeline, Selection())
    found = []
    for recording in done_recordings(workspace, chosen, Stage.PREPARE, identity):
        store = workspace.store(recording.id.dataset_version, Stage.PREPARE, identity)
        with StoreReader.of_groups(store, (recording.id.name,)) as reader:
            found.append(reader.recording(recording.id.name).attributes["facts"]["rejection"])
    windows = sum(one["n_windows"] for one in found)
    of_channels = sum(one["n_windows"] * one["n_channels"] for one in found)
    rejected = sum(sum(one["by_reason"].values()) for one in found)
    kept_whole = sum(one["windows_kept_whole"] for one in found)
    return {
        "windows": windows,
        "channel_windows": of_channels,
        "rejected": rejected,
        "share": rejected / of_channels,
        "kept_whole": kept_whole,
    }
