"""What a manager recorded of one task, held against the plan and against what the workers wrote down."""

from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from tests.chaos import plan
from tests.chaos.journal import Story

Entity = dict[str, Any]

BURNT = frozenset({"FAILED", "EXPIRED", "TIMED_OUT"})
"""Outcomes that count as failed attempts."""
UNREPORTED = frozenset({"EXPIRED", "TIMED_OUT", "ABORTED"})
"""Outcomes that no worker reports."""
FINAL = frozenset({"COMPLETED", "FAILED", "ABORTED"})


class Record(NamedTuple):
    """What the manager says of a task: itself, its attempts, its history."""

    task: Entity
    attempts: Sequence[Entity]
    history: Sequence[Entity]


def contradictions(record: Record, stories: Mapping[int, Story], drained: Container[str]) -> Iterator[str]:
    """One sentence for each thing that cannot be true.

    Args:
        record: Of a task that nobody works on any more.
        stories: What the workers wrote down, by lease.
        drained: The workers that were to stop: what they could not finish goes back, whatever was planned.
    """
    task, attempts, _ = record
    targets = _targets(task, attempts)
    yield from _in_order(attempts, targets)
    yield from _as_told(record, targets)
    for attempt, target in zip(attempts, targets, strict=True):
        lease, outcome = attempt["leaseId"], attempt["outcome"]
        story, step = stories.get(lease), plan.step(task["data"], lease)
        # What was claimed for somebody who had gone away is handed back by the manager.
        handed_back = outcome == "RELEASED" and (story is None or story.worker in drained)
        if outcome not in {step.outcome, *UNREPORTED} and not handed_back:
            yield f"lease {lease} ended as {outcome}, planned was {step.outcome}"
        if outcome == "FAILED" and attempt["error"] | {"stack": ""} != plan.error(lease):
            yield f"lease {lease} failed for another reason: {attempt['error']}"
        if outcome == "EXPIRED" and attempt["error"]["type"] != "LeaseExpired":
            yield f"lease {lease} expired for another reason: {attempt['error']}"
        if story is not None:
            yield from _as_written(attempt, target, story, task["id"], handed_back=handed_back)
        elif outcome not in UNREPORTED and not handed_back:
            yield f"lease {lease} ended as {outcome}, and no worker ever had it"


def _targets(task: Entity, attempts: Sequence[Entity]) -> Sequence[str]:
    """The status of the task after each attempt."""
    targets: list[str] = []
    burnt = 0
    for attempt in attempts:
        outcome = attempt["outcome"]
        burnt += outcome in BURNT
        retryable = outcome != "FAILED" or plan.step(task["data"], attempt["leaseId"]).retryable
        if outcome in FINAL - BURNT:
            targets.append(outcome)
        elif outcome in BURNT and (burnt >= task["maxAttempts"] or not retryable):
            targets.append("FAILED")
        else:
            targets.append("RETRIED" if burnt else "PENDING")
    return targets


def _in_order(attempts: Sequence[Entity], targets: Sequence[str]) -> Iterator[str]:
    """One attempt after the other, and none after the end."""
    if [attempt["number"] for attempt in attempts] != list(range(1, len(attempts) + 1)):
        yield "its attempts are not numbered 1, 2, 3 …"
    for before, after in pairwise(attempts):
        if after["leaseId"] <= before["leaseId"]:
            yield f"lease {after['leaseId']} came after lease {before['leaseId']}"
        if before["endTime"] is None or after["startTime"] < before["endTime"]:
            yield f"lease {after['leaseId']} began before lease {before['leaseId']} ended"
    for attempt, target in zip(attempts[:-1], targets[:-1], strict=True):
        if target in FINAL:
            yield f"it was claimed again after lease {attempt['leaseId']} had ended it"


def _as_told(record: Record, targets: Sequence[str]) -> Iterator[str]:
    """The task itself and its history agree with its attempts."""
    task, attempts, history = record
    changes: list[tuple[str | None, str]] = [(None, "PENDING")]
    for target in targets:
        changes += [(changes[-1][1], "IN_PROGRESS"), ("IN_PROGRESS", target)]
    if task["status"] == "ABORTED" and changes[-1][1] not in FINAL:
        changes.append((changes[-1][1], "ABORTED"))
    if task["status"] != changes[-1][1]:
        yield f"it is {task['status']}, after its attempts it should be {changes[-1][1]}"
    if [(change["from"], change["to"]) for change in history] != changes:
        yield f"its history is {history}, its attempts say {changes}"
    burnt = sum(attempt["outcome"] in BURNT for attempt in attempts)
    if task["attempts"] != burnt:
        yield f"it counts {task['attempts']} failed attempts, {burnt} are recorded"
    if task["status"] == "COMPLETED" and task.get("result") != plan.result(attempts[-1]["leaseId"]):
        yield f"its result is {task.get('result')}, not that of lease {attempts[-1]['leaseId']}"
    if "progress" in task and task["progress"]["message"] != str(attempts[-1]["leaseId"]):
        yield f"its progress is {task['progress']}, not that of lease {attempts[-1]['leaseId']}"


def _as_written(attempt: Entity, target: str, story: Story, task: str, *, handed_back: bool) -> Iterator[str]:
    """The attempt is what its worker wrote down."""
    lease, outcome = attempt["leaseId"], attempt["outcome"]
    unreported = outcome in UNREPORTED or handed_back
    if (story.task, story.worker) != (task, attempt["workerId"]):
        yield f"lease {lease} was {story.worker}'s for task {story.task}, the manager names {attempt['workerId']}"
    for verdict in story.verdicts:
        told = verdict["status"] or target  # a brief answer does not say it
        if verdict["accepted"] and (outcome, target) != (story.settling, told):
            yield f"lease {lease} was accepted as {story.settling} → {verdict['status']}: it is {outcome} → {target}"
        if not verdict["accepted"] and (not unreported or verdict["code"] != "LEASE_LOST"):
            yield f"lease {lease} was refused as {verdict['code']}, and ended as {outcome}"
    if not unreported and outcome != story.done:
        yield f"lease {lease} ended as {outcome}, what its handler did was {story.done}"
    if not story.verdicts and not unreported and outcome != story.settling:
        yield f"lease {lease} ended as {outcome}, its worker had nothing of the kind in mind"
