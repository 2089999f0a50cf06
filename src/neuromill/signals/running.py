"""Running a planned chain over a recording."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neuromill.records import FailureCode, NeuroMillError, RecordingError
from neuromill.signals.finishing import Finishing
from neuromill.signals.quality import ChainReport, QualityWatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from neuromill.signals.blocks import Read
    from neuromill.signals.chain import Chain
    from neuromill.signals.segments import Segment


class ChainRun:
    """One pass of a chain over a recording: iterate once over its blocks, then ask for the report."""

    def __init__(self, chain: Chain, read: Read) -> None:
        self._chain = chain
        self._source = read
        self._watch = QualityWatch(len(chain.channels))
        self._inputs = QualityWatch(len(chain.picks))  # of what channels are derived from
        self._blocks = self._run()
        self._report: ChainReport | None = None

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Return itself: there is one pass."""
        return self

    def __next__(self) -> NDArray[np.float32]:
        """Return the next block [channel, time], float32."""
        return next(self._blocks)

    @property
    def report(self) -> ChainReport:
        """Bad channels found; there only after the last block, ``NeuroMillError`` before."""
        if self._report is None:
            raise NeuroMillError("the chain has not run to its end", where=self._chain.where)
        return self._report

    def _run(self) -> Iterator[NDArray[np.float32]]:
        chain = self._chain
        read: Read = self._read
        for segment in chain.segments[:-1]:
            read = _held(segment, read, chain.read_length)
        finishing = Finishing(chain.finish, chain.channels, chain.sfreq, chain.where)
        for block in chain.segments[-1].run(read, chain.read_length):
            made = finishing.take(block)
            if made.shape[1]:
                yield made
        known = chain.derivation.bads(self._inputs.found()) if chain.derivation else None
        self._report = finishing.report(self._watch.report(chain.channels, chain.n_times, chain.where, known))

    def _read(self, start: int, stop: int) -> NDArray[np.float64]:
        block = np.asarray(self._source(start, stop), dtype=np.float64)
        if block.shape != (len(self._chain.picks), stop - start):
            raise RecordingError(
                FailureCode.TRUNCATED,
                f"samples {start} to {stop} came as an array of shape {block.shape}",
                where=self._chain.where,
                next_step="fetch the recording again; the file ends before its header says",
            )
        if self._chain.derivation is not None:
            self._inputs.clean(block, start)
            block = self._chain.derivation.of(block)
        return self._watch.clean(block, start)


def run_chain(chain: Chain, read: Read) -> ChainRun:
    """Run ``chain`` over a recording, in bounded memory and with the same bytes every time.

    Parameters
    ----------
    chain
        Made by ``plan_chain`` for this recording.
    read
        ``read(start, stop)`` returns samples [picked channel, time] as float64, the rows in the order of
        ``chain.picks``. Spans are at most ``chain.read_length`` long; spans near the edges are read twice.

    Returns
    -------
    ChainRun
        An iterator of float32 blocks [channel, time] that together are ``chain.n_times`` long, with ``report`` (bad
        channels) after the last block.

    Raises
    ------
    RecordingError
        While iterating: ``truncated`` where ``read`` gives fewer samples than asked for; after the last block,
        ``no_usable_channels`` where no channel is good, ``unit_conflict`` where amplitudes are not as expected.
    """
    return ChainRun(chain, read)


def _held(segment: Segment, read: Read, read_length: int) -> Read:
    """Run a segment to its end and hold its output: only recordings shorter than the reach of the filters."""
    held = np.concatenate(list(segment.run(read, read_length)), axis=1)

    def read_held(start: int, stop: int) -> NDArray[np.float64]:
        return held[:, start:stop]

    return read_held
