"""What every test shares: no telemetry, no network names, the folder of real recordings."""

import os
from pathlib import Path

# Before anything imports Prefect, dandi or huggingface_hub: nothing may phone home from a test.
os.environ.update(
    {
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "MNE_LOGGING_LEVEL": "ERROR",
        "NO_ET": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "OMP_NUM_THREADS": "1",
    }
)

import pytest
from hypothesis import HealthCheck, settings

from support.paths import data_root

REQUIRED = "NEUROMILL_REQUIRE_DATA"

# Times are no part of a test: a busy machine is slow. CI draws the same examples every time, people draw new ones.
settings.register_profile(
    "neuromill", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("neuromill")


def pytest_configure(config: pytest.Config) -> None:
    """CI sets ``NEUROMILL_REQUIRE_DATA``: then a skipped test on real recordings fails the run."""
    if os.environ.get(REQUIRED) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(DataTestsMustRun())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``data`` where the folder is missing, and say so."""
    if data_root().is_dir():
        return
    skip = pytest.mark.skip(reason=f"no folder of real recordings at {data_root()} (set NEUROMILL_TEST_DATA)")
    for item in items:
        if "data" in item.keywords:
            item.add_marker(skip)


class DataTestsMustRun:
    """Counts tests marked ``data`` that were skipped, and fails the run for them."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a skip."""
        if report.skipped and "data" in report.keywords and not hasattr(report, "wasxfail"):
            self.skipped.append(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn skips into a failure."""
        if self.skipped:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say why."""
        for nodeid in self.skipped:
            terminalreporter.write_line(f"{REQUIRED} is set and this test on real recordings did not run: {nodeid}")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real recordings; tests that use it carry ``@pytest.mark.data``."""
    return data_root()
