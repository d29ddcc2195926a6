"""What jobs and stages may become, who makes the move, and why: the tables of the protocol."""

from typing import Final, NamedTuple

from jobnik_sdk.model.definitions import JobStatus, StageStatus, TaskStatus

CLIENT: Final = "client"
MANAGER: Final = "manager"

JOB_ENDED: Final = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.ABORTED})
STAGE_ENDED: Final = frozenset({StageStatus.COMPLETED, StageStatus.FAILED, StageStatus.ABORTED})
TASK_ENDED: Final = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.ABORTED})

JOB_OPEN: Final = frozenset({JobStatus.PENDING, JobStatus.IN_PROGRESS})
"""Its tasks are handed out."""
STAGE_OPEN: Final = frozenset({StageStatus.PENDING, StageStatus.IN_PROGRESS})
"""Its tasks are handed out, if its job is open."""

BURNING: Final = frozenset({"FAILED", "EXPIRED", "TIMED_OUT"})
"""Outcomes that cost an attempt."""
REPORTED: Final = frozenset({"COMPLETED", "FAILED", "RELEASED", "SNOOZED"})
"""Outcomes that are a worker's word; the others are the manager's."""


class Edge(NamedTuple):
    """Who makes a move, and why."""

    by: str
    why: str


# A paused job still has tasks at work: what they report ends it like any other.
_AT_WORK: Final = (JobStatus.PENDING, JobStatus.IN_PROGRESS, JobStatus.PAUSED)
_UNFINISHED: Final = (StageStatus.CREATED, StageStatus.WAITING, StageStatus.PENDING, StageStatus.IN_PROGRESS)

JOB: Final[dict[tuple[JobStatus, JobStatus], Edge]] = {
    (JobStatus.PENDING, JobStatus.IN_PROGRESS): Edge(MANAGER, "one of its tasks is claimed"),
    **{(status, JobStatus.COMPLETED): Edge(MANAGER, "all its stages are completed") for status in _AT_WORK},
    **{(status, JobStatus.FAILED): Edge(MANAGER, "one of its stages failed") for status in _AT_WORK},
    **{(status, JobStatus.PAUSED): Edge(CLIENT, "pause") for status in JOB_OPEN},
    (JobStatus.PAUSED, JobStatus.PENDING): Edge(CLIENT, "resume"),
    **{(status, JobStatus.ABORTED): Edge(CLIENT, "abort") for status in _AT_WORK},
}

STAGE: Final[dict[tuple[StageStatus, StageStatus], Edge]] = {
    (StageStatus.CREATED, StageStatus.PENDING): Edge(MANAGER, "it is the first, or the stage before it completed"),
    (StageStatus.WAITING, StageStatus.PENDING): Edge(CLIENT, "release, once the stage before it is completed"),
    (StageStatus.PENDING, StageStatus.IN_PROGRESS): Edge(MANAGER, "its first task is claimed"),
    (StageStatus.IN_PROGRESS, StageStatus.COMPLETED): Edge(MANAGER, "all its tasks are completed"),
    (StageStatus.IN_PROGRESS, StageStatus.FAILED): Edge(MANAGER, "a task failed for good"),
    **{(status, StageStatus.ABORTED): Edge(MANAGER, "its job is aborted") for status in _UNFINISHED},
}

ENDS: Final = {
    "COMPLETED": "its worker reports success",
    "FAILED": "its worker reports failure",
    "RELEASED": "its worker hands it back",
    "SNOOZED": "its worker puts it off",
    "EXPIRED": "its lease was not renewed",
    "TIMED_OUT": "the attempt took too long",
}
"""Why a task moves when an attempt ends."""
