"""How entities look in answers."""

from datetime import datetime
from typing import Any

from jobnik_sdk.model.definitions import JobStatus, StageStatus, TaskStatus
from jobnik_sdk.testing.fake.machines import CLIENT, ENDS, MANAGER
from jobnik_sdk.testing.fake.state import Attempt, Change, Entity, Job, Stage, Task, Trace, WorkerRecord

Json = dict[str, Any]


def moment(at: datetime | None) -> str | None:
    """Return a time as the protocol writes it."""
    return None if at is None else f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"


def job_json(job: Job, *, stages: bool = False) -> Json:
    """Return a job, with its stages in it where they are wanted."""
    completed = sum(stage.status is StageStatus.COMPLETED for stage in job.stages)
    body = {
        **_head(job),
        "name": job.name,
        "status": job.status,
        "priority": job.priority,
        "percentage": _share(completed, len(job.stages)),
    }
    return body | {"stages": [stage_json(stage) for stage in job.stages]} if stages else body


def job_progress(job: Job, now: datetime) -> Json:
    """Return how far a job is: the mean of its stages by their weights; nothing where it has none."""
    if not job.stages:
        return {}
    done = sum(stage.weight * (_fraction(stage) or 0) for stage in job.stages)
    started = min((stage.started for stage in job.stages if stage.started), default=None)
    goes_on = job.status is JobStatus.IN_PROGRESS
    return _progress(done / sum(stage.weight for stage in job.stages), started if goes_on else None, now)


def stage_json(stage: Stage) -> Json:
    """Return a stage."""
    body = {
        **_head(stage),
        "jobId": str(stage.job.id),
        "type": stage.type,
        "order": stage.order,
        "status": stage.status,
        "summary": summary_json(stage),
        "percentage": _share(stage.counts[TaskStatus.COMPLETED], len(stage.tasks)),
        "startTime": moment(stage.started),
        "endTime": moment(stage.ended),
    }
    if stage.weight != 1:
        body["weight"] = stage.weight
    if stage.task_defaults is not None:
        body["taskDefaults"] = stage.task_defaults
    return body


def stage_progress(stage: Stage, now: datetime) -> Json:
    """Return how far a stage is; nothing where it has no tasks."""
    fraction = _fraction(stage)
    if fraction is None:
        return {}
    goes_on = stage.status is StageStatus.IN_PROGRESS and stage.open
    return _progress(fraction, stage.started if goes_on else None, now)


def summary_json(stage: Stage) -> Json:
    """Return how many tasks of a stage have each status."""
    names = {
        "created": TaskStatus.CREATED,
        "pending": TaskStatus.PENDING,
        "inProgress": TaskStatus.IN_PROGRESS,
        "completed": TaskStatus.COMPLETED,
        "failed": TaskStatus.FAILED,
        "retried": TaskStatus.RETRIED,
        "aborted": TaskStatus.ABORTED,
    }
    return {name: stage.counts[status] for name, status in names.items()} | {"total": len(stage.tasks)}


def task_json(task: Task) -> Json:
    """Return a task; what only part B knows is left out where there is none."""
    said = {
        "timeoutSeconds": task.timeout and task.timeout.total_seconds(),
        "retry": task.retry,
        "result": task.result,
        "error": task.error,
        "progress": task.progress,
        "checkpoint": task.checkpoint,
    }
    return {
        **_head(task),
        "stageId": str(task.stage.id),
        "status": task.status,
        "attempts": task.failed,
        "maxAttempts": task.max_attempts,
        "startTime": moment(task.started),
        "endTime": moment(task.ended),
        **{name: value for name, value in said.items() if value is not None},
    }


def claimed_json(task: Task) -> Json:
    """Return a task in its worker's hands, with all that the worker needs to know."""
    lease = task.attempts[-1]
    return {
        **task_json(task),
        "leaseId": lease.lease_id,
        "leaseExpiresAt": moment(lease.expires),
        **stage_and_job_json(task.stage),
    }


def brief_json(task: Task) -> Json:
    """Return a task in its worker's hands, without what the worker does not need, its stage and its job."""
    said = task_json(task)
    names = {"id", "stageId", "data", "userMetadata", "attempts", "maxAttempts"}
    names |= {"traceparent", "tracestate", "timeoutSeconds", "checkpoint"}
    now = task.attempts[-1].started
    return {
        **{name: value for name, value in said.items() if name in names},
        "leaseId": task.attempts[-1].lease_id,
        "waitedSeconds": (now - max(task.ready or now, task.stage.opened)).total_seconds(),
    }


