"""The state machines of the protocol: every transition of jobs, stages and tasks, and its effects.

The manager has the same tables. A test compares the two, edge by edge.
"""

from enum import Enum
from typing import Final, NamedTuple

from jobnik_sdk.model.definitions import JobStatus, StageStatus, TaskStatus

CLIENT: Final = "client"
MANAGER: Final = "manager"


class Effect(Enum):
    """A change that the manager makes in the same transaction as the transition."""

    START_STAGE = "its stage becomes IN_PROGRESS"
    START_JOB = "its job becomes IN_PROGRESS"
    COMPLETE_STAGE = "its stage becomes COMPLETED if this was its last task"
    FAIL_STAGE = "its stage becomes FAILED"
    OPEN_NEXT_STAGE = "the next stage, if CREATED, becomes PENDING"
    COMPLETE_JOB = "its job becomes COMPLETED if this was its last stage"
    FAIL_JOB = "its job becomes FAILED"
    ABORT_STAGES = "its unfinished stages become ABORTED"
    ABORT_TASKS = "its unfinished tasks become ABORTED"
    CLOSE_QUEUES = "its tasks can no longer be claimed"
    OPEN_QUEUES = "its tasks can be claimed again"


class Edge(NamedTuple):
    """A transition.

    Args:
        by: `CLIENT` or `MANAGER`.
        reason: The reason in the history. The history of a task has its own reason for the end of an attempt: `ENDS`.
        effects: In the order in which they happen.
    """

    by: str
    reason: str
    effects: tuple[Effect, ...] = ()


# A paused job can still have tasks in progress. Their reports end it like any other job.
_UNFINISHED_JOB: Final = (JobStatus.PENDING, JobStatus.IN_PROGRESS, JobStatus.PAUSED)
_UNFINISHED_STAGE: Final = (StageStatus.CREATED, StageStatus.WAITING, StageStatus.PENDING, StageStatus.IN_PROGRESS)
_UNFINISHED_TASK: Final = (TaskStatus.CREATED, TaskStatus.PENDING, TaskStatus.RETRIED, TaskStatus.IN_PROGRESS)

JOB_OPEN: Final = frozenset({JobStatus.PENDING, JobStatus.IN_PROGRESS})
"""The tasks of the job can be claimed."""
STAGE_OPEN: Final = frozenset({StageStatus.PENDING, StageStatus.IN_PROGRESS})
"""The tasks of the stage can be claimed if its job is open."""

_FAIL_JOB: Final = Edge(MANAGER, "one of its stages failed", (Effect.CLOSE_QUEUES,))
_ABORT_JOB: Final = Edge(CLIENT, "abort", (Effect.CLOSE_QUEUES, Effect.ABORT_TASKS, Effect.ABORT_STAGES))
_CLAIM: Final = Edge(MANAGER, "claimed", (Effect.START_STAGE, Effect.START_JOB))

JOB: Final[dict[tuple[JobStatus, JobStatus], Edge]] = {
    (JobStatus.CREATED, JobStatus.PENDING): Edge(MANAGER, "it is created"),
    (JobStatus.PENDING, JobStatus.IN_PROGRESS): Edge(MANAGER, "one of its tasks is claimed"),
    **{(status, JobStatus.COMPLETED): Edge(MANAGER, "all its stages are completed") for status in _UNFINISHED_JOB},
    **{(status, JobStatus.FAILED): _FAIL_JOB for status in _UNFINISHED_JOB},
    **{(status, JobStatus.PAUSED): Edge(CLIENT, "pause", (Effect.CLOSE_QUEUES,)) for status in JOB_OPEN},
    (JobStatus.PAUSED, JobStatus.PENDING): Edge(CLIENT, "resume", (Effect.OPEN_QUEUES,)),
    **{(status, JobStatus.ABORTED): _ABORT_JOB for status in (JobStatus.CREATED, *_UNFINISHED_JOB)},
}

STAGE: Final[dict[tuple[StageStatus, StageStatus], Edge]] = {
    (StageStatus.CREATED, StageStatus.PENDING): Edge(MANAGER, "it is the first, or the stage before it completed"),
    (StageStatus.CREATED, StageStatus.WAITING): Edge(MANAGER, "it is created with startAsWaiting"),
    (StageStatus.WAITING, StageStatus.PENDING): Edge(CLIENT, "release, once the stage before it is completed"),
    (StageStatus.PENDING, StageStatus.IN_PROGRESS): Edge(MANAGER, "its first task is claimed", (Effect.START_JOB,)),
    (StageStatus.IN_PROGRESS, StageStatus.COMPLETED): Edge(
        MANAGER, "all its tasks are completed", (Effect.OPEN_NEXT_STAGE, Effect.COMPLETE_JOB)
    ),
    (StageStatus.IN_PROGRESS, StageStatus.FAILED): Edge(MANAGER, "a task failed permanently", (Effect.FAIL_JOB,)),
    **{
        (status, StageStatus.ABORTED): Edge(MANAGER, "its job is aborted", (Effect.ABORT_TASKS,))
        for status in _UNFINISHED_STAGE
    },
}

TASK: Final[dict[tuple[TaskStatus, TaskStatus], Edge]] = {
    (TaskStatus.CREATED, TaskStatus.PENDING): Edge(MANAGER, "it is created"),
    **{(status, TaskStatus.IN_PROGRESS): _CLAIM for status in (TaskStatus.PENDING, TaskStatus.RETRIED)},
    (TaskStatus.IN_PROGRESS, TaskStatus.COMPLETED): Edge(
        CLIENT, "its worker reports success", (Effect.COMPLETE_STAGE,)
    ),
    (TaskStatus.IN_PROGRESS, TaskStatus.PENDING): Edge(
        MANAGER, "it is released or snoozed before any attempt has failed"
    ),
    (TaskStatus.IN_PROGRESS, TaskStatus.RETRIED): Edge(
        MANAGER, "its attempt failed and another is left, or a retry is released or snoozed"
    ),
    (TaskStatus.IN_PROGRESS, TaskStatus.FAILED): Edge(CLIENT, "its last attempt failed", (Effect.FAIL_STAGE,)),
    **{(status, TaskStatus.ABORTED): Edge(MANAGER, "its job is aborted") for status in _UNFINISHED_TASK},
}

JOB_FINAL: Final = frozenset(JobStatus) - {source for source, _ in JOB}
STAGE_FINAL: Final = frozenset(StageStatus) - {source for source, _ in STAGE}
TASK_FINAL: Final = frozenset(TaskStatus) - {source for source, _ in TASK}

FAILURES: Final = frozenset({"FAILED", "EXPIRED", "TIMED_OUT"})
"""Outcomes that use up an attempt."""
REPORTED: Final = frozenset({"COMPLETED", "FAILED", "RELEASED", "SNOOZED"})
"""Outcomes that a worker reports. The manager sets the others."""
ENDS: Final = {
    "COMPLETED": "its worker reports success",
    "FAILED": "its worker reports failure",
    "RELEASED": "its worker releases it",
    "SNOOZED": "its worker snoozes it",
    "EXPIRED": "its lease was not renewed",
    "TIMED_OUT": "the attempt took too long",
}
"""The reason in the history of a task when an attempt ends, by its outcome."""
