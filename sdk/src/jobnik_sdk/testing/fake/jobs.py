"""The actions of producers: create jobs, stages and tasks, change them, and delete jobs."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from jobnik_sdk.model.definitions import JobStatus, Priority, StageStatus
from jobnik_sdk.testing.fake.bodies import (
    Created,
    JobBody,
    PlainJobBody,
    PlainStageBody,
    PlainTaskBody,
    StageBody,
    TaskBody,
    duration,
)
from jobnik_sdk.testing.fake.lifecycle import Lifecycle
from jobnik_sdk.testing.fake.state import Job, RefusedRequestError, Stage, State, Task, Trace, creation
from jobnik_sdk.testing.fake.transitions import CLIENT, JOB, JOB_FINAL, STAGE, STAGE_FINAL


class Jobs:
    """The jobs, stages and tasks of a state."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._lifecycle = Lifecycle(state)

    def create(self, body: PlainJobBody, trace: Trace) -> tuple[Job, bool]:
        """Create a job with its stages and tasks, unless another job holds its unique key.

        Returns:
            The new job and True, or the job that holds the key and False.
        """
        if isinstance(body, JobBody) and body.unique_key is not None:
            holder = self._state.keys.get(body.unique_key)
            if holder is not None and self._holds_key(holder, body.unique_for):
                return holder, False
        job = Job(**self._fields(body, trace), name=body.name, priority=body.priority)
        job.changes.append(creation(job))
        self._state.jobs[job.id] = job
        if isinstance(body, JobBody):
            if body.unique_key is not None:
                self._state.keys[body.unique_key] = job
            for stage_body in body.stages:
                stage = self.add_stage(job, stage_body, job.trace)
                self.add_tasks(stage, stage_body.tasks, stage.trace)
        return job, True

    def add_stage(self, job: Job, body: PlainStageBody, trace: Trace) -> Stage:
        """Add a stage after the last stage of a job."""
        if job.status in JOB_FINAL:
            raise RefusedRequestError(400, "JOB_IN_FINITE_STATE", f"The job is {job.status}: nothing more can be added")
        previous = job.stages[-1].status if job.stages else None
        if body.start_as_waiting:
            status = StageStatus.WAITING
        elif previous in {None, StageStatus.COMPLETED}:
            status = StageStatus.PENDING
        else:
            status = StageStatus.CREATED
        stage = Stage(**self._fields(body, trace), job=job, type=body.type, status=status)
        if isinstance(body, StageBody):
            stage.weight = body.weight
            if body.task_defaults is not None:
                stage.task_defaults = body.task_defaults.options()
        stage.changes.append(creation(stage))
        job.stages.append(stage)
        job.updated = stage.created
        self._state.stages[stage.id] = stage
        self._state.stages_by_type[stage.type].append(stage)
        return stage

    def add_tasks(self, stage: Stage, bodies: Sequence[PlainTaskBody], trace: Trace) -> list[Task]:
        """Add tasks to a stage."""
        if stage.status in STAGE_FINAL or stage.job.status in JOB_FINAL:
            ended = stage.status in STAGE_FINAL
            whose = f"stage is {stage.status}" if ended else f"job of this stage is {stage.job.status}"
            raise RefusedRequestError(400, "STAGE_IN_FINITE_STATE", f"The {whose}: nothing more can be added")
        return [self._add_task(stage, body, trace) for body in bodies]

    def set_metadata(self, entity: Job | Stage | Task, metadata: dict[str, Any]) -> None:
        """Replace the metadata of an entity."""
        entity.metadata, entity.updated = metadata, self._state.now

    def set_priority(self, job: Job, priority: Priority) -> bool:
        """Change the priority of a job, and return whether it was a different one before."""
        if job.priority is priority:
            return False
        job.priority, job.updated = priority, self._state.now
        return True

    def set_status(self, job: Job, target: JobStatus) -> None:
        """Pause, resume or abort a job."""
        edge = JOB.get((job.status, target))
        if edge is None or edge.by != CLIENT:
            raise RefusedRequestError(400, "ILLEGAL_JOB_STATUS_TRANSITION", _illegal(job.status, target))
        self._lifecycle.move_job(job, target)

    def release(self, stage: Stage) -> None:
        """Start a stage that was created with `startAsWaiting`."""
        if stage.status is StageStatus.PENDING:
            return
        its_turn = stage.previous is None or stage.previous.status is StageStatus.COMPLETED
        if stage.status in {StageStatus.CREATED, StageStatus.WAITING} and not its_turn:
            raise RefusedRequestError(400, "ILLEGAL_STAGE_STATUS_TRANSITION", "Previous stage is not COMPLETED")
        edge = STAGE.get((stage.status, StageStatus.PENDING))
        if edge is None or edge.by != CLIENT:
            message = _illegal(stage.status, StageStatus.PENDING)
            raise RefusedRequestError(400, "ILLEGAL_STAGE_STATUS_TRANSITION", message)
        self._lifecycle.move_stage(stage, StageStatus.PENDING)

    def delete(self, job: Job) -> None:
        """Delete a job that has ended, with its stages and tasks."""
        if job.status not in JOB_FINAL:
            message = f"The job is {job.status} and cannot be deleted yet: abort it, or wait until it ends"
            raise RefusedRequestError(400, "JOB_NOT_IN_FINITE_STATE", message)
        del self._state.jobs[job.id]
        for stage in job.stages:
            del self._state.stages[stage.id]
            self._state.stages_by_type[stage.type].remove(stage)
            for task in stage.tasks:
                del self._state.tasks[task.id]
                if task.attempts:
                    self._state.leased.pop(task.attempts[-1].lease_id, None)

    def _holds_key(self, holder: Job, unique_for: float | str) -> bool:
        """Return whether the last job with a unique key prevents another."""
        if holder.id not in self._state.jobs:
            return False
        if isinstance(unique_for, str):
            return holder.status not in JOB_FINAL
        return self._state.now < holder.created + timedelta(seconds=unique_for)

    def _fields(self, body: Created, trace: Trace) -> dict[str, Any]:
        if body.traceparent is not None:
            trace = Trace(body.traceparent, body.tracestate)
        return {**self._state.new_entity_fields(), "data": body.data, "metadata": body.user_metadata, "trace": trace}

    def _add_task(self, stage: Stage, body: PlainTaskBody, trace: Trace) -> Task:
        defaults = stage.task_defaults or {}
        is_given = "max_attempts" in body.model_fields_set
        max_attempts = body.max_attempts if is_given else defaults.get("maxAttempts", body.max_attempts)
        task = Task(**self._fields(body, trace), stage=stage, max_attempts=max_attempts)
        due = None
        if isinstance(body, TaskBody):
            task.timeout = duration(body.timeout_seconds or defaults.get("timeoutSeconds"))
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


def _illegal(source: str, target: str) -> str:
    return f"Illegal status transition from {source} to {target}"