def stage_and_job_json(stage: Stage) -> Json:
    """Return what workers are told of a stage and its job."""
    job = stage.job
    return {
        "stage": {
            "id": str(stage.id),
            "type": stage.type,
            "order": stage.order,
            "data": stage.data,
            "userMetadata": stage.metadata,
            **_trace(stage.trace),
        },
        "job": {
            "id": str(job.id),
            "name": job.name,
            "priority": job.priority,
            "data": job.data,
            "userMetadata": job.metadata,
            **_trace(job.trace),
        },
    }


def worker_json(worker: WorkerRecord) -> Json:
    """Return a worker."""
    return {
        "id": worker.id,
        "stageTypes": worker.stage_types,
        "host": worker.host,
        "version": worker.version,
        "draining": worker.draining,
        "drainWanted": worker.drain_wanted,
        "running": worker.running,
        "startTime": moment(worker.started),
        "seenTime": moment(worker.seen),
    }


def attempts_json(task: Task) -> list[Json]:
    """Return the attempts at a task, the oldest first."""
    return [
        {
            "number": number,
            "leaseId": attempt.lease_id,
            "workerId": attempt.worker_id,
            "startTime": moment(attempt.started),
            "endTime": moment(attempt.ended),
            "outcome": attempt.outcome,
            "error": attempt.error,
        }
        for number, attempt in enumerate(task.attempts, start=1)
    ]


def changes_json(changes: list[Change]) -> list[Json]:
    """Return changes of a status, the oldest first."""
    return [
        {"from": change.source, "to": change.target, "at": moment(change.at), "by": change.by, "reason": change.why}
        for change in changes
    ]


def changes_of_task(task: Task) -> list[Change]:
    """Return the changes of a task's status: they follow from its attempts."""
    changes = [Change(None, TaskStatus.PENDING, task.created, CLIENT, "it was created")]
    for attempt in task.attempts:
        worker = attempt.worker_id or CLIENT
        changes.append(Change(attempt.source, TaskStatus.IN_PROGRESS, attempt.started, worker, "claimed"))
        if attempt.outcome is not None and attempt.ended is not None and attempt.target is not None:
            changes.append(_end(attempt, attempt.target, attempt.ended, worker))
    if task.status is TaskStatus.ABORTED and task.ended is not None:
        changes.append(Change(changes[-1].target, TaskStatus.ABORTED, task.ended, MANAGER, "its job is aborted"))
    return changes


def _end(attempt: Attempt, target: TaskStatus, ended: datetime, worker: str) -> Change:
    by = MANAGER if attempt.outcome in {"EXPIRED", "TIMED_OUT"} else worker
    why = ENDS[attempt.outcome or ""] + (f": {attempt.error['type']}" if attempt.error else "")
    return Change(TaskStatus.IN_PROGRESS, target, ended, by, why)


def _head(entity: Entity) -> Json:
    created, updated = moment(entity.created), moment(entity.updated)
    return {
        "id": str(entity.id),
        "data": entity.data,
        "userMetadata": entity.metadata,
        "createdAt": created,
        "updatedAt": updated,
        "creationTime": created,
        "updateTime": updated,
        **_trace(entity.trace),
    }


def _trace(trace: Trace) -> Json:
    said: Json = {"traceparent": trace.traceparent}
    return said if trace.tracestate is None else said | {"tracestate": trace.tracestate}


def _share(part: int, total: int) -> int:
    return part * 100 // total if total else 0


def _fraction(stage: Stage) -> float | None:
    """The completed tasks, and of each in progress the fraction that it told, of all; None: there are no tasks."""
    if not stage.tasks:
        return None
    running = (task.attempts[-1] for task in stage.tasks if task.status is TaskStatus.IN_PROGRESS)
    return (stage.counts[TaskStatus.COMPLETED] + sum(one.fraction or 0 for one in running)) / len(stage.tasks)


def _progress(fraction: float, started: datetime | None, now: datetime) -> Json:
    """What is left takes as long as what is done has taken, in proportion: 30 s for 0.25 leave 90 s."""
    told = int(fraction * 1_000_000) / 1_000_000
    elapsed = (now - started).total_seconds() if started else 0
    if not told or elapsed <= 0:
        return {"progress": {"fraction": told}}
    return {"progress": {"fraction": told, "etaSeconds": round(elapsed * (1 - told) / told, 3)}}
