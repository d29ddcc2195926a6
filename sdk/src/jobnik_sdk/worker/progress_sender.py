"""Sends the progress and the checkpoints of running tasks beside the heartbeat, so that no lease depends on them.

Both are validated when a handler records them. If the manager refuses a value anyway, the value is dropped, and a
warning is logged. If the manager cannot be reached, the latest values are sent later.
"""

import threading
from collections.abc import Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import Final, NamedTuple

import httpx2
from pydantic_core import to_json

from jobnik_sdk.execution.progress import MAX_CHECKPOINT_SIZE, Checkpoint, ProgressUpdate
from jobnik_sdk.observability.logging import RuntimeLogger
from jobnik_sdk.worker.heartbeat import HEARTBEATS_PER_LEASE, HeartbeatEndpoint, WorkerView, encode_lease
from jobnik_sdk.worker.task_source import TaskInProgress

MAX_REQUEST_SIZE: Final = MAX_CHECKPOINT_SIZE + 10_000
"""The maximum size of one request in bytes: a checkpoint and a progress message always fit."""
_REFUSED: Final = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY)

_log: Final = RuntimeLogger(__name__)


class _State(NamedTuple):
    """The progress and the checkpoint of an attempt."""

    progress: ProgressUpdate | None = None
    checkpoint: Checkpoint | None = None


class _Entry(NamedTuple):
    """A running task as it is sent."""

    running: TaskInProgress
    state: _State
    document: bytes
    is_new: bool
    """Whether it has progress or a checkpoint that the manager does not have."""


class ProgressSender:
    """Sends new progress and checkpoints from `start` to `stop`, three times within the duration of a lease.

    Args:
        http: A connection to the manager that nothing else uses; it is closed at the end.
        worker_id: The id of the worker.
        stage_types: The stage types that the worker claims.
        lease: The duration of a lease.
        view: Gives access to the worker.
    """

    def __init__(
        self, http: httpx2.Client, worker_id: str, stage_types: Sequence[str], lease: timedelta, view: WorkerView
    ) -> None:
        self._endpoint = HeartbeatEndpoint(http, worker_id, stage_types, view)
        self._pause = lease.total_seconds() / HEARTBEATS_PER_LEASE
        self._tasks_in_progress = view.tasks_in_progress
        self._delivered: dict[int | None, _State] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jobnik-progress", daemon=True)

    def start(self) -> None:
        """Start sending."""
        self._thread.start()

    def stop(self) -> None:
        """Stop sending, without waiting for a request that is under way. Idempotent."""
        self._stopping.set()

    def _run(self) -> None:
        failed = False
        pause = self._pause / 2  # not at the same moments as the heartbeats
        while not self._stopping.wait(pause):
            pause = self._pause
            try:
                self._send_new()
                failed = False
            except Exception as error:  # noqa: BLE001 later progress must be sent after any error
                if not failed:
                    _log.warning("progress not delivered, retrying", reason=str(error))
                failed = True
        self._endpoint.close()

    def _send_new(self) -> None:
        entries = [self._encode(running) for running in self._tasks_in_progress()]
        leases = {entry.running.task.lease_id for entry in entries}
        self._delivered = {lease: state for lease, state in self._delivered.items() if lease in leases}
        chunk: list[_Entry] = []
        size = 0
        for entry in entries:
            size += len(entry.document) + 1
            if chunk and size > MAX_REQUEST_SIZE:
                self._send(chunk)
                chunk, size = [], len(entry.document) + 1
            chunk.append(entry)
        self._send(chunk)

    def _send(self, chunk: Sequence[_Entry]) -> None:
        """Send a chunk if it has new entries; the others are in it because the manager shows how many tasks run."""
        if not any(entry.is_new for entry in chunk):
            return
        try:
            self._endpoint.send([entry.document for entry in chunk])
        except httpx2.HTTPStatusError as error:
            if error.response.status_code not in _REFUSED:
                raise
            new = [entry for entry in chunk if entry.is_new]
            if len(chunk) > 1:
                middle = len(new) // 2
                self._send(new[:middle])
                self._send(new[middle:])
                return
            _log.warning(
                "progress refused",
                reason=error.response.text[:500],
                advice="compare the releases of the worker and the manager, and the limits of proxies",
                **chunk[0].running.context.ids,
            )
        for entry in chunk:
            self._delivered[entry.running.task.lease_id] = entry.state

    def _encode(self, running: TaskInProgress) -> _Entry:
        """Return the entry of a task, with the progress and the checkpoint that the manager does not have yet."""
        state = running.context.state
        current = _State(state.progress, state.checkpoint)
        delivered = self._delivered.get(running.task.lease_id, _State())
        try:
            return _encode(running, current, delivered)
        except Exception:  # noqa: BLE001 an invalid value must not delay the progress of other tasks
            _log.exception("progress not sendable", **running.context.ids)
            self._delivered[running.task.lease_id] = current
            return _Entry(running, current, encode_lease(running), is_new=False)


def _encode(running: TaskInProgress, current: _State, delivered: _State) -> _Entry:
    document = encode_lease(running)
    progress = current.progress if current.progress is not delivered.progress else None
    checkpoint = current.checkpoint if current.checkpoint is not delivered.checkpoint else None
    if progress is not None:
        eta = None if progress.eta is None else progress.eta.total_seconds()
        fields = {"fraction": progress.fraction, "message": progress.message, "etaSeconds": eta}
        document = b'%b,"progress":%b}' % (document[:-1], to_json(fields))
    if checkpoint is not None:
        document = b'%b,"checkpoint":%b}' % (document[:-1], checkpoint.document)
    return _Entry(running, current, document, progress is not None or checkpoint is not None)
