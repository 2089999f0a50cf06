"""Serving deployments from one process, which ends quietly and leaves no schedule behind."""

from __future__ import annotations

import asyncio
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException
from prefect.runner import Runner

from neuromill.cli.output import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from uuid import UUID

    from prefect.deployments.runner import RunnerDeployment


class SignalledRunner(Runner):
    """Prefect's runner, stopped by a coroutine of its own loop.

    In 3.8.8 the runner's handler of SIGTERM never awaits its stop and raises SystemExit in whatever task the signal
    meets. Where that is one that looks after flow runs, their cancel scope also ends the pausing of the schedules.
    """

    def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """End the flow runs and the loop; before it runs, and the second time, end at once."""
        if not self.started or self.stopping:
            raise KeyboardInterrupt
        self.execute_in_background(self.astop)

    async def cancel_all(self) -> None:
        """Cancel the flow runs under way; one that has ended, and whose process has not yet, keeps its state.

        Prefect's own would call a Completed run Cancelled in the second that its process takes to end.
        """
        for flow_run_id in self._process_manager.flow_run_ids():
            try:
                flow_run = await self._client.read_flow_run(flow_run_id)
                if flow_run.state is None or not flow_run.state.is_final():
                    await self._cancellation_manager.cancel(flow_run, "`neuromill flows serve` was stopped.")
            except (httpx.HTTPError, PrefectException) as error:
                say(f"flow run {flow_run_id} is not cancelled: {error}")


def serve(deployments: Sequence[RunnerDeployment], limit: int) -> None:
    """Register the deployments and work on their runs until SIGINT or SIGTERM; then pause them."""
    runner = SignalledRunner(pause_on_shutdown=False, limit=limit)
    served: list[UUID] = []
    try:
        with _stopped_by_signals(runner):
            asyncio.run(_register_and_run(runner, deployments, served))
    except KeyboardInterrupt:
        pass
    finally:
        _pause(served)


async def _register_and_run(
    runner: SignalledRunner, deployments: Sequence[RunnerDeployment], served: list[UUID]
) -> None:
    for deployment in deployments:
        served.append(await runner.aadd_deployment(deployment))
        say(f"serving {deployment.full_name}")
    say("Ctrl-C ends this and pauses the schedules")
    await runner.start()


@contextmanager
def _stopped_by_signals(runner: SignalledRunner) -> Iterator[None]:
    before = {each: signal.signal(each, runner.handle_sigterm) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _pause(deployments: Sequence[UUID]) -> None:
    try:
        with get_client(sync_client=True) as client:
            for deployment in deployments:
                client.pause_deployment(deployment)
    except httpx.TransportError:
        say("the server does not answer: the schedules are not paused")
    else:
        say(f"paused {len(deployments)} deployments")
