"""The heartbeat of a worker: from a thread of its own, so that a blocked event loop loses no lease.

It renews the leases of all tasks that the worker holds, tells how far they are, and brings back what the manager has to
say: leases that were lost, tasks to cancel, an order to drain. It also sees when the event loop stands still, and says
where.
"""

import json
import platform
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import quote

import httpx2
import structlog
from pydantic import BaseModel, ConfigDict

from jobnik_sdk.execution.calls import format_stack
from jobnik_sdk.execution.context import TaskContext
from jobnik_sdk.execution.progress import MAX_CHECKPOINT_SIZE, Checkpoint, ProgressUpdate
from jobnik_sdk.worker.task_source import Assignment

HEARTBEATS_PER_LEASE: Final = 3
"""So that one that is lost on the way does no harm: its answer is not waited for longer than until the next is due."""
RETRIES_PER_LEASE: Final = 10
"""While there is no answer: what is left of the lease is not waited for."""
MAX_CHECKPOINT_BYTES: Final = MAX_CHECKPOINT_SIZE
"""Bytes in one beat, so that it is never too large for the manager."""
FINAL_HEARTBEAT_TIMEOUT: Final = 1.0
"""Seconds for which the end waits for the answer to a beat that is under way."""
BLOCKED_AFTER: Final = 5.0
"""Seconds for which an event loop may stand still before that is worth a line in the log."""

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


class Instructions(BaseModel):
    """What the manager has to say."""

    model_config = ConfigDict(frozen=True)

    lost: Sequence[int]
    """Leases that are no longer the worker's."""
    cancel: Sequence[int]
    """Leases whose tasks are to be cancelled: their job was aborted."""
    drain: bool
    """Whether the worker is to stop."""


class Held(Protocol):
    """A task that the worker holds: it runs, or its report is on its way."""

    @property
    def task(self) -> Assignment[Any, Any]:
        """What was claimed."""
        ...

    @property
    def context(self) -> TaskContext[Any]:
        """What its handler sees of it."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerView:
    """What the heart asks of the worker, from its own thread.

    Args:
        held: The tasks that it holds.
        draining: Whether it takes no more.
        ticked: When the event loop last turned, on the monotonic clock.
        on_instructions: Called with what the manager has to say.
    """

    held: Callable[[], Sequence[Held]]
    draining: Callable[[], bool]
    ticked: Callable[[], float]
    on_instructions: Callable[[Instructions], None]


class _Acknowledged(NamedTuple):
    """What the manager has heard of an attempt."""

    progress: ProgressUpdate | None = None
    checkpoint: Checkpoint | None = None


class Heartbeat:
    """Beats from `start` to `stop`.

    Args:
        http: A connection of its own to the manager.
        worker_id: Whose heart it is.
        stage_types: What the worker works on.
        lease: How long a lease lasts; it beats three times in it.
        view: What it asks of the worker.
    """

    def __init__(
        self, http: httpx2.Client, worker_id: str, stage_types: Sequence[str], lease: timedelta, view: WorkerView
    ) -> None:
        self._http = http
        self._path = f"/v1/workers/{quote(worker_id, safe='')}/heartbeat"
        self._about = {
            "stageTypes": list(stage_types),
            "host": platform.node(),
            "version": f"jobnik-sdk {version('jobnik-sdk')}",
        }
        self._lease = lease.total_seconds()
        self._view = view
        self._answered = time.monotonic()
        self._acknowledged: dict[int | None, _Acknowledged] = {}
        self._stopping = threading.Event()
        self._loop_thread = threading.get_ident()
        self._thread = threading.Thread(target=self._run, name="jobnik-heart", daemon=True)

    def start(self) -> None:
        """Begin to beat; call it in the event loop's thread."""
        self._thread.start()

    def stop(self) -> None:
        """Beat no more; returns when the last beat is over, or has no answer yet. Twice is as once."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._thread.join(FINAL_HEARTBEAT_TIMEOUT)

    @property
    def healthy(self) -> bool:
        """Whether the manager has answered lately, so that what is claimed now can be kept."""
        return time.monotonic() - self._answered < self._lease * 2 / 3

    def _run(self) -> None:
        beating = True
        while beating:
            try:
                self._look_at_loop()
                self._send()
                pause = self._lease / HEARTBEATS_PER_LEASE
            except Exception as error:  # noqa: BLE001 whatever it is, the next beat must come
                silent_for = round(time.monotonic() - self._answered, 1)
                _log.warning("heartbeat failed", silent_for=silent_for, reason=str(error))
                pause = self._lease / RETRIES_PER_LEASE
            beating = not self._stopping.wait(pause)
        self._http.close()

    def _send(self) -> None:
        told: dict[int | None, _Acknowledged] = {}
        running: list[dict[str, Any]] = []
        room = MAX_CHECKPOINT_BYTES
        for one in self._view.held():
            said, told[one.task.lease_id], size = self._encode(one, room)
            running.append(said)
            room -= size
        body = {**self._about, "draining": self._view.draining(), "running": running}
        answer = self._http.post(self._path, json=body)
        answer.raise_for_status()
        instructions = Instructions.model_validate_json(answer.content)
        self._answered = time.monotonic()
        self._acknowledged = told
        self._view.on_instructions(instructions)

    def _encode(self, one: Held, room: int) -> tuple[dict[str, Any], _Acknowledged, int]:
        """What is said of a task, what it has told then, and the bytes of its checkpoint in it.

        What was said before need not be said again. A checkpoint for which there is no room goes with a later beat:
        first of all a beat keeps the leases.
        """
        said: dict[str, Any] = {"taskId": str(one.task.id), "leaseId": one.task.lease_id}
        progress, checkpoint = one.context.state.progress, one.context.state.checkpoint
        before = self._acknowledged.get(one.task.lease_id, _Acknowledged())
        if progress is not None and progress is not before.progress:
            eta = progress.eta and progress.eta.total_seconds()
            said["progress"] = {"fraction": progress.fraction, "message": progress.message, "etaSeconds": eta}
        if checkpoint is None or checkpoint is before.checkpoint:
            return said, _Acknowledged(progress, before.checkpoint), 0
        size = len(checkpoint.document)
        if size > room:
            return said, _Acknowledged(progress, before.checkpoint), 0
        said["checkpoint"] = json.loads(checkpoint.document)
        return said, _Acknowledged(progress, checkpoint), size

    def _look_at_loop(self) -> None:
        still = time.monotonic() - self._view.ticked()
        if still < BLOCKED_AFTER:
            return
        _log.warning(
            "the event loop is blocked: blocking work belongs in a handler of style thread or process",
            seconds=round(still, 1),
            stack=format_stack(self._loop_thread),
        )
