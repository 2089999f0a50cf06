"""Whether a tokenizer may be published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuromill.tokenizers.config import GateConfig
    from neuromill.tokenizers.metrics import Quality
    from neuromill.tokenizers.usage import Usage


@dataclass(frozen=True, slots=True)
class GateProblem:
    """One reason not to publish: level (None for the tokenizer as a whole), what was measured, what is asked."""

    level: int | None
    measure: str
    value: float
    bound: float

    def __str__(self) -> str:
        place = "tokenizer" if self.level is None else f"level {self.level}"
        side = "above" if self.measure == "dominant_share" else "below"
        return f"{place}: {self.measure} {self.value:.3g} is {side} {self.bound:.3g}"


def check_gate(usage: Usage, config: GateConfig, *, correlation: float | None = None) -> tuple[GateProblem, ...]:
    """List every reason not to publish a tokenizer with this codebook usage; an empty tuple opens the gate.

    Parameters
    ----------
    usage
        Counts over held-out windows.
    config
        Thresholds, applied to each level.
    correlation
        Mean correlation of reconstruction and input on the same windows, if it was measured.
    """
    problems = []
    if usage.n_frames < config.min_frames:
        problems.append(GateProblem(None, "frames", usage.n_frames, config.min_frames))
    if config.min_correlation is not None:
        measured = float("nan") if correlation is None else correlation
        if not measured >= config.min_correlation:  # a NaN does not pass either
            problems.append(GateProblem(None, "correlation", measured, config.min_correlation))
    for level in range(len(usage.counts)):
        problems += _level_problems(level, usage, config)
    return tuple(problems)


def judge(quality: Quality, config: GateConfig) -> tuple[GateProblem, ...]:
    """``check_gate`` on what was measured on held-out windows, and whether rows differ in their code sequences."""
    problems = list(check_gate(quality.usage, config, correlation=quality.correlation))
    for level, distinct in enumerate(quality.distinct):
        bounds = (
            ("distinct_sequences", distinct, config.min_distinct_sequences),
            ("distinct_share", distinct / max(quality.n_rows, 1), config.min_distinct_share),
        )
        problems += [GateProblem(level, name, value, bound) for name, value, bound in bounds if value < bound]
    return tuple(problems)


def _level_problems(level: int, usage: Usage, config: GateConfig) -> list[GateProblem]:
    n_codes = usage.counts.shape[1]
    at_least = (
        (
            "perplexity",
            float(usage.perplexity[level]),
            max(config.min_perplexity_share * n_codes, config.min_perplexity),
        ),
        ("used_share", float(usage.used_share[level]), config.min_used_share),
        ("codes", float(usage.used_codes[level]), config.min_codes),
    )
    problems = [GateProblem(level, name, value, bound) for name, value, bound in at_least if value < bound]
    dominant = float(usage.dominant_share[level])
    if dominant > config.max_dominant_share:
        problems.append(GateProblem(level, "dominant_share", dominant, config.max_dominant_share))
    return problems
