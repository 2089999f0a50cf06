import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from neuromill.records import ConfigError, Events
from neuromill.store.looking import open_signals, open_tokens
from support.stores import channel_table, signal, write_signal, write_tokens

NAME = "sub-01_meg.zarr"


def test_plain_xarray_opens_a_store(tmp_path: Path) -> None:
    write_signal(tmp_path, signal(2000, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = xr.open_zarr(tmp_path / NAME, consolidated=False)
    assert dict(data.sizes) == {"time": 2000, "channel": 3, "xyz": 3}
    assert data["signal"].dims == ("time", "channel")
    assert data["signal"].dtype == np.float16
    assert data["signal"].chunks == ((600, 600, 600, 200), (3,))
    assert data["channel_position"].attrs["units"] == "m"
    assert data.attrs["channel_names"] == ["MEG000", "MEG001", "MEG002"]


def test_signals_have_units_names_and_seconds(tmp_path: Path) -> None:
    values = signal(2000, 3)
    values[:, 1] = 1e-12
    events = Events(np.array([0.5, 1.0]), np.array([0.1, 0.1]), ("the", "cat"))
    write_signal(tmp_path, values, events=events)
    data = open_signals(tmp_path / NAME)
    assert data["signal"].attrs["units"] == "T"
    assert data["signal"].dtype == np.float32
    assert data["signal"].chunks is not None  # lazy
    assert data["time"].attrs["units"] == "s"
    np.testing.assert_allclose(data["time"], np.arange(2000) / 50)
    assert data["channel"].to_numpy().tolist() == ["MEG000", "MEG001", "MEG002"]
    assert data["bad"].to_numpy().tolist() == ["", "flat", ""]
    assert data["channel_position"].dims == ("channel", "xyz")
    assert "channel_position" in data.coords
    assert data["event"].to_numpy().tolist() == ["the", "cat"]
    window = data["signal"].sel(channel="MEG002", time=slice(10, 20))
    np.testing.assert_allclose(window, values[500:1001, 2], atol=5e-3 * values[:, 2].std())
    assert np.isnan(data["signal"].sel(channel="MEG001")).all()


def test_channels_of_several_units_say_so(tmp_path: Path) -> None:
    channels = channel_table(2, types=("mag", "grad"), units=("T", "T/m"))
    write_signal(tmp_path, signal(700, 2), channels=channels)
    data = open_signals(tmp_path / NAME)
    assert data["signal"].attrs["units"] == "see channel_unit"
    assert data["channel_unit"].to_numpy().tolist() == ["T", "T/m"]


def test_tokens_have_the_time_of_their_frames(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 256, (630, 6, 3)).astype(np.uint8)
    write_tokens(tmp_path, codes)
    data = open_tokens(tmp_path / NAME)
    assert data["codes"].dims == ("frame", "quantizer", "channel")
    np.testing.assert_array_equal(data["codes"], codes)
    assert float(data["time"][1]) == pytest.approx(0.24)
    assert float(data["time"][625]) == 150.0
    assert data["frame_segment"].to_numpy()[[0, 624, 625, 629]].tolist() == [0, 0, 1, 1]
    assert data["codes"].sel(channel="MEG001").shape == (630, 6)


def test_the_other_kind_is_refused(tmp_path: Path) -> None:
    write_tokens(tmp_path, np.zeros((5, 6, 3), np.uint8))
    with pytest.raises(ConfigError, match="not a group of signal"):
        open_signals(tmp_path / NAME)
    with pytest.raises(ConfigError, match="no such group"):
        open_tokens(tmp_path / "sub-02_meg.zarr")
