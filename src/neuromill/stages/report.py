"""How a stage tells whoever watches how far it is. The CLI draws bars from it, Prefect logs it, tests ignore it."""

from __future__ import annotations

from typing import Protocol


class Report(Protocol):
    """Told about one task after the other; calls come from one thread."""

    def begin(self, task: str, total: float, unit: str) -> None:
        """Begin a task of ``total`` units (recordings, steps, bytes)."""

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Report that ``amount`` more units of the current task are done."""

    def end(self, note: str = "") -> None:
        """End the current task."""

    def say(self, text: str) -> None:
        """Tell a fact that is no progress: what was refused, adopted or skipped."""


class Silent:
    """Says nothing."""

    def begin(self, task: str, total: float, unit: str) -> None:
        """Do nothing."""

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Do nothing."""

    def end(self, note: str = "") -> None:
        """Do nothing."""

    def say(self, text: str) -> None:
        """Do nothing."""
