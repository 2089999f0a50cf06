from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from numpy.testing import assert_array_equal

from neuromill.records import RecordingError, SpikeTokens, TrialTable
from neuromill.store.attributes import unit_table_of
from neuromill.store.errors import StoreError
from neuromill.store.index import rebuild_index
from neuromill.store.reader import StoreReader
from neuromill.store.spike_tokens_reading import read_chunks, read_tokens
from neuromill.store.spike_writer import TOKEN_ARRAYS, Behaviour, SpikeWriter, success_mask
from neuromill.store.verify import inspect_group, verify_store
from support.spikes import (
    NAME,
    behaviour,
    spike_attributes,
    spike_counts,
    spike_tokens,
    trial_table,
    unit_table,
    write_spike_tokens,
    write_spikes,
)


def files_of(store: Path) -> dict[str, bytes]:
    return {p.relative_to(store).as_posix(): p.read_bytes() for p in store.rglob("*") if p.is_file()}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    counts = spike_counts(7000, 5)
    write_spikes(tmp_path, counts, start_seconds=1.25)
    rebuild_index(tmp_path)
    own, trials = behaviour(7000), trial_table()
    success = success_mask(trials, 1.25, 0.02, 7000)
    with StoreReader.open(tmp_path) as reader:
        one = reader.recording(NAME)
        assert (one.kind, one.n_rows, one.n_channels, one.sfreq) == ("spikes", 7000, 5, 50.0)
        for start, stop in ((0, 7000), (2990, 3010), (6999, 7000), (10, 10)):
            assert_array_equal(reader.read(NAME, "counts", start, stop), counts[start:stop])
            assert_array_equal(reader.read(NAME, "covariate", start, stop), own.values[start:stop])
            assert_array_equal(reader.read(NAME, "covariate_valid", start, stop), own.valid[start:stop])
            assert_array_equal(reader.read(NAME, "segment", start, stop), own.segment[start:stop])
            assert_array_equal(reader.read(NAME, "trial_success_mask", start, stop), success[start:stop])
        assert_array_equal(reader.read(NAME, "covariate_scale"), own.scale)
        rates = counts[own.segment >= 0].sum(axis=0) / (np.count_nonzero(own.segment >= 0) * 0.02)
        assert_array_equal(reader.read(NAME, "unit_mean_rate"), rates.astype(np.float32))
        assert_array_equal(reader.read(NAME, "trial_success"), trials.success)
        assert_array_equal(reader.read(NAME, "trial_go-cue"), trials.columns["go cue"])
        assert one.attributes["trial_columns"] == {"result": ["R", "F"]}
        assert one.attributes["n_times"] == 7000
        assert (one.attributes["start_seconds"], one.attributes["bin_seconds"]) == (1.25, 0.02)
        assert one.attributes["covariate_units"] == ["m/s", "m/s"]
        assert unit_table_of(one.attributes) == unit_table(5)


def test_both_kinds_pass_verification(tmp_path: Path) -> None:
    write_spikes(tmp_path, spike_counts(300, 4))
    write_spike_tokens(tmp_path, spike_tokens(7), name="tokens")
    rebuild_index(tmp_path)
    assert list(verify_store(tmp_path)) == []
    assert inspect_group(tmp_path, NAME).kind == "spikes"
    (tmp_path / f"{NAME}.zarr" / "counts" / "c" / "0" / "0").write_bytes(b"")
    assert [problem.kind for problem in verify_store(tmp_path)] == ["wrong_size"]


def test_blocks_do_not_change_the_bytes(tmp_path: Path) -> None:
    counts = spike_counts(7000, 5)
    write_spikes(tmp_path / "a", counts)
    write_spikes(tmp_path / "b", counts, blocks=[counts[:1], counts[1:5999], counts[5999:]])
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert not write_spikes(tmp_path / "a", counts).created
    with pytest.raises(StoreError):
        write_spikes(tmp_path / "a", counts[::-1].copy())
    assert write_spikes(tmp_path / "a", counts[::-1].copy(), replace=True).created


def test_zarr_writes_the_same_bytes(tmp_path: Path) -> None:
    counts = spike_counts(7000, 5)
    write_spikes(tmp_path, counts, max_shard_bytes=30_000)
    group = zarr.open_group(tmp_path / f"{NAME}.zarr", mode="r")
    assert group["counts"].shards == (6000, 5)
    for name in ("counts", "covariate", "covariate_valid", "segment", "trial_success_mask"):
        array = group[name]
        copy = zarr.create_array(
            tmp_path / "copy" / name,
            shape=array.shape,
            dtype=array.dtype,
            chunks=array.chunks,
            shards=array.shards,
            compressors=None,
            filters=None,
            fill_value=array.fill_value,
            dimension_names=array.metadata.dimension_names,
            attributes=dict(array.attrs),
            config={"write_empty_chunks": True},
        )
        copy[...] = array[...]
        ours = {k: v for k, v in files_of(tmp_path / f"{NAME}.zarr" / name).items() if k != "zarr.json"}
        assert ours == {k: v for k, v in files_of(tmp_path / "copy" / name).items() if k != "zarr.json"}


