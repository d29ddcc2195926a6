"""The heartbeat of a worker, sent from a separate thread, so that no lease is lost while the event loop is blocked.

Each heartbeat renews the leases of all tasks in progress, and carries nothing that a manager could refuse because of
one task: progress and checkpoints are sent by `ProgressSender`. The response carries the manager's instructions: leases
that were lost, tasks to cancel, a request to drain. The thread also logs where the event loop is blocked.
"""

import asyncio
import platform
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json

from jobnik_sdk.errors import AccessError
from jobnik_sdk.execution.calls import format_stack
from jobnik_sdk.http.client import error_in
from jobnik_sdk.model.payloads import fit_text
from jobnik_sdk.observability import metrics
from jobnik_sdk.observability.logging import RuntimeLogger
from jobnik_sdk.worker.refusals import log_refusal
from jobnik_sdk.worker.task_source import TaskInProgress

HEARTBEATS_PER_LEASE: Final = 3
"""The number of heartbeats within the duration of a lease, so that the lease survives the loss of one. The worker waits
for a response until the next heartbeat is due."""
RETRIES_PER_LEASE: Final = 10
"""The number of heartbeats within the duration of a lease after one has failed."""
MAX_LEASES: Final = 5_000
"""The maximum number of leases in one request: half of what the protocol allows, about 400 KB."""
MIN_LEASES: Final = 100
"""The least number of leases per request, about 8 KB, even if a proxy answers that the request is too large."""
MAX_STAGE_TYPES: Final = 100
"""The maximum number of stage types in one request, as set by the protocol. The manager's list of workers shows only
these."""
FINAL_HEARTBEAT_TIMEOUT: Final = 1.0
"""Seconds to wait for the response to the last heartbeat when the worker stops."""
BLOCKED_AFTER_SECONDS: Final = 5.0
"""How long the event loop may be blocked before this is logged."""
# The limits of the protocol, in characters.
_LONGEST_HOST: Final = 255
_LONGEST_VERSION: Final = 100

_log: Final = RuntimeLogger(__name__)


class Instructions(BaseModel):
    """The manager's response to a heartbeat."""

    model_config = ConfigDict(frozen=True)

    lost: Sequence[int]
    """Leases that no longer belong to the worker."""
    cancel: Sequence[int]
    """Leases whose tasks must be cancelled, because their job was aborted."""
    drain: bool
    """Whether the worker must stop."""


@dataclass(frozen=True, slots=True)
class WorkerView:
    """The part of the worker that its heartbeat uses; all functions are called from threads of the heartbeat.

    Args:
        tasks_in_progress: Returns the tasks whose leases are to be renewed.
        draining: Returns whether the worker has stopped claiming.
        last_tick: Returns when the event loop last ran, on the monotonic clock.
        on_instructions: Called with each response of the manager.
    """

    tasks_in_progress: Callable[[], Sequence[TaskInProgress]]
    draining: Callable[[], bool]
    last_tick: Callable[[], float]
    on_instructions: Callable[[Instructions], None]


class HeartbeatEndpoint:
    """The manager's endpoint for the heartbeats of one worker.

    Args:
        http: A connection to the manager that nothing else uses.
        worker_id: The id of the worker.
        stage_types: The stage types that the worker claims.
        view: Gives access to the worker.
    """

    def __init__(self, http: httpx2.Client, worker_id: str, stage_types: Sequence[str], view: WorkerView) -> None:
        self._http = http
        self._path = f"/v1/workers/{quote(worker_id, safe='')}/heartbeat"
        self._view = view
        self._worker_info = to_json(
            {
                "stageTypes": stage_types[:MAX_STAGE_TYPES],
                "host": fit_text(platform.node(), _LONGEST_HOST),
                "version": fit_text(f"jobnik-sdk {metrics.VERSION}", _LONGEST_VERSION),
            }
        )

    def send(self, running: Sequence[bytes]) -> None:
        """Send a heartbeat with these running tasks, each a JSON object, and pass the response on to the worker.

        Raises:
            AccessError: the manager refused the token.
            httpx2.HTTPError: no response arrived, or the manager refused the heartbeat.
            ValueError: the response is not a manager's.
        """
        draining = b"true" if self._view.draining() else b"false"
        body = b'%b,"draining":%b,"running":[%b]}' % (self._worker_info[:-1], draining, b",".join(running))
        response = self._http.post(self._path, content=body, headers={"Content-Type": "application/json"})
        if response.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            raise error_in(response)
        response.raise_for_status()
        self._view.on_instructions(Instructions.model_validate_json(response.content))

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


