"""Small recordings of spikes and stores of them for tests."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuromill.records import SpikeTokens, TrialTable, UnitTable
from neuromill.store.attributes import PipelineAttributes, SpikeAttributes, SpikeTokenAttributes
from neuromill.store.publishing import PublishedGroup
from neuromill.store.spike_writer import Behaviour, SpikeTokenWriter, SpikeWriter

BIN_SECONDS = 0.02
NAME = "sub-C_ses-1_behavior+ecephys"
FACTS = {
    "recording_id": f"000688@0.250122.1735/{NAME}",
    "dataset": "000688",
    "version": "0.250122.1735",
    "entities": {"subject": "C"},
    "modality": "spikes",
    "sfreq": 50.0,
    "facts": {"n_before": 3},
    "sources": {"sub-C/sub-C_ses-1_behavior+ecephys.nwb": "sha256:00"},
    "pipeline": PipelineAttributes(name="test", stage="prepare", identity="0123456789abcdef"),
}


def poisson_times(rates: NDArray[np.float64], seconds: float, seed: int = 0) -> list[NDArray[np.float64]]:
    """Spike times of units that fire at these rates in Hz, a little before 0 and after the end, too."""
    rng = np.random.default_rng(seed)
    sizes = rng.poisson(rates * (seconds + 1.0))
    return [np.sort(rng.uniform(-0.5, seconds + 0.5, size)) for size in sizes]


def unit_table(n: int) -> UnitTable:
    """Two arrays, a sorted unit first, the last one masked."""
    return UnitTable(
        names=tuple(f"unit{i}" for i in range(n)),
        electrodes=tuple(str(i) for i in range(n)),
        arrays=tuple("M1" if i < n // 2 else "PMd" for i in range(n)),
        areas=("M1",) * n,
        is_sorted=(True, *(False,) * (n - 2), None),
        bads=(*("",) * (n - 1), "non_finite"),
    )


def trial_table() -> TrialTable:
    """Two trials, the second one a failure."""
    columns = {"go cue": np.array([1.5, 5.5]), "result": ("R", "F")}
    return TrialTable(np.array([1.0, 5.0]), np.array([3.0, 7.0]), np.array([True, False]), columns)


def behaviour(n_times: int, n_covariates: int = 2, start_seconds: float = 0.0) -> Behaviour:
    """Sines with an unobserved stretch in the middle, two segments."""
    time = np.arange(n_times)
    values = np.sin(time[:, None] / (7.0 + np.arange(n_covariates))).astype(np.float32)
    values[n_times // 2 : n_times // 2 + 5] = np.nan
    segment = np.where(time < n_times // 2, 0, 1).astype(np.int32)
    segment[n_times // 2 : n_times // 2 + 5] = -1
    return Behaviour(
        names=tuple(f"cursor_vel_{axis}" for axis in "xyz"[:n_covariates]),
        units=("m/s",) * n_covariates,
        values=values,
        valid=np.isfinite(values),
        scale=np.full(n_covariates, 0.9, np.float32),
        segment=segment,
        start_seconds=start_seconds,
    )


def spike_counts(n_times: int, n_units: int, seed: int = 0) -> NDArray[np.uint8]:
    """uint8 [time, unit]."""
    return np.random.default_rng(seed).poisson(0.3, (n_times, n_units)).astype(np.uint8)


def spike_attributes(**facts) -> SpikeAttributes:
    """What a recording says about itself, or other facts."""
    return SpikeAttributes(**{**FACTS, "bin_seconds": BIN_SECONDS, **facts})


def write_spikes(
    store: Path, counts: NDArray[np.uint8], name: str = NAME, *, n_covariates: int = 2, replace: bool = False, **options
) -> PublishedGroup:
    """Publish one recording; ``blocks``, ``trials``, ``start_seconds`` and options of the writer may be given."""
    trials = options.pop("trials", trial_table())
    start_seconds = options.pop("start_seconds", 0.0)
    blocks = options.pop("blocks", [counts])
    with SpikeWriter(store, name, n_units=counts.shape[1], bin_seconds=BIN_SECONDS, **options) as writer:
        for block in blocks:
            writer.write(block)
        return writer.publish(
            spike_attributes(start_seconds=start_seconds),
            unit_table(counts.shape[1]),
            behaviour=behaviour(len(counts), n_covariates, start_seconds),
            trials=trials,
            replace=replace,
        )


def spike_tokens(n_chunks: int, *, n_patches: int = 2, n_covariates: int = 2, seed: int = 0) -> SpikeTokens:
    """Chunks of 3 to 5 bins: patches and covariates in each bin, a constraint per dimension and a return in bin 0."""
    rng = np.random.default_rng(seed)
    rows, tokens, contents, starts, lengths = [], [0], [np.zeros(4, np.int64)], [], []
    start = 0
    for chunk in range(n_chunks):
        n_bins = 3 + chunk % 3
        own = [(b, 18 + p, 0) for b in range(n_bins) for p in range(n_patches)]
        own += [(b, 29 + k, 1) for b in range(n_bins) for k in range(n_covariates)]
        own += [(0, 1 + k, 2) for k in range(n_covariates)] + [(0, 28, 3)]
        rows += sorted(own)
        tokens.append(len(rows))
        contents.append(contents[-1] + np.bincount([kind for _, _, kind in own], minlength=4))
        starts.append(start)
        lengths.append(n_bins)
        start += n_bins + 2 * (chunk % 2)
    table = np.array(rows, np.int64).reshape(-1, 3)
    n_spike, n_covariate, n_constraint, n_return = contents[-1].tolist()
    return SpikeTokens(
        slots=table[:, 1].astype(np.uint8),
        bins=table[:, 0].astype(np.uint16),
        kinds=table[:, 2].astype(np.uint8),
        patches=rng.poisson(0.3, (n_spike, 32)).astype(np.uint8),
        covariates=rng.uniform(-1, 1, n_covariate).astype(np.float32),
        covariate_valid=rng.random(n_covariate) > 0.2,
        constraints=np.zeros((n_constraint, 3), np.float16),
        returns=np.zeros((n_return, 2), np.uint8),
        chunk_tokens=np.array(tokens, np.int64),
        chunk_contents=np.array(contents, np.int64),
        chunk_start_bins=np.array(starts, np.int64),
        chunk_n_bins=np.array(lengths, np.uint16),
    )


def write_spike_tokens(
    store: Path, tokens: SpikeTokens, name: str = NAME, *, n_covariates: int = 2, n_patches: int = 2, **options
) -> PublishedGroup:
    """Publish the tokens of one recording."""
    attributes = SpikeTokenAttributes(**FACTS, bin_seconds=BIN_SECONDS, chunk_bins=5, tokenizer="sha256:11")
    publish = {key: options.pop(key) for key in ("replace",) if key in options}
    with SpikeTokenWriter(store, name, **options) as writer:
        return writer.publish(
            attributes,
            tokens,
            unit_table(4),
            tuple(f"cursor_vel_{axis}" for axis in "xyz"[:n_covariates]),
            np.full(n_covariates, 0.9, np.float32),
            np.full(n_patches, 2, np.uint8),
            **publish,
        )
