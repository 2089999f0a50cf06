"""What people see: names of runs, the plan before, the table after, progress in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuromill.cli.output import size

if TYPE_CHECKING:
    import logging
    from collections.abc import Mapping, Sequence

    from neuromill.stages.outcomes import StageResult
    from neuromill_flows.work import StageWork

MAX_LISTED = 20


def run_name(flow_name: str, parameters: Mapping[str, object]) -> str:
    """Name a flow run: flow, pipeline, and the selection where there is one."""
    selection = _as_mapping(parameters.get("selection"))
    pipeline = str(parameters.get("pipeline", "")).rsplit("/", 1)[-1].removesuffix(".yaml")
    parts = [flow_name, pipeline]
    if data := selection.get("data"):
        parts.append(f"from {data}")
    if where := selection.get("where"):
        parts.append(f"where {where}")
    if part := _as_mapping(selection.get("part")):
        parts.append(f"part {part['index']}/{part['count']}")
    if until := parameters.get("until"):
        parts.append(f"until {until}")
    return " ".join(parts)[:200]


def _as_mapping(value: object) -> Mapping[str, object]:
    if isinstance(value, dict):
        return value
    if hasattr(value, "model_dump"):
        dumped: dict[str, object] = value.model_dump(mode="json")
        return dumped
    if hasattr(value, "index") and hasattr(value, "count") and not isinstance(value, str):
        return {"index": value.index, "count": value.count}
    return {}


def plan_markdown(work: StageWork) -> str:
    """Markdown of a plan: what is found, done, failed and left, before anything is fetched."""
    plan = work.plan
    counts = f"{plan.found} | {len(plan.done)} | {len(plan.failed)} | {len(plan.todo)}"
    lines = [
        f"# Plan: {plan.stage}",
        "",
        f"Identity `{plan.identity}`",
        "",
        "| found | done | failed for good | to do | bytes to do | shards |",
        "|---:|---:|---:|---:|---:|---:|",
        f"| {counts} | {size(plan.bytes_to_do)} | {len(work.jobs)} |",
    ]
    if plan.failed:
        lines += ["", "| failed because of | recordings |", "|---|---:|"]
        lines += [f"| {code} | {count} |" for code, count in sorted(plan.failures_by_code.items())]
    if plan.todo:
        lines += ["", "First to do:", ""]
        lines += [f"- `{item.recording.id}`" for item in plan.todo[:MAX_LISTED]]
        lines += [f"- and {len(plan.todo) - MAX_LISTED} more"] if len(plan.todo) > MAX_LISTED else []
    return "\n".join(lines)


def summary_markdown(results: Sequence[StageResult], problems: Sequence[str] = ()) -> str:
    """Markdown of what became of one or more stages."""
    lines = [
        "# Result",
        "",
        "| stage | identity | found | done before | done now | failed now | bytes | seconds | note |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    lines += [
        f"| {r.stage} | `{r.identity}` | {r.found} | {r.already_done} | {r.done} | {r.failed} "
        f"| {size(r.bytes_out)} | {r.seconds:.1f} | {r.note} |"
        for r in results
    ]
    if problems:
        lines += ["", "## Shards that failed", ""]
        lines += [f"- {problem}" for problem in problems[:MAX_LISTED]]
        lines += [f"- and {len(problems) - MAX_LISTED} more"] if len(problems) > MAX_LISTED else []
    return "\n".join(lines)


class LogReport:
    """A stage's progress as log lines: at most one per tenth of a task, so that a shard of 256 writes about ten."""

    def __init__(self, logger: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
        self._logger = logger
        self._task, self._unit, self._total, self._done, self._tenths = "", "", 0.0, 0.0, 0

    def begin(self, task: str, total: float, unit: str) -> None:
        """Log the begin of a task."""
        self._task, self._unit, self._total, self._done, self._tenths = task, unit, total, 0.0, 0
        self._logger.info("%s: %g %s", task, total, unit)

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Count; log when another tenth is done."""
        self._done += amount
        tenths = int(10 * self._done / self._total) if self._total else 0
        if tenths > self._tenths:
            self._tenths = tenths
            self._logger.info("%s: %g of %g %s %s", self._task, self._done, self._total, self._unit, note)

    def end(self, note: str = "") -> None:
        """Log the end of a task."""
        self._logger.info("%s: ended %s", self._task, note)

    def say(self, text: str) -> None:
        """Log a fact."""
        self._logger.info("%s", text)
