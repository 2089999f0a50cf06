"""Open a group as xarray with dask arrays, for people who look at data (training uses ``store.reader``)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.records import ConfigError
from neuromill.records.ticks import bin_edges
from neuromill.store.layout import FORMAT, METADATA_FILE, group_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr


def open_signals(group: str | Path) -> xr.Dataset:
    """Open a prepared recording in physical units, lazily.

    Parameters
    ----------
    group
        ``<recording>.zarr``.

    Returns
    -------
    xarray.Dataset
        ``signal (time, channel)`` float32 in SI units (NaN for channels that are flat or not finite), on the
        coordinates ``time`` (seconds since the first sample), ``channel`` (names), ``channel_type``, ``channel_unit``,
        ``bad`` (reason, "" for good), ``channel_position`` (m) and ``channel_orientation``; events where there are any.

    Raises
    ------
    ConfigError
        If that is not a group of prepared signals.
    """
    stored = _open(group, "signal")
    attributes = dict(stored.attrs)
    signal = (stored["signal"].astype("float32") * stored["channel_scale"] + stored["channel_offset"]).astype("float32")
    units = sorted(set(attributes["channel_units"]))
    signal.attrs = {"units": units[0] if len(units) == 1 else "see channel_unit"}
    data = stored.drop_vars(["channel_scale", "channel_offset"]).assign(signal=signal)
    seconds = np.arange(data.sizes["time"]) / attributes["sfreq"]
    data = data.assign_coords(time=("time", seconds, {"units": "s"}), **_channel_coordinates(attributes))
    if "event_onset" in data:
        data = data.assign_coords(event=("event", attributes["event_descriptions"]))
    return data.set_coords(_sensor_variables(data))


def open_tokens(group: str | Path) -> xr.Dataset:
    """Open the codes of a recording.

    Parameters
    ----------
    group
        ``<recording>.zarr``.

    Returns
    -------
    xarray.Dataset
        ``codes (frame, quantizer, channel)`` and the segment table, on the coordinates ``time`` (seconds at which a
        frame starts), ``segment`` (of each frame, as ``frame_segment``), ``channel`` and sensors as ``open_signals``.

    Raises
    ------
    ConfigError
        If that is not a group of codes.
    """
    stored = _open(group, "tokens")
    attributes = dict(stored.attrs)
    starts, lengths = stored["segment_start_frame"].to_numpy(), stored["segment_n_frames"].to_numpy()
    segment = np.repeat(np.arange(len(starts)), lengths)
    inside = np.arange(stored.sizes["frame"]) - starts[segment]
    samples = segment * attributes["segment_samples"] + inside * attributes["hop_samples"]
    data = stored.assign_coords(
        time=("frame", samples / attributes["sfreq"], {"units": "s"}),
        frame_segment=("frame", segment),
        **_channel_coordinates(attributes),
    )
    return data.set_coords(_sensor_variables(data))


def open_spikes(store: str | Path, recording: str) -> xr.Dataset:
    """Open prepared spikes and behaviour: the plain view, for people who do not want tokens.

    Parameters
    ----------
    store
        Folder of the store identity.
    recording
        Name of the recording.

    Returns
    -------
    xarray.Dataset
        Lazy ``counts (time, unit)`` uint8, ``behaviour (time, covariate)`` float32 in ``covariate_unit`` (the array
        ``covariate``; NaN where not observed), ``covariate_valid``, ``trial_success_mask (time)``, trials; on the
        coordinates ``time`` (seconds at which a bin starts), ``segment`` (-1 where not observed), ``unit`` and
        ``covariate`` (names) with their columns, ``unit_mean_rate`` and ``covariate_scale``. Columns of trials that
        are text are coordinates, too.

    Raises
    ------
    ConfigError
        If that is not a group of prepared spikes.
    """
    stored = _open(Path(store) / group_name(recording), "spikes")
    attributes = dict(stored.attrs)
    if not attributes["covariate_names"]:
        nothing = np.empty((stored.sizes["time"], 0))
        stored = stored.assign(
            covariate=(("time", "covariate"), nothing.astype(np.float32)),
            covariate_valid=(("time", "covariate"), nothing.astype(bool)),
        )
    # xarray keeps the names along a dimension under its name, where the array itself would lie.
    data = stored.rename_vars(covariate="behaviour")
    seconds = bin_edges(attributes["start_seconds"], attributes["bin_seconds"], data.sizes["time"])[:-1]
    text = {name: column for name, column in attributes["trial_columns"].items() if column}
    trials: dict[str, Any] = {f"trial_{name}": ("trial", np.array(column, np.str_)) for name, column in text.items()}
    data = data.assign_coords(
        time=("time", seconds, {"units": "s", "long_name": "start of the bin"}),
        **_unit_coordinates(attributes),
        **trials,
    )
    return data.set_coords([name for name in ("segment", "unit_mean_rate", "covariate_scale") if name in data])


def _open(group: str | Path, kind: str) -> xr.Dataset:
    import xarray as xr

    if not (Path(group) / METADATA_FILE).is_file():
        raise ConfigError("no such group", where=str(group), next_step="see `neuromill shards ls`")
    data: xr.Dataset = xr.open_zarr(str(group), consolidated=False)
    if data.attrs.get("format") != FORMAT or data.attrs.get("kind") != kind:
        raise ConfigError(f"not a group of {kind}", where=str(group), next_step="see `neuromill shards inspect`")
    return data


def _channel_coordinates(attributes: Mapping[str, Any]) -> dict[str, Any]:
    names = attributes["channel_names"]
    bads = [attributes["bads"].get(name, "") for name in names]
    columns = {
        "channel": names,
        "channel_type": attributes["channel_types"],
        "channel_unit": attributes["channel_units"],
        "bad": bads,
    }
    return {name: ("channel", np.array(values, dtype=np.str_)) for name, values in columns.items()}


def _unit_coordinates(attributes: Mapping[str, Any]) -> dict[str, Any]:
    names = attributes["unit_names"]
    is_sorted = {True: "sorted", False: "crossings", None: ""}
    units = {
        "unit": names,
        "unit_electrode": attributes["unit_electrodes"],
        "unit_array": attributes["unit_arrays"],
        "unit_area": attributes["unit_areas"],
        "unit_kind": [is_sorted[one] for one in attributes["unit_is_sorted"]],
        "unit_bad": [attributes["bads"].get(name, "") for name in names],
    }
    covariates = {"covariate": attributes["covariate_names"], "covariate_unit": attributes["covariate_units"]}
    return {
        name: (dim, np.array(values, dtype=np.str_))
        for dim, columns in (("unit", units), ("covariate", covariates))
        for name, values in columns.items()
    }


def _sensor_variables(data: xr.Dataset) -> list[str]:
    return [name for name in ("channel_position", "channel_orientation") if name in data]
