"""What a comparison of tokenizers found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from neuromill.tokenizers.comparison import Band, Fidelity, Rate
    from neuromill.tokenizers.usage import Usage


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """One tokenizer in the table.

    Attributes
    ----------
    resampled
        Whether the windows had to be brought to its rate.
    seen
        Whether it was fitted on one of the recordings that it is compared on.
    amplitude_error
        Where a tokenizer has a codebook of its own for spectra: share of the variation of the magnitudes of patches
        that is wrong, by codebook (``frequency``, ``temporal``) and band; {} elsewhere.
    encode_speed
        Seconds of signal times channels that were encoded in a second, measured here: it depends on the machine.
    """

    name: str
    kind: str
    source: str
    digest: str
    sfreq: float
    n_quantizers: int
    codebook_size: int
    n_parameters: int
    resampled: bool
    seen: bool
    rate: Rate
    fidelity: Fidelity
    usage: Usage
    encode_speed: float
    amplitude_error: dict[str, dict[str, float]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        plain = ("name", "kind", "source", "digest", "sfreq", "n_quantizers", "codebook_size", "n_parameters")
        return {
            **{name: getattr(self, name) for name in plain},
            "resampled": self.resampled,
            "fitted_on_these_recordings": self.seen,
            "bits_per_second_per_channel": round(self.rate.nominal, 3),
            "entropy_bits_per_second_per_channel": round(self.rate.entropy, 3),
            "scale_bits_per_second_per_channel": round(self.rate.scale, 3),
            "correlation": round(self.fidelity.correlation, 4),
            "si_sdr_db": round(self.fidelity.si_sdr_db, 3),
            "band_error": {name: round(value, 4) for name, value in self.fidelity.band_error.items()},
            "band_level_db": {name: round(value, 2) for name, value in self.fidelity.band_level_db.items()},
            "amplitude_error": {
                codebook: {name: round(value, 4) for name, value in bands.items()}
                for codebook, bands in self.amplitude_error.items()
            },
            "usage": self.usage.summary() | {"used_codes": self.usage.used_codes.tolist()},
            "encode_speed_on_this_machine": round(self.encode_speed, 1),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A channel of a window and what each tokenizer makes of it, in the domain of the comparison.

    Attributes
    ----------
    original
        float64 [time]; mean 0 and deviation 1 over the whole window.
    reconstructions
        One per tokenizer, float64 [time].
    """

    recording: str
    channel: str
    start_seconds: float
    original: NDArray[np.float64]
    reconstructions: tuple[NDArray[np.float64], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """What came out.

    Attributes
    ----------
    split
        Of the windows; ``train`` where nothing is held out.
    n_rows, n_left_out
        Channels of windows that every tokenizer is scored on, and those left out: bad, rejected by the preparation,
        constant, or without codes of one of the tokenizers.
    n_threads, device
        What the speeds were measured on.
    """

    pipeline: str
    split: str
    recordings: tuple[str, ...]
    refused: tuple[str, ...]
    n_windows: int
    window_seconds: float
    sfreq: float
    band: Band
    n_rows: int
    n_left_out: int
    n_threads: int
    device: str
    tokenizers: tuple[Compared, ...]
    shown: Shown

    def as_dict(self) -> dict[str, Any]:
        """JSON values, the picture aside."""
        plain = ("pipeline", "split", "n_windows", "window_seconds", "sfreq", "n_rows", "n_left_out")
        return {
            **{name: getattr(self, name) for name in plain},
            "recordings": list(self.recordings),
            "refused": list(self.refused),
            "band_hz": [self.band.low, self.band.high],
            "speed_measured_on": {"device": self.device, "threads": self.n_threads},
            "tokenizers": [one.as_dict() for one in self.tokenizers],
        }
