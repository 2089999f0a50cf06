"""Progress bars on standard error; plain lines where it is no terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from neuromill.cli.output import plain

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from rich.progress import TaskID

SECONDS_BETWEEN_LINES = 10.0


class Bars:
    """A ``stages.report.Report`` that draws rich bars."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(), TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=Console(stderr=True),
        )  # fmt: skip
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, task: str, total: float, unit: str) -> None:
        """Begin a bar."""
        self._task = self._progress.add_task(task, total=total, unit=unit, note="")

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Move the bar."""
        if self._task is not None:
            self._progress.advance(self._task, amount)
            if note:
                self._progress.update(self._task, note=plain(note))

    def end(self, note: str = "") -> None:
        """Leave the bar as it stands, with a note."""
        if self._task is not None:
            self._progress.update(self._task, note=plain(note))
            self._task = None

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(plain(text), markup=False, highlight=False)


class Lines:
    """A ``stages.report.Report`` for logs: one line at the begin, at most one every ten seconds, one at the end."""

    def __init__(self) -> None:
        self._task, self._done, self._total, self._unit, self._last = "", 0.0, 0.0, "", 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def begin(self, task: str, total: float, unit: str) -> None:
        """Write the first line."""
        self._task, self._done, self._total, self._unit, self._last = task, 0.0, total, unit, time.monotonic()
        self.say(f"{task}: {total:g} {unit}")

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Write a line if the last one is old."""
        self._done += amount
        if time.monotonic() - self._last > SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            self.say(f"{self._task}: {self._done:g}/{self._total:g} {self._unit} {note}".rstrip())

    def end(self, note: str = "") -> None:
        """Write the last line."""
        self.say(f"{self._task}: done. {note}".rstrip(". ") + ".")

    def say(self, text: str) -> None:
        """Write a line."""
        tell(text)


def tell(text: str) -> None:
    """Write a line on standard error; above the bars, where there are some."""
    sys.stderr.write(plain(text) + "\n")
    sys.stderr.flush()


def open_report() -> Bars | Lines:
    """Bars on a terminal, lines elsewhere."""
    return Bars() if sys.stderr.isatty() else Lines()
