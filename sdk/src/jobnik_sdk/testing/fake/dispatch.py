"""The actions of workers: claim tasks, renew their leases, report the outcomes of their attempts."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, cast

from pydantic import ValidationError

from jobnik_sdk.model.definitions import StageStatus, TaskStatus
from jobnik_sdk.testing.fake.bodies import HeartbeatBody, ReportBody, RunningBody, duration
from jobnik_sdk.testing.fake.lifecycle import Lifecycle
from jobnik_sdk.testing.fake.requests import validation_message
from jobnik_sdk.testing.fake.state import Attempt, RefusedRequestError, State, Task, WorkerRecord, retry_delay
from jobnik_sdk.testing.fake.transitions import FAILURES, REPORTED, STAGE_OPEN

STALE_AFTER: Final = timedelta(minutes=30)
"""How long a client of part A, which has no lease, may take for a task."""
FORGOTTEN_AFTER: Final = timedelta(hours=1)
"""How long a worker without heartbeats is listed."""
_LEASE_LOST: Final = "The worker does not hold this lease: nothing was changed"


class Dispatcher:
    """The queues and the leases of a state."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._lifecycle = Lifecycle(state)

    def catch_up(self) -> None:
        """Apply the events since the last request: delayed tasks have become due, leases have expired."""
        now = self._state.tick()
        self._state.wake()
        for task in [task for task in self._state.leased.values() if task.attempts[-1].expires <= now]:
            attempt = task.attempts[-1]
            outcome, error = _expiry(attempt, timed_out=attempt.deadline is not None and attempt.deadline <= now)
            self._end(task, outcome, error=error)

    def claim(self, stage_type: str, limit: int, worker_id: str | None, lease: timedelta) -> list[Task]:
        """Claim up to `limit` tasks; without a `worker_id`, the attempts must be reported within `lease`."""
        return [self._begin(task, worker_id, lease) for task in self._state.take(stage_type, limit)]

    def settle(self, worker_id: str, item: Any) -> dict[str, Any]:  # noqa: ANN401 any JSON from the body
        """Accept or refuse a report, and return the verdict; a repeated report gets the first verdict again."""
        fields = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
        ids = {"taskId": fields.get("taskId"), "leaseId": fields.get("leaseId")}
        refusal = {**ids, "accepted": False, "status": None}
        try:
            report = ReportBody.model_validate(item)
        except ValidationError as error:
            return {**refusal, "code": "VALIDATION_ERROR", "message": validation_message(error)}
        task = self._state.tasks.get(report.task_id)
        if task is None:
            return {**refusal, "code": "TASK_NOT_FOUND", "message": "There is no such task"}
        attempt = _find_attempt(task, report.lease_id, worker_id)
        if attempt is None or (attempt.outcome is not None and attempt.outcome not in REPORTED):
            return {**refusal, "status": task.status, "code": "LEASE_LOST", "message": _LEASE_LOST}
        if attempt.outcome is None:
            self._accept(task, report)
        return {**ids, "accepted": True, "status": attempt.target}

    def report(self, task: Task, outcome: str) -> None:
        """Accept the report of a client of part A."""
        if task.status is not TaskStatus.IN_PROGRESS:
            message = f"Illegal status transition from {task.status} to {outcome}"
            raise RefusedRequestError(400, "ILLEGAL_TASK_STATUS_TRANSITION", message)
        if task.attempts[-1].worker_id is not None:
            message = "Another request changed the task at the same time"
            raise RefusedRequestError(409, "TASK_STATUS_UPDATE_FAILED", message)
        self._end(task, outcome)

    def heartbeat(self, worker_id: str, body: HeartbeatBody) -> dict[str, Any]:
        """Renew the leases of a worker, store its progress and checkpoints, and return the manager's orders."""
        now = self._state.now
        worker = self._state.workers.get(worker_id)
        if worker is None:
            worker = WorkerRecord(id=worker_id, started=now, seen=now, stage_types=body.stage_types)
            self._state.workers[worker_id] = worker
        worker.seen, worker.stage_types, worker.draining = now, body.stage_types, body.draining
        worker.host, worker.version = body.host or worker.host, body.version or worker.version
        worker.running = len(body.running)
        lost: list[int] = []
        cancel: list[int] = []
        for running in body.running:
            task = self._state.tasks.get(running.task_id)
            if task is not None and task.stage.status is StageStatus.ABORTED:
                cancel.append(running.lease_id)
            elif task is None or not self._renew(task, worker_id, running):
                lost.append(running.lease_id)
        return {"lost": lost, "cancel": cancel, "drain": worker.drain_wanted}

    def deregister(self, worker_id: str) -> None:
        """Remove a worker, and release its tasks."""
        self._state.workers.pop(worker_id, None)
        for task in [*self._state.leased.values()]:
            if task.attempts[-1].worker_id == worker_id:
                self._end(task, "RELEASED")

    def workers(self) -> Sequence[WorkerRecord]:
        """Return the workers that have recently sent a heartbeat, sorted by id."""
        since = self._state.now - FORGOTTEN_AFTER
        return [worker for _, worker in sorted(self._state.workers.items()) if worker.seen > since]

    def depth(self, stage_type: str) -> dict[str, int]:
        """Return how many tasks of a stage type can be claimed, how many are in progress, and the total."""
        stages = self._state.stages_by_type.get(stage_type, ())
        waiting = sum(len(stage.waiting) for stage in stages if stage.open)
        running = sum(stage.counts[TaskStatus.IN_PROGRESS] for stage in stages if stage.status in STAGE_OPEN)
        return {"waiting": waiting, "inProgress": running, "total": waiting + running}

    def _begin(self, task: Task, worker_id: str | None, lease: timedelta) -> Task:
        now = self._state.now
        deadline = None if task.timeout is None else now + task.timeout
        attempt = Attempt(
            lease_id=next(self._state.lease_ids),
            worker_id=worker_id,
            length=lease,
            started=now,
            expires=min(now + lease, deadline or now + lease),
            deadline=deadline,
            source=task.status,
        )
        task.attempts.append(attempt)
        task.progress = None
        self._state.leased[attempt.lease_id] = task
        self._lifecycle.move_task(task, TaskStatus.IN_PROGRESS)
        return task

    def _renew(self, task: Task, worker_id: str, running: RunningBody) -> bool:
        """Renew the lease of a task, and return whether the worker still holds it."""
        attempt = _find_attempt(task, running.lease_id, worker_id)
        if attempt is None or attempt.outcome is not None:
            return False
        expires = self._state.now + attempt.length
        attempt.expires = min(expires, attempt.deadline or expires)
        if running.progress is not None:
            attempt.fraction = running.progress.fraction
            task.progress = running.progress.model_dump(by_alias=True)
        if running.checkpoint is not None:
            task.checkpoint = running.checkpoint
        if running.progress is not None or running.checkpoint is not None:
            task.updated = self._state.now
        return True

    def _accept(self, task: Task, report: ReportBody) -> None:
        if report.outcome == "COMPLETED":
            task.result = report.result
        elif report.checkpoint is not None:
            task.checkpoint = report.checkpoint
        error = report.error.model_dump() if report.error and report.outcome == "FAILED" else None
        self._end(task, report.outcome, error=error, retryable=report.retryable, delay=duration(report.delay_seconds))

    def _end(
        self,
        task: Task,
        outcome: str,
        *,
        error: dict[str, Any] | None = None,
        retryable: bool = True,
        delay: timedelta | None = None,
    ) -> None:
        """End the attempt in progress, with all consequences."""
        attempt, now = task.attempts[-1], self._state.now
        del self._state.leased[attempt.lease_id]
        if outcome in FAILURES:
            task.failed += 1
            delay = retry_delay(task.retry, task.failed) if delay is None else delay
        if outcome == "COMPLETED":
            target = TaskStatus.COMPLETED
        elif outcome in FAILURES and not (retryable and task.failed < task.max_attempts):
            target = TaskStatus.FAILED
        else:
            target = TaskStatus.RETRIED if task.failed else TaskStatus.PENDING
        task.error = attempt.error = error
        attempt.outcome, attempt.target, attempt.ended = outcome, target, now
        self._lifecycle.move_task(task, target)
        if target in {TaskStatus.PENDING, TaskStatus.RETRIED}:
            self._state.enqueue(task, None if delay is None else now + delay)


def _find_attempt(task: Task, lease_id: int, worker_id: str) -> Attempt | None:
    """Return the attempt under this lease of this worker."""
    for attempt in task.attempts:
        if attempt.lease_id == lease_id and attempt.worker_id == worker_id:
            return attempt
    return None


def _expiry(attempt: Attempt, *, timed_out: bool) -> tuple[str, dict[str, Any]]:
    """Return the outcome and the error of an attempt that the manager ends."""
    if timed_out:
        return "TIMED_OUT", {"type": "TimedOut", "message": "The attempt took longer than its time limit"}
    if attempt.worker_id is None:
        return "EXPIRED", {"type": "Stale", "message": f"No report arrived within {attempt.length}"}
    message = f"Worker {attempt.worker_id} did not renew its lease within {attempt.length}"
    return "EXPIRED", {"type": "LeaseExpired", "message": message}
