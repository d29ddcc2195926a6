"""What workers ask for: claim tasks, settle them, keep their leases."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import islice
from typing import Any, Final, cast

from pydantic import ValidationError

from jobnik_sdk.model.definitions import StageStatus, TaskStatus
from jobnik_sdk.testing.fake.bodies import HeartbeatBody, ReportBody, RunningBody, span
from jobnik_sdk.testing.fake.jobs import follow_ended, start
from jobnik_sdk.testing.fake.machines import BURNING, REPORTED, STAGE_OPEN
from jobnik_sdk.testing.fake.requests import complaint
from jobnik_sdk.testing.fake.state import Attempt, Refused, State, Task, WorkerRecord, retry_delay

STALE_AFTER: Final = timedelta(minutes=30)
"""How long a task that was claimed without a lease may take."""
FORGOTTEN_AFTER: Final = timedelta(hours=1)
"""How long a worker is remembered that sends no heartbeat."""
_LOST: Final = "The lease is not, or no longer, the worker's: nothing was changed"


class Work:
    """The queue and the leases of a state."""

    def __init__(self, state: State) -> None:
        self._state = state

    def catch_up(self) -> None:
        """Do what the time has brought: delayed tasks come back, leases end."""
        self._state.wake()
        now = self._state.now()
        over = [task for task in self._state.leased.values() if task.attempts[-1].expires <= now]
        for task in over:
            outcome, error = _cause(task.attempts[-1], timed_out=_timed_out(task.attempts[-1], self._state))
            self._end(task, outcome, error=error)

    def claim(self, stage_type: str, limit: int, worker_id: str | None, lease: timedelta) -> list[Task]:
        """Claim tasks that wait; a worker that is None has no lease, only so much time."""
        return [self._begin(task, worker_id, lease) for task in islice(self._state.claimable(stage_type), limit)]

    def settle(self, worker_id: str, item: Any) -> dict[str, Any]:  # noqa: ANN401 what the body held
        """Take a report, or say why not; what is said again is answered as the first time."""
        named = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
        names = {"taskId": named.get("taskId"), "leaseId": named.get("leaseId")}
        refusal = {**names, "accepted": False, "status": None}
        try:
            report = ReportBody.model_validate(item)
        except ValidationError as error:
            return {**refusal, "code": "VALIDATION_ERROR", "message": complaint(error)}
        task = self._state.tasks.get(report.task_id)
        if task is None:
            return {**refusal, "code": "TASK_NOT_FOUND", "message": "There is no such task"}
        attempt = _attempt(task, report.lease_id, worker_id)
        if attempt is None or (attempt.outcome is not None and attempt.outcome not in REPORTED):
            return {**refusal, "status": task.status, "code": "LEASE_LOST", "message": _LOST}
        if attempt.outcome is None:
            self._report(task, report)
        return {**names, "accepted": True, "status": attempt.target}

    def report(self, task: Task, outcome: str) -> None:
        """Take a report of a task that was claimed without a lease."""
        if task.status is not TaskStatus.IN_PROGRESS:
            message = f"Illegal status transition from {task.status} to {outcome}"
            raise Refused(400, "ILLEGAL_TASK_STATUS_TRANSITION", message)
        if task.attempts[-1].worker_id is not None:
            message = "Somebody else changed the task at the same moment"
            raise Refused(409, "TASK_STATUS_UPDATE_FAILED", message)
        self._end(task, outcome)

    def keep(self, worker_id: str, body: HeartbeatBody) -> dict[str, Any]:
        """Take a heartbeat: renew leases, keep progress and checkpoints; what the worker has to know."""
        now = self._state.now()
        worker = self._state.workers.get(worker_id)
        if worker is None:
            worker = WorkerRecord(id=worker_id, started=now, seen=now, stage_types=body.stage_types)
            self._state.workers[worker_id] = worker
        worker.seen, worker.stage_types, worker.draining = now, body.stage_types, body.draining
        worker.host, worker.version = body.host or worker.host, body.version or worker.version
        worker.running = len(body.running)
        lost: list[int] = []
        cancel: list[int] = []
        for one in body.running:
            task = self._state.tasks.get(one.task_id)
            if task is not None and task.stage.status is StageStatus.ABORTED:
                cancel.append(one.lease_id)
            elif task is None or not self._renew(task, worker_id, one):
                lost.append(one.lease_id)
        return {"lost": lost, "cancel": cancel, "drain": worker.drain_wanted}

    def leave(self, worker_id: str) -> None:
        """Forget a worker that ends, and hand back what it still holds."""
        self._state.workers.pop(worker_id, None)
        for task in [*self._state.leased.values()]:
            if task.attempts[-1].worker_id == worker_id:
                self._end(task, "RELEASED")

    def workers(self) -> Sequence[WorkerRecord]:
        """The workers that sent a heartbeat lately, by name."""
        since = self._state.now() - FORGOTTEN_AFTER
        return [worker for _, worker in sorted(self._state.workers.items()) if worker.seen > since]

    def depth(self, stage_type: str) -> dict[str, int]:
        """How many tasks of a stage type may be claimed, how many are in progress, and both together."""
        stages = self._state.stages_by_type.get(stage_type, ())
        waiting = sum(len(stage.ready) for stage in stages if stage.open)
        running = sum(stage.counts[TaskStatus.IN_PROGRESS] for stage in stages if stage.status in STAGE_OPEN)
        return {"waiting": waiting, "inProgress": running, "total": waiting + running}

    def _begin(self, task: Task, worker_id: str | None, lease: timedelta) -> Task:
        now = self._state.now()
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
        self._state.leased[attempt.lease_id] = task
        self._state.move_task(task, TaskStatus.IN_PROGRESS)
        task.started, task.progress = now, None
        start(self._state, task.stage)
        return task

    def _renew(self, task: Task, worker_id: str, one: RunningBody) -> bool:
        attempt = _attempt(task, one.lease_id, worker_id)
        if attempt is None or attempt.outcome is not None:
            return False
        expires = self._state.now() + attempt.length
        attempt.expires = min(expires, attempt.deadline or expires)
        if one.progress is not None:
            attempt.fraction = one.progress.fraction
            task.progress = one.progress.model_dump(by_alias=True)
        if one.checkpoint is not None:
            task.checkpoint = one.checkpoint
        if one.progress is not None or one.checkpoint is not None:
            task.updated = self._state.now()
        return True

    def _report(self, task: Task, report: ReportBody) -> None:
        completed = report.outcome == "COMPLETED"
        if completed:
            task.result = report.result
        elif report.checkpoint is not None:
            task.checkpoint = report.checkpoint
        error = report.error.model_dump() if report.error and report.outcome == "FAILED" else None
        self._end(task, report.outcome, error=error, retryable=report.retryable, delay=span(report.delay_seconds))

    def _end(
        self,
        task: Task,
        outcome: str,
        *,
        error: dict[str, Any] | None = None,
        retryable: bool = True,
        delay: timedelta | None = None,
    ) -> None:
        """End the attempt that is under way, with all that follows from it."""
        attempt, now = task.attempts[-1], self._state.now()
        del self._state.leased[attempt.lease_id]
        if outcome in BURNING:
            task.failed += 1
            delay = retry_delay(task.retry, task.failed) if delay is None else delay
        if outcome == "COMPLETED":
            target = TaskStatus.COMPLETED
        elif outcome not in BURNING:
            target = TaskStatus.RETRIED if task.failed else TaskStatus.PENDING
        else:
            target = TaskStatus.RETRIED if retryable and task.failed < task.max_attempts else TaskStatus.FAILED
        self._state.move_task(task, target)
        task.error = attempt.error = error
        attempt.outcome, attempt.target, attempt.ended = outcome, target, now
        if target in {TaskStatus.PENDING, TaskStatus.RETRIED}:
            self._state.enqueue(task, None if delay is None else now + delay)
            return
        task.ended = now
        self._end_stage(task)

    def _end_stage(self, task: Task) -> None:
        stage = task.stage
        if stage.status is not StageStatus.IN_PROGRESS:
            return
        if task.status is TaskStatus.FAILED:
            self._state.move_stage(stage, StageStatus.FAILED)
        elif stage.counts[TaskStatus.COMPLETED] == len(stage.tasks):
            self._state.move_stage(stage, StageStatus.COMPLETED)
        else:
            return
        stage.ended = stage.updated
        follow_ended(self._state, stage)


def _attempt(task: Task, lease_id: int, worker_id: str) -> Attempt | None:
    """The attempt that was made under a lease of this worker."""
    for attempt in task.attempts:
        if attempt.lease_id == lease_id and attempt.worker_id == worker_id:
            return attempt
    return None


def _timed_out(attempt: Attempt, state: State) -> bool:
    return attempt.deadline is not None and attempt.deadline <= state.now()


def _cause(attempt: Attempt, *, timed_out: bool) -> tuple[str, dict[str, Any]]:
    """Why the manager ends an attempt: the outcome and the error."""
    if timed_out:
        return "TIMED_OUT", {"type": "TimedOut", "message": "The attempt took longer than its time limit"}
    if attempt.worker_id is None:
        return "EXPIRED", {"type": "Stale", "message": f"Nobody reported the task within {attempt.length}"}
    message = f"Worker {attempt.worker_id} did not renew its lease within {attempt.length}"
    return "EXPIRED", {"type": "LeaseExpired", "message": message}