def encode_lease(running: TaskInProgress) -> bytes:
    """Return the entry of a running task that renews its lease, as a JSON object."""
    return b'{"taskId":"%b","leaseId":%b}' % (str(running.task.id).encode(), to_json(running.task.lease_id))


class Heartbeat:
    """Sends heartbeats from `start` to `stop`.

    Args:
        http: A connection to the manager that nothing else uses; the heartbeat closes it at the end.
        worker_id: The id of the worker.
        stage_types: The stage types that the worker claims.
        lease: The duration of a lease; three heartbeats are sent within it.
        view: Gives access to the worker.
    """

    def __init__(
        self, http: httpx2.Client, worker_id: str, stage_types: Sequence[str], lease: timedelta, view: WorkerView
    ) -> None:
        self._endpoint = HeartbeatEndpoint(http, worker_id, stage_types, view)
        self._lease_seconds = lease.total_seconds()
        self._view = view
        self._max_leases = MAX_LEASES
        self._answered_at = time.monotonic()
        self._stopping = threading.Event()
        self._event_loop_thread = threading.get_ident()
        self._thread = threading.Thread(target=self._run, name="jobnik-heartbeat", daemon=True)

    def start(self) -> None:
        """Start sending heartbeats; call this in the event loop's thread."""
        metrics.HEARTBEAT_AGE.set_function(lambda: 0.0 if self._stopping.is_set() else self._seconds_since_answer)
        self._thread.start()

    def stop(self) -> None:
        """Stop sending heartbeats, and wait up to 1 s for the response to the last one. Idempotent."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._thread.join(FINAL_HEARTBEAT_TIMEOUT)

    async def aclose(self) -> None:
        """Do the same as `stop`, without blocking the event loop."""
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()

        def stop() -> None:
            self.stop()
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(stopped.set)

        # Not `asyncio.to_thread`, because calls of handlers that hang may occupy all of its threads.
        threading.Thread(target=stop, name="jobnik-heartbeat-stop", daemon=True).start()
        await stopped.wait()

    @property
    def healthy(self) -> bool:
        """Whether the manager has answered within the last two thirds of a lease, so that new leases can be renewed."""
        return self._seconds_since_answer < self._lease_seconds * 2 / 3

    @property
    def _seconds_since_answer(self) -> float:
        return time.monotonic() - self._answered_at

    def _run(self) -> None:
        pause, failed = 0.0, False
        while not self._stopping.wait(pause):
            try:
                if not failed:
                    self._check_delay()
                self._check_event_loop()
                self._renew_leases()
                pause, failed = self._lease_seconds / HEARTBEATS_PER_LEASE, False
            except AccessError as error:
                log_refusal(error)
                pause, failed = self._lease_seconds / RETRIES_PER_LEASE, True
            except Exception as error:  # noqa: BLE001 after any error, the next heartbeat must follow
                metrics.HEARTBEATS_FAILED.inc()
                _log.warning(
                    "heartbeat failed",
                    seconds_since_answer=round(self._seconds_since_answer, 1),
                    lease_seconds=self._lease_seconds,
                    reason=str(error),
                    advice="check the manager and the network: if heartbeats keep failing, other workers get the tasks",
                )
                pause, failed = self._lease_seconds / RETRIES_PER_LEASE, True
        self._endpoint.close()

    def _renew_leases(self) -> None:
        leases = [encode_lease(running) for running in self._view.tasks_in_progress()]
        for start in range(0, max(len(leases), 1), self._max_leases):
            try:
                self._endpoint.send(leases[start : start + self._max_leases])
            except httpx2.HTTPStatusError as error:
                if error.response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                    self._max_leases = max(MIN_LEASES, self._max_leases // 2)
                raise
        self._answered_at = time.monotonic()

    def _check_delay(self) -> None:
        """Log that this thread did not run in time: the machine is overloaded, or a handler holds Python's lock."""
        if not self.healthy:
            metrics.HEARTBEATS_LATE.inc()
            _log.warning(
                "heartbeat late",
                seconds_since_answer=round(self._seconds_since_answer, 1),
                lease_seconds=self._lease_seconds,
                advice="use the style PROCESS for handlers that compute in C code, or give the worker more CPU time",
            )

    def _check_event_loop(self) -> None:
        seconds = time.monotonic() - self._view.last_tick()
        if seconds < BLOCKED_AFTER_SECONDS:
            return
        _log.warning(
            "event loop blocked",
            seconds=round(seconds, 1),
            stack=format_stack(self._event_loop_thread),
            advice="move blocking work to a handler of style THREAD or PROCESS",
        )
