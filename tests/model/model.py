"""A manager as a plain object: the rules of the protocol, written a second time.

Each method is a request: it changes the model and returns the answer that is due. Nothing here does I/O or is fast.
The model shares no code with the managers, so that a mistake in one of them shows as a difference.
"""

from tests.model.bodies import defaults, is_job, is_task, policy, stages_of, under
from tests.model.entities import MINIMAL, PRIORITIES, Answer, Body, Job, Stage, Task, Time
from tests.model.leases import INVALID, Leases
from tests.model.lifecycle import CLIENT, End
from tests.model.stored import NO_JOB, NO_STAGE, NO_TASK, refused

STALE_SECONDS = 30 * 60
"""How long a client without a lease may take for a task."""
FAR = "2100-01-01T00:00:00.000Z"
"""A time that does not come."""
AN_INSTANT = 0.001
"""Seconds: less than the time between two requests."""


def done(code: str) -> Answer:
    """Success without an entity."""
    return Answer(200, {"code": code})


def illegal(entity: str, source: str, target: str) -> Answer:
    """The refusal of a transition that the state machine does not have."""
    return refused(400, f"ILLEGAL_{entity}_STATUS_TRANSITION", f"Illegal status transition from {source} to {target}")


class Model(Leases):
    """A manager with its database: the requests of part A, in addition to those of part B."""

    def __init__(self, *, part_a_only: bool = False) -> None:
        super().__init__()
        self.part_a_only = part_a_only
        """Whether its clients know part A of the protocol alone; see `part_a`."""
        self.keyed: dict[str, Job] = {}
        """The last job with each unique key, also if it was deleted."""

    # Jobs

    def create_job(self, body: Body) -> Answer:
        """Create a job with its stages and tasks, unless another job holds its unique key."""
        if not is_job(body):
            return INVALID
        key = body.get("uniqueKey")
        if key is not None and self._holds(key, body.get("uniqueFor", "running")):
            return Answer(200, self.keyed[key].json(with_stages="stages" in body))
        priority = body.get("priority", "MEDIUM")
        job = Job(**self._new("job", body), name=body["name"], priority=priority)
        self._create(job, "PENDING")
        self.jobs[job.id] = job
        if key is not None:
            self.keyed[key] = job
        for stage_body in stages_of(body):
            stage = self._add_stage(job, under(job, stage_body))
            for task_body in stage_body.get("tasks", ()):
                self._add_task(stage, under(stage, task_body))
        return Answer(201, job.json(with_stages="stages" in body))

    def _holds(self, key: str, span: str | float) -> bool:
        """Whether the last job with this key prevents another: it has not ended, or was created recently enough."""
        last = self.keyed.get(key)
        if last is None or last.id not in self.jobs:
            return False
        return not last.ended if span == "running" else span != AN_INSTANT

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
        if status == "ABORTED":
            self._abort(job)
        else:
            self._move(job, status, CLIENT)
        return done("JOB_MODIFIED_SUCCESSFULLY")

    def set_priority(self, job_id: str, priority: str) -> Answer:
        """Change the priority, which applies to waiting tasks at once."""
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
        """Delete a job that has ended, with its stages and tasks."""
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
        """Add a stage after the last one. It opens at once if it is its turn."""
        job = self.jobs.get(job_id)
        if job is None:
            return NO_JOB
        if job.ended:
            return refused(400, "JOB_IN_FINITE_STATE")
        return Answer(201, self._add_stage(job, body).json())

    def _add_stage(self, job: Job, body: Body) -> Stage:
        stage = Stage(
            **self._new("stage", body),
            job=job,
            type=body["type"],
            order=len(job.stages) + 1,
            weight=body.get("weight", 1),
            task_defaults=defaults(body.get("taskDefaults", {})),
        )
        if body.get("startAsWaiting"):
            self._create(stage, "WAITING")
        else:
            self._create(stage, "PENDING" if stage.in_turn else "CREATED")
        job.stages.append(stage)
        self.stages[stage.id] = stage
        return stage

    def release_stage(self, stage_id: str, status: str) -> Answer:
        """Open a stage that was created as waiting, if it is its turn; an open stage stays open."""
        if status != "PENDING":
            return INVALID
        stage = self.stages.get(stage_id)
        if stage is None:
            return NO_STAGE
        if stage.status in ("CREATED", "WAITING") and not stage.in_turn:
            return refused(400, "ILLEGAL_STAGE_STATUS_TRANSITION", "Previous stage is not COMPLETED")
        if stage.status not in ("WAITING", "PENDING"):
            return illegal("STAGE", stage.status, status)
        self._move(stage, "PENDING", CLIENT)
        return done("STAGE_MODIFIED_SUCCESSFULLY")

    # Tasks

    def add_tasks(self, stage_id: str, bodies: list[Body], *, minimal: bool) -> Answer:
        """Add all tasks or none; a minimal answer has only their number."""
        if not all(map(is_task, bodies)):
            return INVALID
        stage = self.stages.get(stage_id)
        if stage is None:
            return NO_STAGE
        if stage.ended or stage.job.ended:
            return refused(400, "STAGE_IN_FINITE_STATE")
        tasks = [self._add_task(stage, body).json() for body in bodies]
        return Answer(201, {"created": len(tasks)}, MINIMAL) if minimal else Answer(201, tasks)

    def _add_task(self, stage: Stage, body: Body) -> Task:
        options = stage.task_defaults | {name: value for name, value in body.items() if value is not None}
        task = Task(
            **self._new("task", body),
            stage=stage,
            number=len(self.names),
            max_attempts=options.get("maxAttempts", 3),
            timeout=int(options["timeoutSeconds"]) if "timeoutSeconds" in options else None,
            retry=policy(body["retry"]) if body.get("retry") else stage.task_defaults.get("retry"),
        )
        self._create(task, "PENDING", Time(f"creation of {task.id}"))
        stage.tasks.append(task)
        self.tasks[task.id] = task
        if body.get("delaySeconds") or body.get("availableAt") == FAR:
            task.delay = body.get("delaySeconds") or FAR
        else:
            self._queue(task)
        return task

    def dequeue(self, stage_type: str) -> Answer:
        """Claim the next task of a type without a lease."""
        claimed = self._claim(stage_type, 1, None, STALE_SECONDS)
        return Answer(200, claimed[0].json()) if claimed else NO_TASK

    def settle_task(self, task_id: str, status: str) -> Answer:
        """Report a task without a lease, even if its job is paused or has failed."""
        if status not in ("COMPLETED", "FAILED"):
            return INVALID
        task = self.tasks.get(task_id)
        if task is None:
            return NO_TASK
        attempt = task.at_work
        if attempt is None:
            return illegal("TASK", task.status, status)
        if attempt.worker is not None:
            return refused(409, "TASK_STATUS_UPDATE_FAILED")
        self._settle(task, attempt, End(status, CLIENT))
        return Answer(200, task.json())

    # All three

    def set_metadata(self, kind: str, entity_id: str, body: Body) -> Answer:
        """Replace the metadata; a body whose only key is ``userMetadata`` wraps it, except in part A."""
        word = kind.removesuffix("s").upper()
        entity = dict(self.entities()).get(entity_id)
        if entity is None:
            return refused(404, f"{word}_NOT_FOUND")
        is_wrapped = list(body) == ["userMetadata"] and isinstance(body["userMetadata"], dict)
        wrapped = is_wrapped and not self.part_a_only
        entity.user_metadata = body["userMetadata"] if wrapped else body
        return done(f"{word}_MODIFIED_SUCCESSFULLY")
