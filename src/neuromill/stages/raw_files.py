"""The raw files of one recording: fetched whole into the cache, or, of large ones, only the parts that are read."""

from __future__ import annotations

from contextlib import closing
from hashlib import sha256
from typing import TYPE_CHECKING

from neuromill.records import FailureCode, FileState, RecordingError, SpikeLayout
from neuromill.sources.protocol import RangedSource

if TYPE_CHECKING:
    from pathlib import Path

    from neuromill.records import Recording, SourceFile
    from neuromill.stages.work import WorkContext

ZARR_SUFFIX = ".zarr"  # an asset of many small objects that no cache of files can hold
_ATTEMPTS = 8  # as many workers may drop one file before it is linked


def ensure_raw(context: WorkContext, recording: Recording) -> None:
    """Bring every member into the raw cache, or check it where it already lies.

    Raises
    ------
    RecordingError
        ``unreachable_upstream`` where the archive lost a member, and whatever the source raises.
    """
    _require_available(recording)
    source, cache = context.source(recording.id.dataset), context.raw_cache()
    for member in recording.members:
        if is_streamed(context, recording, member):
            _extract(context, recording, member)
        else:
            cache.ensure(source, member)


def lay_out_raw(context: WorkContext, recording: Recording, folder: Path) -> None:
    """Fetch what is missing and link each member before the next is fetched.

    With ``keep_raw: false`` another worker drops what it has prepared, which may be a file that several recordings
    share (or that merely has the same content, as sidecars have): what is linked stays.
    """
    _require_available(recording)
    for member in recording.members:
        for attempt in range(_ATTEMPTS):
            try:
                _lay_out(context, recording, member, folder)
                break
            except RecordingError as error:  # dropped in the moment between the two
                if error.code is not FailureCode.MISSING_MEMBER or attempt == _ATTEMPTS - 1:
                    raise


def _lay_out(context: WorkContext, recording: Recording, member: SourceFile, folder: Path) -> None:
    cache = context.raw_cache()
    if is_streamed(context, recording, member):
        cache.link(_extract(context, recording, member), folder / member.path)
        return
    cache.ensure(context.source(recording.id.dataset), member)
    cache.materialise([member], folder)


def has_raw(context: WorkContext, recording: Recording) -> bool:
    """Whether every member, or what is kept of it, is in the raw cache."""
    cache = context.raw_cache()
    return all(
        cache.derived(_extract_name(context, recording, member)) is not None
        if is_streamed(context, recording, member)
        else cache.find(member) is not None
        for member in recording.members
    )


def drop_raw(context: WorkContext, recording: Recording) -> None:
    """Forget the raw files of a recording."""
    cache = context.raw_cache()
    whole = [member for member in recording.members if not is_streamed(context, recording, member)]
    cache.drop(whole)
    for member in recording.members:
        if is_streamed(context, recording, member):
            cache.forget(_extract_name(context, recording, member))


def is_streamed(context: WorkContext, recording: Recording, member: SourceFile) -> bool:
    """Whether only the needed parts of a member are read: the card says so, or it is a Zarr asset of an archive.

    Never of a folder on this machine, whose files are read where they are.
    """
    origin = context.origin(recording.id.dataset)
    return origin.archive != "local" and (origin.fetch == "stream" or member.path.endswith(ZARR_SUFFIX))


def layout_of(context: WorkContext, recording: Recording) -> SpikeLayout:
    """Return the layout that the card of the recording declares, or the one that reads any standard file."""
    return context.origin(recording.id.dataset).layout or SpikeLayout()


def _extract(context: WorkContext, recording: Recording, member: SourceFile) -> Path:
    source, layout = context.source(recording.id.dataset), layout_of(context, recording)
    if not isinstance(source, RangedSource) or layout.format != "nwb":
        raise RecordingError(
            FailureCode.UNSUPPORTED_FORMAT,
            "only NWB files of an archive that serves ranges can be read in part",
            where=member.path,
            next_step="take `fetch: stream` out of its card; a Zarr asset needs a layout of NWB",
        )

    def make(to: Path) -> None:
        if member.path.endswith(ZARR_SUFFIX):
            _extract_objects(source, member, layout, to)
            return
        try:
            _extract_stream(source, member, layout, to)
        except RecordingError as error:
            if error.code is not FailureCode.DIGEST_MISMATCH:
                raise
            _extract_stream(source, member, layout, to)  # what was altered on the way may come whole the next time

    return context.raw_cache().derive(_extract_name(context, recording, member), make)


def _extract_objects(source: RangedSource, member: SourceFile, layout: SpikeLayout, to: Path) -> None:
    """Draw from a Zarr asset, each of whose objects is checked as it comes."""
    from neuromill.readers.extract import extract_nwb
    from neuromill.readers.zarr_tree import open_zarr

    with source.open_objects(member) as objects, closing(open_zarr(objects, member.path)) as tree:
        extract_nwb(tree, layout, to)


def _extract_stream(source: RangedSource, member: SourceFile, layout: SpikeLayout, to: Path) -> None:
    """Draw from a file of an archive, and read all that was used once more before it counts."""
    from neuromill.readers.extract import extract_nwb
    from neuromill.readers.trees import open_hdf5

    with source.open_stream(member) as remote:
        try:
            with closing(open_hdf5(remote, member.path)) as tree:
                extract_nwb(tree, layout, to)
        except RecordingError:
            remote.verify()  # bytes that went wrong on the line look like a damaged file
            raise
        remote.verify()


def _extract_name(context: WorkContext, recording: Recording, member: SourceFile) -> str:
    """Name an extract by what it is drawn from, by what is drawn, and by the code that draws."""
    from neuromill.readers.extract import EXTRACT_CODE

    drawn = layout_of(context, recording).digest
    named = f"{member.digest or member.locator}|{member.size}|{drawn}|{EXTRACT_CODE}"
    return "extract-" + sha256(named.encode()).hexdigest()


def _require_available(recording: Recording) -> None:
    lost = [member.path for member in recording.members if member.state is FileState.LOST]
    if lost:
        raise RecordingError(
            FailureCode.UNREACHABLE_UPSTREAM,
            f"the archive lost {len(lost)} of its {len(recording.members)} files",
            where=lost[0],
            next_step="tell the archive; `neuromill catalog refresh` once the file is back",
        )
