"""What producers ask for: create jobs, stages and tasks, steer them, delete them."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from jobnik_sdk.model.definitions import JobStatus, Priority, StageStatus, TaskStatus
from jobnik_sdk.testing.fake.bodies import (
    Created,
    JobBody,
    PlainJobBody,
    PlainStageBody,
    PlainTaskBody,
    StageBody,
    TaskBody,
    span,
)
from jobnik_sdk.testing.fake.machines import CLIENT, JOB, JOB_ENDED, STAGE, STAGE_ENDED, TASK_ENDED
from jobnik_sdk.testing.fake.state import Job, Refused, Stage, State, Task, Trace, created


class Jobs:
    """Jobs, stages and tasks of a state."""

    def __init__(self, state: State) -> None:
        self._state = state

    def create(self, body: PlainJobBody, trace: Trace) -> tuple[Job, bool]:
        """Create a job with the stages and tasks that come with it; or return the one that has its unique key.

        Whether it is new comes along.
        """
        if isinstance(body, JobBody) and body.unique_key is not None:
            holder = self._state.keys.get(body.unique_key)
            if holder is not None and self._holds(holder, body.unique_for):
                return holder, False
        job = Job(**self._new(body, trace), name=body.name, priority=body.priority)
        job.changes.append(created(job))
        self._state.jobs[job.id] = job
        if isinstance(body, JobBody):
            if body.unique_key is not None:
                self._state.keys[body.unique_key] = job
            for stage_body in body.stages:
                stage = self.add_stage(job, stage_body, job.trace)
                self.add_tasks(stage, stage_body.tasks, stage.trace)
        return job, True

    def add_stage(self, job: Job, body: PlainStageBody, trace: Trace) -> Stage:
        """Add a stage behind the last one of a job."""
        if job.status in JOB_ENDED:
            raise Refused(400, "JOB_IN_FINITE_STATE", f"The job is {job.status}: nothing can be added any more")
        previous = job.stages[-1].status if job.stages else None
        if body.start_as_waiting:
            status = StageStatus.WAITING
        elif previous in {None, StageStatus.COMPLETED}:
            status = StageStatus.PENDING
        else:
            status = StageStatus.CREATED
        stage = Stage(**self._new(body, trace), job=job, type=body.type, status=status)
        if isinstance(body, StageBody):
            stage.weight = body.weight
            if body.task_defaults is not None:
                stage.task_defaults = body.task_defaults.options()
        stage.changes.append(created(stage))
        job.stages.append(stage)
        job.updated = stage.created
        self._state.stages[stage.id] = stage
        self._state.stages_by_type[stage.type].append(stage)
        return stage

    def add_tasks(self, stage: Stage, bodies: Sequence[PlainTaskBody], trace: Trace) -> list[Task]:
        """Add tasks to a stage."""
        if stage.status in STAGE_ENDED or stage.job.status in JOB_ENDED:
            ended = stage.status in STAGE_ENDED
            whose = f"stage is {stage.status}" if ended else f"job of this stage is {stage.job.status}"
            raise Refused(400, "STAGE_IN_FINITE_STATE", f"The {whose}: nothing can be added any more")
        return [self._add_task(stage, body, trace) for body in bodies]

    def set_metadata(self, entity: Job | Stage | Task, metadata: dict[str, Any]) -> None:
        """Replace an entity's metadata."""
        entity.metadata, entity.updated = metadata, self._state.now()

    def set_priority(self, job: Job, priority: Priority) -> bool:
        """Change a job's priority; whether it was another before."""
        if job.priority is priority:
            return False
        job.priority, job.updated = priority, self._state.now()
        return True

    def set_status(self, job: Job, target: JobStatus) -> None:
        """Pause, resume or abort a job."""
        edge = JOB.get((job.status, target))
        if edge is None or edge.by != CLIENT:
            raise Refused(400, "ILLEGAL_JOB_STATUS_TRANSITION", _illegal(job.status, target))
        self._state.move_job(job, target)
        if target is JobStatus.ABORTED:
            for stage in job.stages:
                if stage.status not in STAGE_ENDED:
                    self._abort(stage)

    def release(self, stage: Stage) -> None:
        """Let a stage that was created as waiting begin."""
        if stage.status is StageStatus.PENDING:
            return
        its_turn = stage.previous is None or stage.previous.status is StageStatus.COMPLETED
        if stage.status in {StageStatus.CREATED, StageStatus.WAITING} and not its_turn:
            raise Refused(400, "ILLEGAL_STAGE_STATUS_TRANSITION", "Previous stage is not COMPLETED")
        edge = STAGE.get((stage.status, StageStatus.PENDING))
        if edge is None or edge.by != CLIENT:
            raise Refused(400, "ILLEGAL_STAGE_STATUS_TRANSITION", _illegal(stage.status, StageStatus.PENDING))
        self._state.move_stage(stage, StageStatus.PENDING)

    def delete(self, job: Job) -> None:
        """Delete a job that has ended, with all that belongs to it."""
        if job.status not in JOB_ENDED:
            message = f"The job is {job.status}: abort it first, or wait until it has ended"
            raise Refused(400, "JOB_NOT_IN_FINITE_STATE", message)
        del self._state.jobs[job.id]
        for stage in job.stages:
            del self._state.stages[stage.id]
            self._state.stages_by_type[stage.type].remove(stage)
            for task in stage.tasks:
                del self._state.tasks[task.id]
                if task.attempts:
                    self._state.leased.pop(task.attempts[-1].lease_id, None)

    def _holds(self, holder: Job, unique_for: float | str) -> bool:
        """Whether a job keeps others from having its unique key."""
        if isinstance(unique_for, str):
            return holder.id in self._state.jobs and holder.status not in JOB_ENDED
        return holder.id in self._state.jobs and self._state.now() < holder.created + timedelta(seconds=unique_for)

    def _new(self, body: Created, trace: Trace) -> dict[str, Any]:
        if body.traceparent is not None:
            trace = Trace(body.traceparent, body.tracestate)
        return {**self._state.fresh(), "data": body.data, "metadata": body.user_metadata, "trace": trace}

    def _add_task(self, stage: Stage, body: PlainTaskBody, trace: Trace) -> Task:
        defaults = stage.task_defaults or {}
        said = "max_attempts" in body.model_fields_set
        most = body.max_attempts if said else defaults.get("maxAttempts", body.max_attempts)
        task = Task(**self._new(body, trace), stage=stage, max_attempts=most)
        due = None
        if isinstance(body, TaskBody):
            task.timeout = span(body.timeout_seconds or defaults.get("timeoutSeconds"))
            task.retry = body.retry.policy() if body.retry else defaults.get("retry")
            due = body.available_at
            if body.delay_seconds is not None:
                due = task.created + timedelta(seconds=body.delay_seconds)
        stage.tasks.append(task)
        stage.counts[task.status] += 1
        stage.updated = task.created
        self._state.tasks[task.id] = task
        self._state.enqueue(task, due)
        return task

    def _abort(self, stage: Stage) -> None:
        self._state.move_stage(stage, StageStatus.ABORTED)
        stage.ended = stage.updated
        stage.ready.clear()
        for task in stage.tasks:
            if task.status in TASK_ENDED:
                continue
            if task.status is TaskStatus.IN_PROGRESS:
                attempt = task.attempts[-1]
                attempt.outcome, attempt.ended = "ABORTED", stage.ended
                self._state.leased.pop(attempt.lease_id, None)
            self._state.move_task(task, TaskStatus.ABORTED)
            task.ended = stage.ended


def follow_ended(state: State, stage: Stage) -> None:
    """Do what follows when a stage has ended: the next one opens, or the job ends."""
    job = stage.job
    if stage.status is StageStatus.FAILED:
        if job.status not in JOB_ENDED:
            state.move_job(job, JobStatus.FAILED)
        return
    job.updated = state.now()
    for following in job.stages[stage.order : stage.order + 1]:
        if following.status is StageStatus.CREATED:
            state.move_stage(following, StageStatus.PENDING)
    if job.status not in JOB_ENDED and _all_completed(job.stages):
        state.move_job(job, JobStatus.COMPLETED)


def start(state: State, stage: Stage) -> None:
    """Do what follows when a task is claimed: its stage and its job are in progress."""
    if stage.status is StageStatus.PENDING:
        state.move_stage(stage, StageStatus.IN_PROGRESS)
        stage.started = stage.updated
    if stage.job.status is JobStatus.PENDING:
        state.move_job(stage.job, JobStatus.IN_PROGRESS)


def _all_completed(stages: Iterable[Stage]) -> bool:
    return all(stage.status is StageStatus.COMPLETED for stage in stages)


def _illegal(source: str, target: str) -> str:
    return f"Illegal status transition from {source} to {target}"