def test_recordings_without_behaviour_and_trials(tmp_path: Path) -> None:
    nothing = TrialTable(np.empty(0), np.empty(0), np.empty(0, bool), {"result": (), "rt": np.empty(0)})
    write_spikes(tmp_path, spike_counts(100, 3), n_covariates=0, trials=nothing)
    rebuild_index(tmp_path)
    assert list(verify_store(tmp_path)) == []
    with StoreReader.open(tmp_path) as reader:
        arrays = set(reader.recording(NAME).arrays)
    assert arrays == {"counts", "unit_mean_rate", "segment", "trial_success_mask"}
    xr.open_zarr(tmp_path / f"{NAME}.zarr", consolidated=False)


def test_nothing_observed_has_no_rate(tmp_path: Path) -> None:
    counts = spike_counts(100, 3)
    own = replace(behaviour(100), segment=np.full(100, -1, np.int32))
    with SpikeWriter(tmp_path, NAME, n_units=3, bin_seconds=0.02) as writer:
        writer.write(counts)
        writer.publish(spike_attributes(), unit_table(3), behaviour=own, trials=trial_table())
    with StoreReader.of_groups(tmp_path) as reader:
        assert np.isnan(reader.read(NAME, "unit_mean_rate")).all()


@pytest.mark.parametrize(
    ("n_written", "n_units", "n_behaviour", "sfreq", "fault"),
    [
        (0, 3, 0, 50.0, "no bins"),
        (100, 4, 100, 50.0, "4 units in the table, 3 written"),
        (100, 3, 99, 50.0, "99 bins, 100 written"),
        (100, 3, 100, 100.0, "not of 0.02 s"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, n_written: int, n_units: int, n_behaviour: int, sfreq: float, fault: str
) -> None:
    with SpikeWriter(tmp_path, NAME, n_units=3, bin_seconds=0.02) as writer:
        writer.write(spike_counts(n_written, 3))
        with pytest.raises((RecordingError, StoreError), match=fault):
            writer.publish(
                spike_attributes(sfreq=sfreq),
                unit_table(n_units),
                behaviour=behaviour(n_behaviour),
                trials=trial_table(),
            )
    assert files_of(tmp_path) == {}


def test_a_recording_without_spikes_is_none(tmp_path: Path) -> None:
    with pytest.raises(RecordingError) as error:
        write_spikes(tmp_path, np.zeros((100, 3), np.uint8))
    assert error.value.code == "no_spikes"
    with pytest.raises(RecordingError) as error:
        SpikeWriter(tmp_path, NAME, n_units=0, bin_seconds=0.02)
    assert error.value.code == "no_spikes"


@pytest.mark.parametrize(
    "fault",
    [
        {"names": ("x",)},
        {"units": ("m",)},
        {"scale": np.ones(3, np.float32)},
        {"segment": np.zeros(99, np.int32)},
        {"valid": np.ones((100, 2), bool)},  # NaN among them
    ],
)
def test_behaviour_fits_itself(fault: dict) -> None:
    with pytest.raises(ValueError, match="behaviour"):
        replace(behaviour(100), **fault)


def test_attributes_and_data_are_on_one_clock(tmp_path: Path) -> None:
    for facts in ({"start_seconds": 0.02}, {"bin_seconds": 0.01, "sfreq": 100.0}):
        with SpikeWriter(tmp_path, NAME, n_units=3, bin_seconds=0.02) as writer:
            writer.write(spike_counts(100, 3))
            with pytest.raises(StoreError, match="bins of the attributes"):
                writer.publish(spike_attributes(**facts), unit_table(3), behaviour=behaviour(100), trials=trial_table())


def test_success_is_being_wholly_in_a_successful_trial() -> None:
    starts, stops = np.array([0.01, 0.1, 0.2, np.nan, 0.38]), np.array([0.06, 0.2, 0.3, 0.4, 9.0])
    trials = TrialTable(starts + 1, stops + 1, np.array([True, True, False, True, True]))
    assert np.flatnonzero(success_mask(trials, 1.0, 0.02, 20)).tolist() == [1, 2, 5, 6, 7, 8, 9, 19]
    assert success_mask(TrialTable(np.empty(0), np.empty(0), np.empty(0, bool)), 0.0, 0.02, 20).all()
    assert not success_mask(replace(trials, success=np.zeros(5, bool)), 1.0, 0.02, 20).any()


def test_columns_of_trials_may_not_hide_each_other(tmp_path: Path) -> None:
    columns = {"start": np.zeros(1)}
    with pytest.raises(StoreError, match="share a name"):
        write_spikes(
            tmp_path, spike_counts(100, 3), trials=TrialTable(np.zeros(1), np.ones(1), np.ones(1, bool), columns)
        )


def assert_same(found: SpikeTokens, wanted: SpikeTokens) -> None:
    for field in fields(SpikeTokens):
        mine, other = getattr(found, field.name), getattr(wanted, field.name)
        assert mine.dtype == other.dtype, field.name
        assert_array_equal(mine, other, err_msg=field.name)


def part_of(tokens: SpikeTokens, first: int, stop: int) -> SpikeTokens:
    """Chunks of tokens that are in memory, chunk by chunk."""
    a, b = tokens.chunk_tokens[first], tokens.chunk_tokens[stop]
    offsets = tokens.chunk_contents
    contents = {"patches": 0, "covariates": 1, "covariate_valid": 1, "constraints": 2, "returns": 3}
    return SpikeTokens(
        **{name: getattr(tokens, name)[a:b] for name in ("slots", "bins", "kinds")},
        **{name: getattr(tokens, name)[offsets[first, k] : offsets[stop, k]] for name, k in contents.items()},
        chunk_tokens=tokens.chunk_tokens[first : stop + 1] - a,
        chunk_contents=offsets[first : stop + 1] - offsets[first],
        chunk_start_bins=tokens.chunk_start_bins[first:stop],
        chunk_n_bins=tokens.chunk_n_bins[first:stop],
    )


@pytest.mark.parametrize("n_covariates", [0, 2])
def test_chunks_of_tokens_are_read_alone_and_together(tmp_path: Path, n_covariates: int) -> None:
    tokens = spike_tokens(9, n_covariates=n_covariates)
    if not n_covariates:  # nothing to constrain, no return either
        kept = tokens.kinds != 3
        contents = tokens.chunk_contents * np.array([1, 1, 1, 0])
        tokens = replace(
            tokens,
            **{name: getattr(tokens, name)[kept] for name in ("slots", "bins", "kinds")},
            returns=tokens.returns[:0],
            chunk_contents=contents,
            chunk_tokens=contents.sum(axis=1),
        )
    write_spike_tokens(tmp_path, tokens, n_covariates=n_covariates, max_shard_bytes=100)
    rebuild_index(tmp_path)
    with StoreReader.open(tmp_path) as reader:
        one = reader.recording(NAME)
        assert (one.kind, one.n_rows, one.n_channels) == ("spike_tokens", len(tokens.slots), 4)
        assert one.attributes["n_chunks"] == 9
        assert one.attributes["n_times"] == tokens.chunk_n_bins.sum()
        assert one.attributes["n_tokens_of_kind"]["covariate"] == len(tokens.covariates)
        assert_same(read_tokens(reader, NAME), tokens)
        for first in range(9):
            for stop in range(first, 10):
                assert_same(read_chunks(reader, NAME, first, stop), part_of(tokens, first, stop))
        for first, stop in ((-1, 3), (8, 10), (3, 2)):
            with pytest.raises(IndexError):
                read_chunks(reader, NAME, first, stop)


def test_every_field_of_tokens_is_an_array() -> None:
    assert list(TOKEN_ARRAYS) == [field.name for field in fields(SpikeTokens)]


def test_tokens_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    write_spike_tokens(tmp_path / "a", spike_tokens(5))
    write_spike_tokens(tmp_path / "b", spike_tokens(5))
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    with pytest.raises(StoreError):
        write_spike_tokens(tmp_path / "a", spike_tokens(6))
    assert write_spike_tokens(tmp_path / "a", spike_tokens(6), replace=True).created


@pytest.mark.parametrize("name", [name for name in TOKEN_ARRAYS if name not in ("slots", "chunk_start_bins")])
def test_tokens_that_do_not_fit_are_refused(tmp_path: Path, name: str) -> None:
    tokens = spike_tokens(3)
    with pytest.raises(StoreError, match=name):
        write_spike_tokens(tmp_path, replace(tokens, **{name: getattr(tokens, name)[:-1]}))
    assert files_of(tmp_path) == {}


def test_no_tokens_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(RecordingError) as error:
        write_spike_tokens(tmp_path, spike_tokens(0))
    assert error.value.code == "too_short"


def test_behaviour_is_a_value() -> None:
    assert isinstance(behaviour(10), Behaviour)
    with pytest.raises(AttributeError):
        behaviour(10).names = ()
