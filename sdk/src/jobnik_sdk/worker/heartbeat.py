"""The heartbeat of a worker, sent from a separate thread, so that no lease is lost while the event loop is blocked.

Each heartbeat renews the leases of all tasks in progress and carries their progress and checkpoints. The response
carries the manager's instructions: leases that were lost, tasks to cancel, a request to drain. The thread also logs
where the event loop is blocked.
"""

import json
import platform
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import httpx2
import structlog
from pydantic import BaseModel, ConfigDict

from jobnik_sdk.execution.calls import format_stack
from jobnik_sdk.execution.progress import MAX_CHECKPOINT_SIZE, Checkpoint, ProgressUpdate
from jobnik_sdk.worker.task_source import TaskInProgress

HEARTBEATS_PER_LEASE: Final = 3
"""The number of heartbeats within the duration of a lease, so that the lease survives the loss of one. The worker waits
for a response until the next heartbeat is due."""
RETRIES_PER_LEASE: Final = 10
"""The number of heartbeats within the duration of a lease after one has failed."""
MAX_CHECKPOINT_BYTES: Final = MAX_CHECKPOINT_SIZE
"""The maximum size of all checkpoints in one heartbeat, so that the manager never refuses it as too large."""
FINAL_HEARTBEAT_TIMEOUT: Final = 1.0
"""Seconds to wait for the response to the last heartbeat when the worker stops."""
BLOCKED_AFTER_SECONDS: Final = 5.0
"""How long the event loop may be blocked before this is logged."""

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


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
    """The part of the worker that the heartbeat uses; all functions are called from the heartbeat's thread.

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


class _Acknowledged(NamedTuple):
    """The progress and checkpoint of an attempt that the manager already has."""

    progress: ProgressUpdate | None = None
    checkpoint: Checkpoint | None = None


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
        self._http = http
        self._path = f"/v1/workers/{quote(worker_id, safe='')}/heartbeat"
        self._worker_info = {
            "stageTypes": list(stage_types),
            "host": platform.node(),
            "version": f"jobnik-sdk {version('jobnik-sdk')}",
        }
        self._lease_seconds = lease.total_seconds()
        self._view = view
        self._answered_at = time.monotonic()
        self._acknowledged: dict[int | None, _Acknowledged] = {}
        self._stopping = threading.Event()
        self._event_loop_thread = threading.get_ident()
        self._thread = threading.Thread(target=self._run, name="jobnik-heartbeat", daemon=True)

    def start(self) -> None:
        """Start sending heartbeats; call this in the event loop's thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop sending heartbeats, and wait up to 1 s for the response to the last one. Idempotent."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._thread.join(FINAL_HEARTBEAT_TIMEOUT)

    @property
    def healthy(self) -> bool:
        """Whether the manager has answered within the last two thirds of a lease, so that new leases can be renewed."""
        return time.monotonic() - self._answered_at < self._lease_seconds * 2 / 3

    def _run(self) -> None:
        while True:
            try:
                self._check_event_loop()
                self._send()
                pause = self._lease_seconds / HEARTBEATS_PER_LEASE
            except Exception as error:  # noqa: BLE001 after any error, the next heartbeat must follow
                seconds = round(time.monotonic() - self._answered_at, 1)
                _log.warning("heartbeat failed", seconds_since_answer=seconds, reason=str(error))
                pause = self._lease_seconds / RETRIES_PER_LEASE
            if self._stopping.wait(pause):
                break
        self._http.close()

    def _send(self) -> None:
        sent: dict[int | None, _Acknowledged] = {}
        running: list[dict[str, Any]] = []
        bytes_left = MAX_CHECKPOINT_BYTES
        for task in self._view.tasks_in_progress():
            entry, sent[task.task.lease_id], size = self._encode(task, bytes_left)
            running.append(entry)
            bytes_left -= size
        body = {**self._worker_info, "draining": self._view.draining(), "running": running}
        response = self._http.post(self._path, json=body)
        response.raise_for_status()
        instructions = Instructions.model_validate_json(response.content)
        self._answered_at = time.monotonic()
        self._acknowledged = sent
        self._view.on_instructions(instructions)

    def _encode(self, running: TaskInProgress, bytes_left: int) -> tuple[dict[str, Any], _Acknowledged, int]:
        """Return the entry of a task, what the manager has once it receives it, and the size of its checkpoint.

        Progress and checkpoints that the manager already has are left out. A checkpoint that does not fit is sent with
        a later heartbeat, because renewing the leases comes first.
        """
        entry: dict[str, Any] = {"taskId": str(running.task.id), "leaseId": running.task.lease_id}
        progress, checkpoint = running.context.state.progress, running.context.state.checkpoint
        before = self._acknowledged.get(running.task.lease_id, _Acknowledged())
        if progress is not None and progress is not before.progress:
            eta = progress.eta and progress.eta.total_seconds()
            entry["progress"] = {"fraction": progress.fraction, "message": progress.message, "etaSeconds": eta}
        if checkpoint is None or checkpoint is before.checkpoint:
            return entry, _Acknowledged(progress, before.checkpoint), 0
        size = len(checkpoint.document)
        if size > bytes_left:
            return entry, _Acknowledged(progress, before.checkpoint), 0
        entry["checkpoint"] = json.loads(checkpoint.document)
        return entry, _Acknowledged(progress, checkpoint), size

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
