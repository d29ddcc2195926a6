"""The JSON of entities in answers."""

from datetime import datetime, timedelta
from typing import Any

from jobnik_sdk.model.definitions import JobStatus, StageStatus, TaskStatus
from jobnik_sdk.testing.fake.state import Attempt, Change, Entity, Job, Stage, Task, Trace, WorkerRecord
from jobnik_sdk.testing.fake.transitions import CLIENT, ENDS, MANAGER, TASK

Json = dict[str, Any]


def moment(at: datetime | None) -> str | None:
    """Return a time as the protocol writes it."""
    return None if at is None else f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"


def job_json(job: Job, *, stages: bool = False) -> Json:
    """Return a job, with its stages if wanted."""
    completed = sum(stage.status is StageStatus.COMPLETED for stage in job.stages)
    body = {
        **_head(job),
        "name": job.name,
        "status": job.status,
        "priority": job.priority,
        "percentage": _share(completed, len(job.stages)),
        "endedAt": moment(job.ended),
    }
    return body | {"stages": [stage_json(stage) for stage in job.stages]} if stages else body


def job_progress(job: Job, now: datetime) -> Json:
    """Return the progress of a job, the weighted mean of its stages; nothing if it has no stages."""
    if not job.stages:
        return {}
    done = sum(stage.weight * (_fraction(stage) or 0) for stage in job.stages)
    started = min((stage.started for stage in job.stages if stage.started), default=None)
    is_running = job.status is JobStatus.IN_PROGRESS
    return _progress(done / sum(stage.weight for stage in job.stages), started if is_running else None, now)


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
    """Return the progress of a stage; nothing if it has no tasks."""
    fraction = _fraction(stage)
    if fraction is None:
        return {}
    is_running = stage.status is StageStatus.IN_PROGRESS and stage.open
    return _progress(fraction, stage.started if is_running else None, now)


def summary_json(stage: Stage) -> Json:
    """Return the number of tasks of a stage by their status."""
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
    """Return a task, without the optional fields that have no value."""
    optional = {
        "timeoutSeconds": _seconds(task.timeout),
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
        **{name: value for name, value in optional.items() if value is not None},
    }


def claimed_json(task: Task) -> Json:
    """Return a claimed task with its lease, its stage and its job."""
    lease = task.attempts[-1]
    return {
        **task_json(task),
        "leaseId": lease.lease_id,
        "leaseExpiresAt": moment(lease.expires),
        **stage_and_job_json(task.stage),
    }


def minimal_claimed_json(task: Task) -> Json:
    """Return a claimed task with only the fields that a worker needs; its stage and its job are sent separately."""
    body = task_json(task)
    names = {"id", "stageId", "data", "userMetadata", "attempts", "maxAttempts"}
    names |= {"traceparent", "tracestate", "timeoutSeconds", "retry", "checkpoint"}
    now = task.attempts[-1].started
    return {
        **{name: value for name, value in body.items() if name in names},
        "leaseId": task.attempts[-1].lease_id,
        "waitedSeconds": (now - max(task.waiting_since or now, task.stage.opened)).total_seconds(),
    }


def stage_and_job_json(stage: Stage) -> Json:
    """Return a stage and its job as workers receive them with a claim."""
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
    """Return the attempts at a task, oldest first."""
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
    """Return a history, oldest change first."""
    return [
        {"from": change.source, "to": change.target, "at": moment(change.at), "by": change.by, "reason": change.reason}
        for change in changes
    ]


def changes_of_task(task: Task) -> list[Change]:
    """Return the history of a task, which follows from its attempts."""
    changes = [Change(None, TaskStatus.PENDING, task.created, CLIENT, "it was created")]
    for attempt in task.attempts:
        worker = attempt.worker_id or CLIENT
        edge = TASK[attempt.source, TaskStatus.IN_PROGRESS]
        changes.append(Change(attempt.source, TaskStatus.IN_PROGRESS, attempt.started, worker, edge.reason))
        if attempt.outcome is not None and attempt.ended is not None and attempt.target is not None:
            changes.append(_end(attempt, attempt.target, attempt.ended, worker))
    if task.status is TaskStatus.ABORTED and task.ended is not None:
        source = TaskStatus(changes[-1].target)
        edge = TASK[source, TaskStatus.ABORTED]
        changes.append(Change(source, TaskStatus.ABORTED, task.ended, edge.by, edge.reason))
    return changes


def _end(attempt: Attempt, target: TaskStatus, ended: datetime, worker: str) -> Change:
    by = MANAGER if attempt.outcome in {"EXPIRED", "TIMED_OUT"} else worker
    reason = ENDS[attempt.outcome or ""] + (f": {attempt.error['type']}" if attempt.error else "")
    return Change(TaskStatus.IN_PROGRESS, target, ended, by, reason)


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
    body: Json = {"traceparent": trace.traceparent}
    return body if trace.tracestate is None else body | {"tracestate": trace.tracestate}


def _seconds(duration: timedelta | None) -> float | None:
    """Return a duration as PostgreSQL writes it: a whole number without a decimal point."""
    seconds = None if duration is None else duration.total_seconds()
    return int(seconds) if seconds is not None and seconds.is_integer() else seconds


def _share(part: int, total: int) -> int:
    return part * 100 // total if total else 0


def _fraction(stage: Stage) -> float | None:
    """Return the share of completed tasks, plus the reported fractions of those in progress; None without tasks."""
    if not stage.tasks:
        return None
    running = (task.attempts[-1] for task in stage.tasks if task.status is TaskStatus.IN_PROGRESS)
    return (stage.counts[TaskStatus.COMPLETED] + sum(one.fraction or 0 for one in running)) / len(stage.tasks)


def _progress(fraction: float, started: datetime | None, now: datetime) -> Json:
    """Return a fraction and an estimate: after 30 s for 0.25, the rest takes 90 s."""
    cut = int(fraction * 1_000_000) / 1_000_000
    elapsed = (now - started).total_seconds() if started else 0
    if not cut or elapsed <= 0:
        return {"progress": {"fraction": cut}}
    return {"progress": {"fraction": cut, "etaSeconds": round(elapsed * (1 - cut) / cut, 3)}}
