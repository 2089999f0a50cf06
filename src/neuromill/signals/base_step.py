"""What all steps of a preparation have in common."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from neuromill.records import Config

Hz = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
LARGEST_VOLTS = 0.1
"""No electrode gives more; a larger number was meant as microvolts."""


def _in_volts(value: float) -> float:
    if value > LARGEST_VOLTS:
        raise ValueError(
            f"{value:g} V is no amplitude of an electrode; the unit is volts: {value:g} uV is {value:g}e-6"
        )
    return value


Volts = Annotated[float, Field(gt=0, allow_inf_nan=False), AfterValidator(_in_volts)]


class BaseStep(Config):
    """What all steps have in common.

    Attributes
    ----------
    code_version
        Part of the identity of what the step makes: raise it when the same settings give other numbers.
    streams
        Whether the step can run on blocks of a recording.
    """

    code_version: ClassVar[str] = "1"
    streams: ClassVar[bool] = True
