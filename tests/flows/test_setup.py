"""``flows setup`` against a server: it makes what is missing, and the second time nothing."""

import os
from collections import Counter

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.settings.profiles import load_profiles

from neuromill_flows import deployments, environment, profile
from neuromill_flows.deployments import ready_deployments
from neuromill_flows.running import archive_limit_name, archive_slots
from neuromill_flows.setup import ARCHIVES, AUTOMATION, Change, Step, crash_automation, set_up

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]
MADE = {"work pool", "automation", "limit", "deployment"}


def kind(step: Step) -> str:
    return next((kind for kind in MADE if step.what.startswith(kind)), step.what.split()[0])


def test_setup_is_idempotent_and_keeps_what_a_person_tuned() -> None:
    rehearsal = list(set_up(dry_run=True))
    first = list(set_up())
    assert [(step.what, step.change) for step in rehearsal] == [(step.what, step.change) for step in first]
    made = Counter(kind(step) for step in first if step.change is Change.CREATED)
    assert made == {"work pool": 1, "automation": 1, "limit": len(ARCHIVES), "deployment": len(ready_deployments())}

    with get_client(sync_client=True) as client:
        client.update_global_concurrency_limit("neuromill-archive-openneuro", GlobalConcurrencyLimitUpdate(limit=7))
        client.pause_deployment(client.read_deployment_by_name("pipeline/meg-xl").id)
        before = snapshot(client)
    second = list(set_up())
    assert {step.change for step in second} == {Change.UNCHANGED}
    with get_client(sync_client=True) as client:
        assert snapshot(client) == before
        assert client.read_deployment_by_name("pipeline/meg-xl").paused


def nightly_is_on() -> bool:
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("pipeline/nightly")
    return [schedule.active for schedule in deployment.schedules] == [True] and not deployment.paused


def nightly_step(*, schedule: bool = False) -> Step:
    return next(step for step in set_up(schedule=schedule) if step.what == "deployment pipeline/nightly")


def test_the_schedule_of_the_pool_is_off_until_it_is_asked_for() -> None:
    with get_client(sync_client=True) as client:
        client.delete_deployment(client.read_deployment_by_name("pipeline/nightly").id)
    made = nightly_step()
    assert made.change is Change.CREATED
    assert "off: `neuromill flows setup --schedule`" in made.detail
    assert not nightly_is_on()

    assert nightly_step(schedule=True).change is Change.UPDATED
    assert nightly_is_on()
    assert nightly_step(schedule=True).change is Change.UNCHANGED
    with get_client(sync_client=True) as client:
        client.pause_deployment(client.read_deployment_by_name("pipeline/nightly").id)
    assert nightly_step().change is Change.UNCHANGED
    assert nightly_step(schedule=True).change is Change.UPDATED
    assert nightly_is_on()


def test_mending_a_deployment_leaves_its_schedule_on(monkeypatch: pytest.MonkeyPatch) -> None:
    list(set_up(schedule=True))
    with monkeypatch.context() as patch:
        patch.setitem(deployments.JOB_ENVIRONMENT, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "31")
        assert nightly_step().change is Change.UPDATED
    assert nightly_is_on()


def snapshot(client: object) -> list[object]:
    return [
        sorted((limit.name, limit.limit, limit.updated) for limit in client.read_global_concurrency_limits(100, 0)),
        sorted((pool.name, pool.updated) for pool in client.read_work_pools()),
        sorted((each.name, each.updated) for each in client.read_deployments()),
        sorted((each.name, each.id) for each in client.read_automations()),
    ]


def test_setup_mends_what_was_changed() -> None:
    list(set_up())
    with get_client(sync_client=True) as client:
        automation = client.read_automations_by_name(AUTOMATION)[0]
        changed = crash_automation()
        changed.trigger.within = changed.trigger.within * 10
        client.update_automation(automation.id, changed)
    steps = {step.what: step.change for step in set_up()}
    assert [what for what, change in steps.items() if change is Change.UPDATED] == [f"automation {AUTOMATION!r}"]


def test_the_profile_holds_the_server_settings() -> None:
    list(set_up())
    profiles = load_profiles()
    assert profiles.active_name == profile.NAME
    written = profiles[profile.NAME].to_environment_variables()
    assert {setting.name: setting.value for setting in environment.SERVER}.items() <= written.items()


def test_the_running_server_obeys_the_switches() -> None:
    with get_client(sync_client=True) as client:
        server = client.request("GET", "/admin/settings").json()["server"]
    assert server["analytics_enabled"] is False
    recorder = server["services"]["task_run_recorder"]
    assert (recorder["batch_size"], recorder["read_batch_size"], recorder["flush_interval"]) == (100, 100, 1)


def test_a_server_started_without_the_settings_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = environment.Setting("PREFECT_SERVER_ANALYTICS_ENABLED", "true", "", "server.analytics_enabled")
    monkeypatch.setattr("neuromill_flows.setup.SERVER", (wrong,))
    step = next(step for step in set_up(dry_run=True) if step.what.startswith("server"))
    assert step.change is Change.MISSING
    assert "PREFECT_SERVER_ANALYTICS_ENABLED=true" in step.detail


def test_a_missing_telemetry_switch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(os.environ, "DO_NOT_TRACK")
    steps = {step.what: step for step in set_up(dry_run=True)}
    assert steps["variable DO_NOT_TRACK"].change is Change.MISSING
    assert "export DO_NOT_TRACK=1" in steps["variable DO_NOT_TRACK"].detail


def test_no_server_is_said_with_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuromill_flows.setup.api_url", lambda: "http://127.0.0.1:9/api")
    last = list(set_up(dry_run=True))[-1]
    assert last.change is Change.MISSING
    assert "prefect server start" in last.detail


def test_an_ingest_shard_holds_a_slot_of_its_archive() -> None:
    list(set_up())
    with get_client(sync_client=True) as client:
        name = archive_limit_name("openneuro")
        with archive_slots(("openneuro",)):
            assert client.read_global_concurrency_limit_by_name(name).active_slots == 1
        assert client.read_global_concurrency_limit_by_name(name).active_slots == 0
