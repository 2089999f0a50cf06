"""Real EDF files with single fields of their header changed."""

from collections.abc import Callable, Collection
from pathlib import Path

FIXED = 256
LABEL, DIMENSION, LOW, HIGH = (0, 16), (96, 8), (104, 8), (112, 8)  # offset per signal, width of a cell


def rewrite(
    source: Path,
    to: Path,
    field: tuple[int, int],
    change: Callable[[str], str],
    signals: Collection[int] | None = None,
) -> Path:
    """Copy an EDF file and change one field of every signal, or of these, that is no annotation."""
    content = bytearray(source.read_bytes())
    n_signals = int(content[252:256])
    offset, width = field
    for signal in range(n_signals):
        label = content[FIXED + 16 * signal : FIXED + 16 * (signal + 1)].decode("latin-1").strip()
        start = FIXED + offset * n_signals + width * signal
        if label != "EDF Annotations" and (signals is None or signal in signals):
            text = change(content[start : start + width].decode("latin-1").strip())
            assert len(text) <= width
            content[start : start + width] = text.ljust(width).encode("latin-1")
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(content)
    return to


def scaled(source: Path, to: Path, factor: float, signals: Collection[int] | None = None) -> Path:
    """Copy an EDF file with its physical range, and so every value, multiplied; the unit stays what it was.

    Of all signals, or of these.
    """

    def times(text: str) -> str:
        texts = (f"{float(text) * factor:.{digits}g}".replace("e+0", "e").replace("e-0", "e-") for digits in (6, 4, 3))
        return next(text for text in texts if len(text) <= LOW[1])

    rewrite(source, to, LOW, times, signals)
    return rewrite(to, to, HIGH, times, signals)
