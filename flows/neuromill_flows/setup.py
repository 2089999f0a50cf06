"""``neuromill flows setup``: one idempotent command that makes a Prefect server fit for NeuroMill."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from prefect.automations import AutomationCore, EventTrigger, Posture, ResourceSpecification
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.workers.process import ProcessWorker

from neuromill_flows.deployments import WORK_POOL, DeploymentSpec, ready_deployments
from neuromill_flows.environment import ENVIRONMENT, SERVER
from neuromill_flows.profile import api_url, wanted_profile, write_profile
from neuromill_flows.running import archive_limit_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.deployments.runner import RunnerDeployment

AUTOMATION = "neuromill: no heartbeat, so crashed"
# Three heartbeats of 30 s. Without it a run whose process and worker are both killed stays Running for ever.
CRASH_AFTER_SECONDS = 90
# Archives that cards name and that are read over the network; two shards at a time each, over all flow runs.
ARCHIVES = ("openneuro", "dandi", "osf", "huggingface", "radboud", "physionet")
ARCHIVE_SLOTS = 2
SIGNS_OF_LIFE = ("heartbeat", "Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended")


class Change(StrEnum):
    """What a step did; in a dry run, what it would do."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that setup looked at."""

    what: str
    change: Change
    detail: str = ""


def set_up(*, dry_run: bool = False, schedule: bool = False, given: Collection[str] | None = None) -> Iterator[Step]:
    """Yield one step after the other: profile, environment, server, work pool, automation, limits, deployments.

    A second run changes nothing. What a person tuned in the UI stays: the slots of a limit, a schedule that is on
    or off, a disabled automation.

    Parameters
    ----------
    dry_run
        Change nothing.
    schedule
        Switch the schedules of the work pool on. Else they are made switched off: with no worker their runs are
        only Late, and `flows serve` has a schedule of its own.
    given
        Names of the environment variables to check against; None are those of this process.
    """
    url = api_url()
    yield _profile(dry_run=dry_run)
    yield from _environment(os.environ.keys() if given is None else given)
    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        if client.api_healthcheck() is not None:
            yield Step(f"server {url}", Change.MISSING, "start it with `prefect server start`, then run setup again")
            return
        yield _server(client, url)
        yield _work_pool(client, dry_run=dry_run)
        yield _automation(client, dry_run=dry_run)
        for archive in ARCHIVES:
            yield _archive_limit(client, archive, dry_run=dry_run)
        for spec in ready_deployments():
            yield _deployment(client, spec, schedule=schedule, dry_run=dry_run)


def _profile(*, dry_run: bool) -> Step:
    name, missing = wanted_profile()
    if not missing:
        return Step(f"profile {name}", Change.UNCHANGED)
    if not dry_run:
        write_profile(name, missing)
    return Step(f"profile {name}", Change.UPDATED, ", ".join(f"{key}={value}" for key, value in missing.items()))


def _environment(given: Collection[str]) -> Iterator[Step]:
    for setting in ENVIRONMENT:
        if setting.name in given:
            yield Step(f"variable {setting.name}", Change.UNCHANGED)
        else:
            yield Step(
                f"variable {setting.name}", Change.MISSING, f"export {setting.name}={setting.value}: {setting.why}"
            )


def _server(client: SyncPrefectClient, url: str) -> Step:
    """Compare what the running server goes by with what it should: a profile is read when a server starts."""
    in_force = client.request("GET", "/admin/settings").json()
    wrong = [
        f"{setting.name}={setting.value}"
        for setting in SERVER
        if setting.shown_at and _plain(_at(in_force, setting.shown_at)) != setting.value
    ]
    if wrong:
        return Step(f"server {url}", Change.MISSING, f"restart it; it runs without {', '.join(wrong)}")
    return Step(f"server {url}", Change.UNCHANGED)


def _at(document: dict[str, Any], path: str) -> object:
    value: Any = document
    for key in path.split("."):
        value = value[key]
    return value


def _plain(value: object) -> str:
    """``1.0`` and ``1``, ``False`` and ``false`` are the same setting."""
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def _work_pool(client: SyncPrefectClient, *, dry_run: bool) -> Step:
    what = f"work pool {WORK_POOL}"
    try:
        client.read_work_pool(WORK_POOL)
    except ObjectNotFound:
        if not dry_run:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process", base_job_template=template))
        return Step(what, Change.CREATED, "type process")
    return Step(what, Change.UNCHANGED)


