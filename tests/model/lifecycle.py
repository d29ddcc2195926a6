"""How jobs, stages and tasks move, and what follows from each move: the rules that all clients share."""

from typing import Any, NamedTuple

from tests.model.bodies import NO_TRACE, trace_of
from tests.model.entities import PRIORITIES, Attempt, Body, Entity, Id, Job, Json, Lease, Stage, Task, Time, Wording
from tests.model.stored import Stored

CLIENT, MANAGER = "client", "manager"
REASON = Wording()

Move = tuple[str, str, str]
"""What moved, from which status, to which."""


class End(NamedTuple):
    """How an attempt ends.

    Args:
        outcome: As its history has it.
        by: Who says so.
        retryable: Whether a failed task may be tried again.
        delay: For how many seconds a task that goes back to the queue is not handed out; None: after a failed attempt
            as its retry policy says, else not at all.
    """

    outcome: str
    by: str
    result: Json = None
    error: Body | None = None
    retryable: bool = True
    delay: int | None = None


class Lifecycle(Stored):
    """A manager without its clients."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[Id] = []
        """Of all that there is or was, oldest first."""
        self.moves: set[Move] = set()
        """Every edge that was taken."""
        self._claims = 0

    # What begins

    def _new(self, entity: str, body: Body) -> dict[str, Any]:
        """What every new entity gets, and what its creator says of it whatever it is."""
        self.names.append(Id(f"{entity}-{len(self.names) + 1}"))
        return {
            "id": self.names[-1],
            "data": body["data"],
            "user_metadata": body.get("userMetadata", {}),
            "trace": trace_of(body) or NO_TRACE,
        }

    def _queue(self, task: Task) -> None:
        """A task waits, and its stage is in the queue: at its own place, unless this task is older."""
        place = task.stage.place
        task.stage.place = task if place is None or task.number < place.number else place

    def _claim(self, stage_type: str, limit: int, worker: str | None, seconds: int) -> list[Task]:
        """The next tasks of a type begin, and their stages and jobs with them."""
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
        """The tasks to claim: of the most urgent job, of the stage that has waited longest, the oldest ones.

        A stage leaves the queue when a claim does not find enough in it, and will have a new place when it comes back.
        """
        queue = [
            (PRIORITIES.index(stage.job.priority), stage.place.number, stage)
            for stage in self.stages.values()
            if stage.type == stage_type and stage.open and stage.place is not None
        ]
        found: list[Task] = []
        for _, _, stage in sorted(queue, key=lambda candidate: candidate[:2]):
            found += [task for task in stage.tasks if task.waiting][: limit - len(found)]
            if len(found) == limit:
                break
            stage.place = None
        return found

    # What ends

    def _settle(self, task: Task, attempt: Attempt, end: End) -> None:
        """An attempt ends, and its task is completed, fails for good, or goes back to the queue."""
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
        """When all its tasks are completed a stage is, and the next one opens; with the last stage the job is."""
        if stage.ended or any(task.status != "COMPLETED" for task in stage.tasks):
            return
        self._end_stage(stage, "COMPLETED")
        if stage.next and stage.next.status == "CREATED":
            self._move(stage.next, "PENDING", MANAGER)
        if all(other.status == "COMPLETED" for other in stage.job.stages):
            self._move(stage.job, "COMPLETED", MANAGER)

    def _abort(self, job: Job) -> None:
        """What is unfinished in it ends with it."""
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

    # Both

    def _move(self, entity: Entity, status: str, by: str, at: Time | None = None) -> None:
        """A change of status is in the history; what has the status already does not change."""
        if entity.status != status:
            self.moves.add((entity.id.partition("-")[0], entity.status, status))
            self._note(entity, entity.status, status, by, at)
            entity.status = status

    def _create(self, entity: Entity, status: str, at: Time | None = None) -> None:
        """Its history begins with the status that it was created with."""
        if status != "CREATED":
            self.moves.add((entity.id.partition("-")[0], "CREATED", status))
        self._note(entity, None, status, CLIENT, at)
        entity.status = status

    def _note(self, entity: Entity, source: str | None, target: str, by: str, at: Time | None) -> None:
        at = at or Time(f"change {len(entity.changes) + 1} of {entity.id}")
        entity.changes.append({"from": source, "to": target, "at": at, "by": by, "reason": REASON})
