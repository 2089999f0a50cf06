"""The base of every model that is read from YAML."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Frozen pydantic model that refuses unknown keys; units stand in the field names (``segment_seconds``)."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def non_defaults(self) -> dict[str, Any]:
        """Fields that differ from their defaults, as JSON values: what an identity is made of.

        Adding an option with a default therefore never invalidates what is already prepared.
        """
        return self.model_dump(mode="json", exclude_defaults=True)
