import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from neuromill.records import ConfigError
from neuromill.store.looking import open_signals, open_spikes
from support.spikes import NAME, behaviour, spike_counts, spike_tokens, write_spike_tokens, write_spikes


@pytest.mark.parametrize("kind", ["spikes", "spike_tokens"])
def test_plain_xarray_opens_both_kinds(tmp_path: Path, kind: str) -> None:
    if kind == "spikes":
        write_spikes(tmp_path, spike_counts(7000, 4))
    else:
        write_spike_tokens(tmp_path, spike_tokens(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = xr.open_zarr(tmp_path / f"{NAME}.zarr", consolidated=False)
    if kind == "spikes":
        assert dict(data.sizes) == {"time": 7000, "unit": 4, "covariate": 2, "trial": 2}
        assert data["counts"].dtype == np.uint8
        assert data["counts"].chunks == ((3000, 3000, 1000), (4,))
        assert data["covariate_valid"].dtype == bool
        assert data["trial_start"].attrs["units"] == "s"
        np.testing.assert_array_equal(data["covariate"], behaviour(7000).values)
    else:
        np.testing.assert_array_equal(data["patches"], spike_tokens(4).patches)


def test_spikes_have_seconds_names_and_units(tmp_path: Path) -> None:
    counts = spike_counts(7000, 4)
    write_spikes(tmp_path, counts, start_seconds=0.06)
    data = open_spikes(tmp_path, NAME)
    assert data["counts"].dims == ("time", "unit")
    assert data["behaviour"].dims == ("time", "covariate")
    assert data["counts"].chunks is not None  # lazy
    assert data["time"].attrs["units"] == "s"
    assert data["time"].to_numpy()[[0, 26, 6999]].tolist() == [0.06, 0.58, 140.04]
    assert data["unit"].to_numpy().tolist() == ["unit0", "unit1", "unit2", "unit3"]
    assert data["unit_kind"].to_numpy().tolist() == ["sorted", "crossings", "crossings", ""]
    assert data["unit_bad"].to_numpy().tolist() == ["", "", "", "non_finite"]
    assert data["unit_mean_rate"].attrs["units"] == "Hz"
    assert data["behaviour"].attrs["units"] == "m/s"
    assert data["covariate_unit"].to_numpy().tolist() == ["m/s", "m/s"]
    assert data["trial_result"].to_numpy().tolist() == ["R", "F"]
    window = data.sel(time=slice(1.0, 1.999), covariate="cursor_vel_y", unit=["unit2"])
    np.testing.assert_array_equal(window["counts"][:, 0], counts[47:97, 2])
    np.testing.assert_array_equal(window["behaviour"], behaviour(7000).values[47:97, 1])
    on_m1 = data["counts"].isel(unit=(data["unit_array"] == "M1").to_numpy())
    assert on_m1.sizes["unit"] == 2
    assert int((data["segment"] == -1).sum()) == 5


def test_spikes_without_behaviour(tmp_path: Path) -> None:
    write_spikes(tmp_path, spike_counts(100, 4), n_covariates=0)
    data = open_spikes(tmp_path, NAME)
    assert dict(data.sizes) == {"time": 100, "unit": 4, "covariate": 0, "trial": 2}
    assert data["behaviour"].shape == (100, 0)


def test_the_other_kind_is_refused(tmp_path: Path) -> None:
    write_spikes(tmp_path, spike_counts(100, 4))
    with pytest.raises(ConfigError, match="not a group of signal"):
        open_signals(tmp_path / f"{NAME}.zarr")
    with pytest.raises(ConfigError, match="no such group"):
        open_spikes(tmp_path, "other")
