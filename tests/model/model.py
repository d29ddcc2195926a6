"""A manager as a plain object: the protocol's rules once more, each in the words of the protocol.

A method is what a request means: it does what follows and returns the answer that is due. Nothing here does I/O or is
fast. Nothing is shared with the manager either, so that a mistake in one of the two shows as a difference.
"""

from typing import Any

from tests.model.entities import PRIORITIES, Answer, Body, Id, Job, Stage, Task, Time
from tests.model.stored import NO_JOB, NO_STAGE, NO_TASK, Stored, refused

NO_TRACE = "00-00000000000000000000000000000000-0000000000000000-00"


def done(code: str) -> Answer:
    """Success without an entity."""
    return Answer(200, {"code": code})


def illegal(entity: str, source: str, target: str) -> Answer:
    """The refusal of a move that the state machine does not have."""
    return refused(400, f"ILLEGAL_{entity}_STATUS_TRANSITION", f"Illegal status transition from {source} to {target}")


INVALID = refused(400, "VALIDATION_ERROR")


class Model(Stored):
    """A manager with its database."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[Id] = []
        """Of all that there is or was, oldest first."""

    # Jobs

    def create_job(self, body: Body) -> Answer:
        """It is PENDING at once."""
        priority = body.get("priority", "MEDIUM")
        job = Job(**self._new("job", body), status="PENDING", name=body["name"], priority=priority)
        self.jobs[job.id] = job
        return Answer(201, job.json())

    def set_job_status(self, job_id: str, status: str) -> Answer:
        """Pause, resume or abort."""
        sources = {
            "PAUSED": ("PENDING", "IN_PROGRESS"),
            "PENDING": ("PAUSED",),
            "ABORTED": ("CREATED", "PENDING", "IN_PROGRESS", "PAUSED"),
        }
        if status not in sources:
            return INVALID
        job = self.jobs.get(job_id)
        if job is None:
            return NO_JOB
        if job.status not in sources[status]:
            return illegal("JOB", job.status, status)
        job.status = status
        if status == "ABORTED":
            for stage in job.stages:
                for part in (stage, *stage.tasks):
                    if not part.ended:
                        self._end(part, "ABORTED")
        return done("JOB_MODIFIED_SUCCESSFULLY")

    def set_priority(self, job_id: str, priority: str) -> Answer:
        """It counts for the job's waiting tasks at once."""
        if priority not in PRIORITIES:
            return INVALID
        job = self.jobs.get(job_id)
        if job is None:
            return NO_JOB
        if job.priority == priority:
            return Answer(204, None)
        job.priority = priority
        return done("JOB_MODIFIED_SUCCESSFULLY")

    def delete_job(self, job_id: str) -> Answer:
        """Only what has ended goes, with all that belongs to it."""
        job = self.jobs.get(job_id)
        if job is None:
            return NO_JOB
        if not job.ended:
            return refused(400, "JOB_NOT_IN_FINITE_STATE")
        del self.jobs[job_id]
        for stage in job.stages:
            del self.stages[stage.id]
            for task in stage.tasks:
                del self.tasks[task.id]
        return done("JOB_DELETED_SUCCESSFULLY")

    # Stages

    def add_stage(self, job_id: str, body: Body) -> Answer:
        """Behind the job's last one; it opens at once if it is its turn."""
        job = self.jobs.get(job_id)
        if job is None:
            return NO_JOB
        if job.ended:
            return refused(400, "JOB_IN_FINITE_STATE")
        order = len(job.stages) + 1
        stage = Stage(**self._new("stage", body), status="CREATED", job=job, type=body["type"], order=order)
        if body.get("startAsWaiting"):
            stage.status = "WAITING"
        elif stage.in_turn:
            stage.status = "PENDING"
        job.stages.append(stage)
        self.stages[stage.id] = stage
        return Answer(201, stage.json())

    def release_stage(self, stage_id: str, status: str) -> Answer:
        """What was created as waiting opens, in its turn; what is open already stays so."""
        if status != "PENDING":
            return INVALID
        stage = self.stages.get(stage_id)
        if stage is None:
            return NO_STAGE
        if stage.status in ("CREATED", "WAITING") and not stage.in_turn:
            return refused(400, "ILLEGAL_STAGE_STATUS_TRANSITION", "Previous stage is not COMPLETED")
        if stage.status not in ("WAITING", "PENDING"):
            return illegal("STAGE", stage.status, status)
        stage.status = "PENDING"
        return done("STAGE_MODIFIED_SUCCESSFULLY")

    # Tasks

    def add_tasks(self, stage_id: str, bodies: list[Body]) -> Answer:
        """All or none."""
        if any(body.get("maxAttempts", 3) < 1 for body in bodies):
            return INVALID
        stage = self.stages.get(stage_id)
        if stage is None:
            return NO_STAGE
        if stage.ended or stage.job.ended:
            return refused(400, "STAGE_IN_FINITE_STATE")
        return Answer(201, [self._add_task(stage, body).json() for body in bodies])

    def _add_task(self, stage: Stage, body: Body) -> Task:
        task = Task(
            **self._new("task", body),
            status="PENDING",
            stage=stage,
            number=len(self.names),
            max_attempts=body.get("maxAttempts", 3),
        )
        stage.tasks.append(task)
        self.tasks[task.id] = task
        self._queue(task)
        return task

    def dequeue(self, stage_type: str) -> Answer:
        """Claim the next task of a type. Its stage and its job have begun with it."""
        task = self._next(stage_type)
        if task is None:
            return NO_TASK
        task.claims += 1
        task.status = "IN_PROGRESS"
        task.start_time = Time(f"claim {task.claims} of {task.id}", unlike=task.start_time)
        if task.stage.status == "PENDING":
            task.stage.status, task.stage.start_time = "IN_PROGRESS", Time(f"start of {task.stage.id}")
        task.stage.job.status = "IN_PROGRESS"
        return Answer(200, task.json())

    def settle_task(self, task_id: str, status: str) -> Answer:
        """Who claimed it reports, also while its job is paused, and after the job has failed."""
        if status not in ("COMPLETED", "FAILED"):
            return INVALID
        task = self.tasks.get(task_id)
        if task is None:
            return NO_TASK
        if task.status != "IN_PROGRESS":
            return illegal("TASK", task.status, status)
        if status == "COMPLETED":
            self._end(task, "COMPLETED")
            self._complete(task.stage)
        else:
            self._fail(task)
        return Answer(200, task.json())

    # What follows

    def _queue(self, task: Task) -> None:
        """A task waits, and its stage is in the queue: at its own place, unless this task is older."""
        place = task.stage.place
        task.stage.place = task.number if place is None else min(place, task.number)

    def _next(self, stage_type: str) -> Task | None:
        """The task to claim: of the most urgent job, of the stage that has waited longest, the oldest one.

        A stage leaves the queue when a claim finds nothing in it, and will have a new place when it comes back.
        """
        queue = [
            (PRIORITIES.index(stage.job.priority), stage.place, stage)
            for stage in self.stages.values()
            if stage.type == stage_type and stage.open and stage.place is not None
        ]
        for _, _, stage in sorted(queue, key=lambda candidate: candidate[:2]):
            for task in stage.tasks:
                if task.waiting:
                    return task
            stage.place = None
        return None

    def _complete(self, stage: Stage) -> None:
        """When all its tasks are completed a stage is, and the next one opens; with the last stage the job is."""
        if stage.ended or any(task.status != "COMPLETED" for task in stage.tasks):
            return
        self._end(stage, "COMPLETED")
        if stage.next and stage.next.status == "CREATED":
            stage.next.status = "PENDING"
        if all(other.status == "COMPLETED" for other in stage.job.stages):
            stage.job.status = "COMPLETED"

    def _fail(self, task: Task) -> None:
        """A task is tried again, at its old place, until it has no attempt left: then its stage and its job fail."""
        task.attempts += 1
        if task.attempts < task.max_attempts:
            task.status = "RETRIED"
            self._queue(task)
            return
        self._end(task, "FAILED")
        if not task.stage.ended:
            self._end(task.stage, "FAILED")
            task.stage.job.status = "FAILED"

    def _end(self, part: Stage | Task, status: str) -> None:
        part.status, part.end_time = status, Time(f"end of {part.id}")

    # All three

    def set_metadata(self, kind: str, entity_id: str, body: Body) -> Answer:
        """The whole of it; a body whose only key is ``userMetadata`` may wrap it."""
        word = kind.removesuffix("s").upper()
        entity = dict(self.entities()).get(entity_id)
        if entity is None:
            return refused(404, f"{word}_NOT_FOUND")
        wrapped = list(body) == ["userMetadata"] and isinstance(body["userMetadata"], dict)
        entity.user_metadata = body["userMetadata"] if wrapped else body
        return done(f"{word}_MODIFIED_SUCCESSFULLY")

    def _new(self, entity: str, body: Body) -> dict[str, Any]:
        """What every new entity gets, and what its creator says of it whatever it is."""
        self.names.append(Id(f"{entity}-{len(self.names) + 1}"))
        return {
            "id": self.names[-1],
            "data": body["data"],
            "user_metadata": body.get("userMetadata", {}),
            "traceparent": body.get("traceparent", NO_TRACE),
        }
