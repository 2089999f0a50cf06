"""The dandi library's client with this room's patience. Imports dandi (0.4 s): import this module where it is used."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import requests
from dandi.consts import DandiInstance
from dandi.dandiapi import DandiAPIClient
from dandi.exceptions import HTTP404Error

from neuromill.sources.attempts import Attempts, TryAgainError, check_status

if TYPE_CHECKING:
    from collections.abc import Callable

    from neuromill.sources.attempts import Patience

_NOT_FOUND = 404


class PatientClient(DandiAPIClient):
    """``DandiAPIClient`` for any API address, anonymous.

    The library's own ``request`` has no time-out, waits 53 s for a closed port, sleeps as long as a Retry-After asks
    for (up to a week), gives up on truncated bodies and prints tracebacks; this one is tried again as downloads are.
    """

    def __init__(self, api_url: str, patience: Patience, sleep: Callable[[float], None] = time.sleep) -> None:
        # Given as an instance, the address is taken as it is; as `api_url`, the library asks its host who it is first.
        super().__init__(dandi_instance=DandiInstance(name="neuromill", gui=None, api=api_url))
        self._patience, self._sleep = patience, sleep

    def request(
        self, method: str, path: str, params: dict[str, Any] | None = None, *_: Any, json_resp: bool = True, **__: Any
    ) -> Any:
        """Ask the archive; the JSON of the answer, or the answer itself.

        Raises
        ------
        HTTP404Error
            There is no such thing.
        RecordingError
            ``unreachable_upstream`` for another refusal, ``retries_exhausted``.
        """
        url = self.get_url(path)
        attempts = Attempts(self._patience, url, self._sleep)
        while True:
            try:
                response = self._ask(method, url, params)
                break
            except (TryAgainError, requests.ConnectionError, requests.Timeout) as error:
                attempts.failed(error)
        return response.json() if json_resp else response

    def _ask(self, method: str, url: str, params: dict[str, Any] | None) -> requests.Response:
        limits = (self._patience.connect_timeout_seconds, self._patience.read_timeout_seconds)
        headers = {"Accept": "application/json"}
        try:
            response: requests.Response = self.session.request(
                method, url, params=params, headers=headers, timeout=limits
            )
            if response.status_code == _NOT_FOUND:
                raise HTTP404Error(f"there is no {url}", response=response)
            check_status(response.status_code, response.headers, url)
            response.json()
        except (requests.exceptions.ChunkedEncodingError, requests.JSONDecodeError) as error:
            raise TryAgainError(f"the answer is not whole: {error}") from error
        return response
