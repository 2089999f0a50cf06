"""The door for spikes: a recording whose files are on disk in, units, spike times and behaviour on one clock out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuromill.readers.members import check_members

if TYPE_CHECKING:
    from pathlib import Path

    from neuromill.readers.spike_protocol import SpikeRecording
    from neuromill.readers.trees import Tree
    from neuromill.records import Recording, SpikeLayout


def open_spikes(recording: Recording, root: Path, layout: SpikeLayout) -> SpikeRecording:
    """Open a recording of spikes; spike times stay in the file until they are asked for.

    Parameters
    ----------
    recording
        What to open; its members lie at ``root / member.path``. An NWB recording is a file (HDF5), or a folder (Zarr
        v2).
    root
        Folder of the dataset, or of a tree of links with the dataset's paths.
    layout
        Where things are in the file.

    Raises
    ------
    RecordingError
        ``missing_member, empty, truncated, unreadable, unsupported_format, missing_fact, no_spikes, no_covariates,
        no_usable_channels, bad_timestamps``: see ``docs/failures``.
    """
    check_members(recording, root)
    path, where = root / recording.path, recording.path
    if layout.format == "odoherty":
        from neuromill.readers.odoherty_mat import open_odoherty

        return open_odoherty(path, where, layout)
    if layout.format == "flint":
        from neuromill.readers.flint_mat import open_flint

        return open_flint(path, where, layout)
    from neuromill.readers.nwb_file import open_nwb

    return open_nwb(open_tree(path, where), layout)


def open_tree(path: Path, where: str) -> Tree:
    """Open an HDF5 file or a folder that is a Zarr v2 group as a tree."""
    if path.is_dir():
        from neuromill.readers.zarr_tree import FolderStore, open_zarr

        return open_zarr(FolderStore(path), where)
    from neuromill.readers.trees import open_hdf5

    return open_hdf5(path, where)
