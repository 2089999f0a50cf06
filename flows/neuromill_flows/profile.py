"""The Prefect profile: where server settings stand so that ``prefect server start`` finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.context import get_settings_context
from prefect.settings import PREFECT_API_URL
from prefect.settings.profiles import load_profiles, save_profiles

from neuromill_flows.environment import SERVER

if TYPE_CHECKING:
    from prefect.settings.profiles import ProfilesCollection

NAME = "neuromill"
LOCAL_API = "http://127.0.0.1:4200/api"
# Prefect's own profile that nobody chose. It starts a server per process: 8-20 s each, and late records are lost.
NOBODY_CHOSE = "ephemeral"


def api_url() -> str:
    """Address of the API that the environment or the active profile names, else the local one."""
    return str(PREFECT_API_URL.value() or LOCAL_API)


def wanted_profile() -> tuple[str, dict[str, str]]:
    """Return the profile to write (the active one, or a new ``neuromill``) and the settings it lacks."""
    active = get_settings_context().profile.name
    name = NAME if active == NOBODY_CHOSE else active
    wanted = {"PREFECT_API_URL": api_url(), **{setting.name: setting.value for setting in SERVER}}
    there = _environment_of(load_profiles(), name)
    return name, {key: value for key, value in wanted.items() if there.get(key, "").lower() != value.lower()}


def write_profile(name: str, settings: dict[str, str]) -> None:
    """Merge settings into a profile and make it the active one; every other profile stays as it is."""
    profiles = load_profiles()
    profiles.update_profile(name, settings)  # type: ignore[arg-type]  # names are cast to Setting objects
    profiles.set_active(name)
    save_profiles(profiles)


def _environment_of(profiles: ProfilesCollection, name: str) -> dict[str, str]:
    return profiles[name].to_environment_variables() if name in profiles.names else {}