def crash_automation() -> AutomationCore:
    """Return the automation that ends runs nobody keeps alive: no heartbeat for 90 s, so Crashed."""
    return AutomationCore(
        name=AUTOMATION,
        description="A flow run that sent a heartbeat and then nothing for 90 s lost its process: mark it Crashed.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={f"prefect.flow-run.{sign}" for sign in SIGNS_OF_LIFE},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=CRASH_AFTER_SECONDS),
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                force=False,
                state=StateType.CRASHED,
                message=f"No heartbeat for {CRASH_AFTER_SECONDS} s: its process is gone. Run it again.",
            )
        ],
    )


def _automation(client: SyncPrefectClient, *, dry_run: bool) -> Step:
    what, wanted = f"automation {AUTOMATION!r}", crash_automation()
    found = client.read_automations_by_name(AUTOMATION)
    if not found:
        if not dry_run:
            client.create_automation(wanted)
        return Step(what, Change.CREATED, f"after {CRASH_AFTER_SECONDS} s")
    if _essence(found[0]) == _essence(wanted):
        return Step(what, Change.UNCHANGED)
    if not dry_run:
        client.update_automation(found[0].id, wanted.model_copy(update={"enabled": found[0].enabled}))
    return Step(what, Change.UPDATED, f"after {CRASH_AFTER_SECONDS} s")


def _essence(automation: Any) -> tuple[object, ...]:
    trigger = automation.trigger
    return (
        trigger.after,
        trigger.expect,
        trigger.for_each,
        trigger.posture,
        trigger.within,
        [(action.type, action.state, action.message) for action in automation.actions],
    )


def _archive_limit(client: SyncPrefectClient, archive: str, *, dry_run: bool) -> Step:
    name = archive_limit_name(archive)
    try:
        limit = client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        if not dry_run:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=ARCHIVE_SLOTS))
        return Step(f"limit {name}", Change.CREATED, f"{ARCHIVE_SLOTS} shards at a time")
    return Step(f"limit {name}", Change.UNCHANGED, f"{limit.limit} shards at a time")


def _deployment(client: SyncPrefectClient, spec: DeploymentSpec, *, schedule: bool, dry_run: bool) -> Step:
    what = f"deployment {spec.full_name}"
    try:
        found = client.read_deployment_by_name(spec.full_name)
    except ObjectNotFound:
        found = None
    is_on = found is not None and any(each.active for each in found.schedules) and not found.paused
    wanted = spec.to_prefect(WORK_POOL, active=schedule or is_on)
    detail = _schedule_detail(spec, on=schedule or is_on)
    if found and _facts_found(found) == _facts_wanted(wanted) and (is_on or not (schedule and spec.cron)):
        return Step(what, Change.UNCHANGED, detail)
    if not dry_run:
        wanted.apply()
    return Step(what, Change.UPDATED if found else Change.CREATED, detail)


def _schedule_detail(spec: DeploymentSpec, *, on: bool) -> str:
    if not spec.cron:
        return ""
    return f"cron {spec.cron} UTC, {'on' if on else 'off: `neuromill flows setup --schedule` switches it on'}"


def _facts_found(deployment: DeploymentResponse) -> tuple[object, ...]:
    limit = deployment.global_concurrency_limit
    return (*_common_facts(deployment), limit.limit if limit else None, deployment.parameter_openapi_schema)


def _facts_wanted(deployment: RunnerDeployment) -> tuple[object, ...]:
    schema = deployment._parameter_openapi_schema.model_dump(exclude_unset=True)  # noqa: SLF001  (no public way to it)
    return (*_common_facts(deployment), deployment.concurrency_limit, schema)


def _common_facts(deployment: DeploymentResponse | RunnerDeployment) -> tuple[object, ...]:
    options = deployment.concurrency_options
    return (
        deployment.entrypoint,
        deployment.description,
        deployment.parameters,
        deployment.tags,
        deployment.work_pool_name,
        deployment.job_variables,
        options.collision_strategy if options else None,
        [schedule.schedule for schedule in deployment.schedules or []],
    )
