"""Settings of this machine: where things lie and how many workers there are. Never part of an identity."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from neuromill.records import Config, ConfigError
from neuromill.sources.opening import Endpoints

MAX_SECONDS = 1e9  # 30 years; what waits for a moment cannot count further
_CHECK = "check the NEUROMILL_* variables"


class EngineKind(StrEnum):
    """What drives the recordings of a shard."""

    PROCESSES = "processes"
    DASK = "dask"
    SERIAL = "serial"


class EngineSettings(Config):
    """How the recordings of a shard are driven.

    ``workers`` 0 means one per core. ``threads_per_worker`` caps BLAS, FFT and torch threads: uncapped, every
    worker starts one thread per core and they starve each other. ``dask_address`` empty starts a local cluster.
    ``recording_seconds`` is how long a worker process may be at one stage of one recording (0: for ever); one that is
    longer at it hangs, and is ended. Only the engine ``processes`` keeps it.
    """

    kind: EngineKind = EngineKind.PROCESSES
    workers: int = Field(default=0, ge=0)
    threads_per_worker: int = Field(default=1, ge=1)
    dask_address: str = ""
    recording_seconds: float = Field(default=86_400.0, ge=0, le=MAX_SECONDS, allow_inf_nan=False)

    @property
    def n_workers(self) -> int:
        """Number of workers, 0 resolved."""
        return self.workers or os.cpu_count() or 1


class ShardSettings(Config):
    """How much work one task run carries (measured reasons: docs/decisions/0002-shards.md)."""

    max_recordings: int = Field(default=256, ge=1)
    max_bytes: int = Field(default=64 * 2**30, ge=1)
    max_failed_share: float = Field(default=0.5, ge=0, le=1)


class Settings(BaseSettings):
    """Read from ``NEUROMILL_*`` variables (``NEUROMILL_ENGINE__WORKERS=4``) and from the CLI.

    ``listing_seconds`` is how long an archive is waited for that is asked what a dataset holds.
    """

    model_config = SettingsConfigDict(
        env_prefix="NEUROMILL_", env_nested_delimiter="__", extra="ignore", frozen=True, validate_default=True
    )

    home: Path = Field(default_factory=lambda: Path.home() / ".neuromill")
    ledger_url: str = ""
    catalogs: tuple[Path, ...] = ()
    engine: EngineSettings = EngineSettings()
    shards: ShardSettings = ShardSettings()
    endpoints: Endpoints = Endpoints()
    listing_seconds: float = Field(default=600.0, gt=0, le=MAX_SECONDS, allow_inf_nan=False)

    @classmethod
    def at(cls, home: Path | None = None, **changes: object) -> Self:
        """Read the environment, replace ``home`` and other fields where given, make ``home`` absolute.

        Raises
        ------
        ConfigError
            A variable of the environment, or a field given, has a value that cannot be.
        """
        given = {key: value for key, value in {"home": home, **changes}.items() if value is not None}
        try:
            settings = cls(**given)  # type: ignore[arg-type]
        except ValidationError as error:
            from neuromill.stages.pipeline import describe

            raise ConfigError(describe(error), where="settings", next_step=_CHECK) from None
        except SettingsError as error:
            raise ConfigError(f"{error}", where="settings", next_step=_CHECK) from None
        return settings.model_copy(update={"home": settings.home.expanduser().absolute()})
