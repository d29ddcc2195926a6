"""The transitions of jobs, stages and tasks and their effects: the rules that all requests share."""

from typing import Any, NamedTuple

from tests.model.bodies import NO_TRACE, trace_of
from tests.model.entities import PRIORITIES, Attempt, Body, Entity, Id, Job, Json, Lease, Stage, Task, Time, Wording
from tests.model.stored import Stored

CLIENT, MANAGER = "client", "manager"
REASON = Wording()

Move = tuple[str, str, str]
"""The kind of entity, its status before and its status after."""


class End(NamedTuple):
    """How an attempt ends.

    Args:
        outcome: The outcome as the list of attempts has it.
        by: Who ends it, as the history has it.
        retryable: Whether a failed task may have another attempt.
        delay: For how many seconds a task that returns to the queue cannot be claimed; None: after a failed attempt
            as its retry policy says, otherwise not at all.
    """

    outcome: str
    by: str
    result: Json = None
    error: Body | None = None
    retryable: bool = True
    delay: int | None = None


class Lifecycle(Stored):
    """Everything that a manager does with jobs, stages and tasks, apart from its requests."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[Id] = []
        """Of all entities, also of those that were deleted, oldest first."""
        self.moves: set[Move] = set()
        """All transitions so far."""
        self._claims = 0

    # Creation and claims

    def _new(self, entity: str, body: Body) -> dict[str, Any]:
        """The fields that all new entities share."""
        self.names.append(Id(f"{entity}-{len(self.names) + 1}"))
        return {
            "id": self.names[-1],
            "data": body["data"],
            "user_metadata": body.get("userMetadata", {}),
            "trace": trace_of(body) or NO_TRACE,
        }

    def _queue(self, task: Task) -> None:
        """Let a task wait in the queue. Its stage keeps its place there, unless this task is older."""
        place = task.stage.place
        task.stage.place = task if place is None or task.number < place.number else place

    def _claim(self, stage_type: str, limit: int, worker: str | None, seconds: int) -> list[Task]:
        """Claim the next tasks of a type, and start their stages and jobs."""
        self._claims += 1
        claimed = self._next(stage_type, limit)
        for place, task in enumerate(claimed):
            start = Time(f"claim {self._claims} of {task.id}", unlike=task.tries[-1].start_time if task.tries else None)
            deadline = Time(f"deadline of claim {self._claims} of {task.id}") if task.timeout else None
            expires = Time(f"end of the lease of {task.id} by claim {self._claims}")
            attempt = Attempt(
                lease=Lease(self._claims, place),
                worker=worker,
                source=task.status,
                start_time=start,
                seconds=seconds,
                expires=deadline if deadline and task.timeout and task.timeout <= seconds else expires,
                deadline=deadline,
            )
            task.tries.append(attempt)
            task.progress = None
            self._move(task, "IN_PROGRESS", worker or CLIENT, start)
            if task.stage.status == "PENDING":
                self._move(task.stage, "IN_PROGRESS", MANAGER)
                task.stage.start_time = Time(f"start of {task.stage.id}")
            self._move(task.stage.job, "IN_PROGRESS", MANAGER)
        return claimed

    def _next(self, stage_type: str, limit: int) -> list[Task]:
        """The tasks to claim: by the priority of the job, then the longest wait of the stage, then the age of the task.

        A stage leaves the queue when its last waiting task is claimed, and gets a new place when it returns.
        """
        queue = [
            (PRIORITIES.index(stage.job.priority), stage.place.number, stage)
            for stage in self.stages.values()
            if stage.type == stage_type and stage.open and stage.place is not None
        ]
        found: list[Task] = []
        for _, _, stage in sorted(queue, key=lambda candidate: candidate[:2]):
            waiting = [task for task in stage.tasks if task.waiting]
            taken = waiting[: limit - len(found)]
            found += taken
            if len(taken) == len(waiting):
                stage.place = None
            if len(found) == limit:
                break
        return found

    # Ends

    def _settle(self, task: Task, attempt: Attempt, end: End) -> None:
        """End an attempt: its task is completed, has failed, or returns to the queue."""
        failed = end.outcome in ("FAILED", "EXPIRED", "TIMED_OUT")
        attempt.outcome, attempt.error = end.outcome, end.error
        attempt.end_time = Time(f"end of {task.id} by claim {attempt.lease.claim}")
        task.result, task.error = end.result, end.error
        task.attempts += failed
        if end.outcome == "COMPLETED":
            target = "COMPLETED"
        elif failed and not (end.retryable and task.attempts < task.max_attempts):
            target = "FAILED"
        else:
            target = "RETRIED" if task.attempts else "PENDING"
        self._move(task, target, end.by, attempt.end_time)
        if end.by != MANAGER:
            attempt.settled = target
        if not task.ended:
            pause = task.pause if failed else 0
            task.delay = (pause if end.delay is None else end.delay) or None
            if task.waiting:
                self._queue(task)
            return
        task.end_time = attempt.end_time
        if target == "COMPLETED":
            self._complete(task.stage)
        elif not task.stage.ended:
            self._end_stage(task.stage, "FAILED")
            self._move(task.stage.job, "FAILED", MANAGER)

    def _complete(self, stage: Stage) -> None:
        """Complete a stage with its last task. Then open the next stage, or complete the job with its last stage."""
        if stage.ended or any(task.status != "COMPLETED" for task in stage.tasks):
            return
        self._end_stage(stage, "COMPLETED")
        if stage.next and stage.next.status == "CREATED":
            self._move(stage.next, "PENDING", MANAGER)
        if all(other.status == "COMPLETED" for other in stage.job.stages):
            self._move(stage.job, "COMPLETED", MANAGER)

    def _abort(self, job: Job) -> None:
        """Abort a job with its unfinished stages and tasks."""
        self._move(job, "ABORTED", CLIENT)
        for stage in job.stages:
            if not stage.ended:
                self._end_stage(stage, "ABORTED")
            for task in stage.tasks:
                if task.ended:
                    continue
                task.end_time = Time(f"end of {task.id}")
                if attempt := task.at_work:
                    attempt.outcome, attempt.end_time = "ABORTED", task.end_time
                self._move(task, "ABORTED", MANAGER, task.end_time)

    def _end_stage(self, stage: Stage, status: str) -> None:
        self._move(stage, status, MANAGER)
        stage.end_time = Time(f"end of {stage.id}")

    # Transitions

    def _move(self, entity: Entity, status: str, by: str, at: Time | None = None) -> None:
        """Change the status, with a row in the history; an entity that already has the status does not change."""
        if entity.status != status:
            self.moves.add((entity.id.partition("-")[0], entity.status, status))
            self._note(entity, entity.status, status, by, at)
            entity.status = status

    def _create(self, entity: Entity, status: str, at: Time | None = None) -> None:
        """Begin the history of a new entity with its first status."""
        if status != "CREATED":
            self.moves.add((entity.id.partition("-")[0], "CREATED", status))
        self._note(entity, None, status, CLIENT, at)
        entity.status = status

    def _note(self, entity: Entity, source: str | None, target: str, by: str, at: Time | None) -> None:
        at = at or Time(f"change {len(entity.changes) + 1} of {entity.id}")
        entity.changes.append({"from": source, "to": target, "at": at, "by": by, "reason": REASON})
