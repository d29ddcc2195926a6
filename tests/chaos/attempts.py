"""Compare the manager's record of a task with the plan and with the workers' journals."""

from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from tests.chaos import plan
from tests.chaos.journal import WorkerRecord

Entity = dict[str, Any]

FAILED_OUTCOMES = frozenset({"FAILED", "EXPIRED", "TIMED_OUT"})
"""Outcomes that count as a failed attempt."""
UNREPORTED = frozenset({"EXPIRED", "TIMED_OUT", "ABORTED"})
"""Outcomes that the manager sets without a report."""
FINAL = frozenset({"COMPLETED", "FAILED", "ABORTED"})


class TaskRecord(NamedTuple):
    """The manager's record of a task."""

    task: Entity
    attempts: Sequence[Entity]
    history: Sequence[Entity]


def contradictions(
    record: TaskRecord, worker_records: Mapping[int, WorkerRecord], drained: Container[str]
) -> Iterator[str]:
    """Yield one sentence for each contradiction.

    Args:
        record: The record of a task that no worker holds any more.
        worker_records: The workers' own records, by lease.
        drained: The workers that were told to stop. They release unfinished tasks, whatever the plan says.
    """
    task, attempts, _ = record
    targets = _targets(task, attempts)
    yield from _check_order(attempts, targets)
    yield from _check_task(record, targets)
    for attempt, target in zip(attempts, targets, strict=True):
        lease, outcome = attempt["leaseId"], attempt["outcome"]
        worker_record, step = worker_records.get(lease), plan.step(task["data"], lease)
        # If the client of a claim disconnects, the manager releases the claimed tasks.
        released = outcome == "RELEASED" and (worker_record is None or worker_record.worker in drained)
        if outcome not in {step.outcome, *UNREPORTED} and not released:
            yield f"lease {lease} ended as {outcome} instead of {step.outcome}"
        if outcome == "FAILED" and attempt["error"] | {"stack": ""} != plan.error(lease):
            yield f"lease {lease} failed with an unexpected error: {attempt['error']}"
        if outcome == "EXPIRED" and attempt["error"]["type"] != "LeaseExpired":
            yield f"lease {lease} expired with an unexpected error: {attempt['error']}"
        if worker_record is not None:
            yield from _check_worker_record(attempt, target, worker_record, task["id"], released=released)
        elif outcome not in UNREPORTED and not released:
            yield f"lease {lease} ended as {outcome}, but no worker claimed it"


def _targets(task: Entity, attempts: Sequence[Entity]) -> Sequence[str]:
    """Return the expected status of the task after each attempt."""
    targets: list[str] = []
    failures = 0
    for attempt in attempts:
        outcome = attempt["outcome"]
        failures += outcome in FAILED_OUTCOMES
        retryable = outcome != "FAILED" or plan.step(task["data"], attempt["leaseId"]).retryable
        if outcome in FINAL - FAILED_OUTCOMES:
            targets.append(outcome)
        elif outcome in FAILED_OUTCOMES and (failures >= task["maxAttempts"] or not retryable):
            targets.append("FAILED")
        else:
            targets.append("RETRIED" if failures else "PENDING")
    return targets


def _check_order(attempts: Sequence[Entity], targets: Sequence[str]) -> Iterator[str]:
    """Check that attempts do not overlap, and that none follows a final one."""
    if [attempt["number"] for attempt in attempts] != list(range(1, len(attempts) + 1)):
        yield "its attempts are not numbered consecutively from 1"
    for before, after in pairwise(attempts):
        if after["leaseId"] <= before["leaseId"]:
            yield f"lease {after['leaseId']} follows lease {before['leaseId']}, which is not lower"
        if before["endTime"] is None or after["startTime"] < before["endTime"]:
            yield f"lease {after['leaseId']} started before lease {before['leaseId']} ended"
    for attempt, target in zip(attempts[:-1], targets[:-1], strict=True):
        if target in FINAL:
            yield f"it was claimed again after lease {attempt['leaseId']}, which was final"


def _check_task(record: TaskRecord, targets: Sequence[str]) -> Iterator[str]:
    """Check that the task and its history agree with its attempts."""
    task, attempts, history = record
    changes: list[tuple[str | None, str]] = [(None, "PENDING")]
    for target in targets:
        changes += [(changes[-1][1], "IN_PROGRESS"), ("IN_PROGRESS", target)]
    if task["status"] == "ABORTED" and changes[-1][1] not in FINAL:
        changes.append((changes[-1][1], "ABORTED"))
    if task["status"] != changes[-1][1]:
        yield f"it is {task['status']}, but its attempts imply {changes[-1][1]}"
    if [(change["from"], change["to"]) for change in history] != changes:
        yield f"its history is {history}, but its attempts imply {changes}"
    failures = sum(attempt["outcome"] in FAILED_OUTCOMES for attempt in attempts)
    if task["attempts"] != failures:
        yield f"it counts {task['attempts']} failed attempts, but {failures} are recorded"
    if task["status"] == "COMPLETED" and task.get("result") != plan.result(attempts[-1]["leaseId"]):
        yield f"its result is {task.get('result')}, which is not the result of lease {attempts[-1]['leaseId']}"
    if "progress" in task and task["progress"]["message"] != str(attempts[-1]["leaseId"]):
        yield f"its progress is {task['progress']}, which is not the progress of lease {attempts[-1]['leaseId']}"


def _check_worker_record(
    attempt: Entity, target: str, worker_record: WorkerRecord, task: str, *, released: bool
) -> Iterator[str]:
    """Check that an attempt agrees with the worker's own record."""
    lease, outcome = attempt["leaseId"], attempt["outcome"]
    unreported = outcome in UNREPORTED or released
    if (worker_record.task, worker_record.worker) != (task, attempt["workerId"]):
        claimed = f"{worker_record.worker} claimed task {worker_record.task} with lease {lease}"
        yield f"{claimed}, but the manager recorded worker {attempt['workerId']}"
    for verdict in worker_record.verdicts:
        status = verdict["status"] or target  # a minimal response does not contain the status
        reported = worker_record.reported_outcome
        if verdict["accepted"] and (outcome, target) != (reported, status):
            accepted = f"{reported} → {verdict['status']}"
            yield f"lease {lease} was accepted as {accepted}, but recorded as {outcome} → {target}"
        if not verdict["accepted"] and (not unreported or verdict["code"] != "LEASE_LOST"):
            yield f"the report of lease {lease} was refused with {verdict['code']}, but it ended as {outcome}"
    if not unreported and outcome != worker_record.handler_outcome:
        yield f"lease {lease} ended as {outcome}, but its handler ended as {worker_record.handler_outcome}"
    if not worker_record.verdicts and not unreported and outcome != worker_record.reported_outcome:
        yield f"lease {lease} ended as {outcome}, but its worker did not report that"
