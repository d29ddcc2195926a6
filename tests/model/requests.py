"""The table of requests, each with the entities that it is mostly sent for."""

from bisect import bisect
from collections.abc import Callable
from itertools import accumulate
from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.model import part_a
from tests.model.creations import (
    JOB,
    ODD_JOB,
    ODD_TASKS,
    PRIORITY,
    STAGE,
    TASKS,
    TREE,
    UNIQUE_JOB,
    once_more,
)
from tests.model.endpoints import Request
from tests.model.entities import MINIMAL, Job, Json, Stage, Task
from tests.model.model import Model
from tests.model.reports import (
    ANY_OUTCOME,
    BACK,
    DONE,
    FAILED,
    OUTCOME,
    WORKER,
    Bodies,
    heartbeats,
    moments,
    settlements,
    worker_of,
)

STATUSES = ("CREATED", "WAITING", "PENDING", "RETRIED", "IN_PROGRESS", "PAUSED", "COMPLETED", "FAILED", "ABORTED")
CROWD = 3
"""The number of unfinished jobs from which no more are created: with more, none would end."""

# Bodies

METADATA: SearchStrategy[Json] = st.sampled_from(
    ({}, {"deep": [1, {"ü": None}]}, {"userMetadata": {"wrapped": 1.5}}, {"userMetadata": 5})
)


def _to(*statuses: str) -> SearchStrategy[Json]:
    return st.fixed_dictionaries({"status": st.sampled_from(statuses)})


CLAIM = st.fixed_dictionaries(
    {
        "workerId": WORKER,
        "limit": st.sampled_from((1, 2, 3, 500)),
        "waitSeconds": st.just(0),
        "leaseSeconds": st.sampled_from((600, 3600)),
    }
)
NO_REPORTS: SearchStrategy[Json] = st.just({"workerId": "w", "results": []})
NO_TASKS: SearchStrategy[Json] = st.just([])

# Entities

Among = Callable[[Model], list[str]]
"""Returns the names of the entities that a request is mostly sent for."""


def _jobs(fits: Callable[[Job], bool]) -> Among:
    return lambda model: [name for name, job in model.jobs.items() if fits(job)]


def _stages(fits: Callable[[Stage], bool]) -> Among:
    return lambda model: [name for name, stage in model.stages.items() if fits(stage)]


def _tasks(fits: Callable[[Task], bool]) -> Among:
    return lambda model: [name for name, task in model.tasks.items() if fits(task)]


def _keyed(fits: Callable[[Model, Job], bool]) -> Among:
    """The last jobs with each unique key that fit, also if they were deleted."""
    return lambda model: [job.id for job in model.keyed.values() if fits(model, job)]


def _has_task(job: Job, status: str) -> bool:
    return any(task.status == status for stage in job.stages for task in stage.tasks)


def _ends_with_next_report(job: Job) -> bool:
    left = [task.status for stage in job.stages for task in stage.tasks if not task.ended]
    return left == ["IN_PROGRESS"] and all(stage.tasks for stage in job.stages)


def _has_waiting(stage: Stage) -> bool:
    return any(task.waiting for task in stage.tasks)


def _in_hands(task: Task, *, leased: bool, job: str | None = None) -> bool:
    attempt = task.at_work
    return attempt is not None and (attempt.worker is not None) is leased and job in (None, task.stage.job.status)


def _ends_a_pause(task: Task, *, leased: bool) -> bool:
    """Whether its report ends a job that is paused, or was resumed and not claimed from since."""
    job = task.stage.job
    return _in_hands(task, leased=leased) and job.status in ("PENDING", "PAUSED") and _ends_with_next_report(job)


def _is_passed_by(task: Task) -> bool:
    """Whether a younger task of its stage is waiting while another is in progress."""
    others = task.stage.tasks
    return any(other.waiting and other.number > task.number for other in others) and any(map(_at_work, others))


def _at_work(task: Task) -> bool:
    return task.at_work is not None


def _has_deadline(task: Task) -> bool:
    return task.at_work is not None and task.timeout is not None


def _is_crowded(model: Model) -> bool:
    return sum(not job.ended for job in model.jobs.values()) >= CROWD


def _no_crowd(model: Model) -> list[str]:
    """The name of a new job, unless there are many unfinished jobs."""
    return [] if _is_crowded(model) else ["job-0"]


ANY_JOB, ANY_STAGE, ANY_TASK = _jobs(lambda _: True), _stages(lambda _: True), _tasks(lambda _: True)
ENDED_JOB = _jobs(lambda job: job.ended)
KEY_OF_PAUSED = _keyed(lambda _, job: job.status == "PAUSED")
KEY_OF_UNFINISHED = _keyed(lambda _, job: not job.ended)
KEY_OF_ENDED = _keyed(lambda model, job: job.ended and job.id in model.jobs and not _is_crowded(model))
KEY_OF_COMPLETED = _keyed(lambda model, job: job.status == "COMPLETED" and job.id in model.jobs)
KEY_OF_DELETED = _keyed(lambda model, job: job.id not in model.jobs and not _is_crowded(model))
ENDED_WITH_KEY = _keyed(lambda model, job: job.ended and job.id in model.jobs)
UNFINISHED_JOB = _jobs(lambda job: not job.ended)
SHORT_JOB = _jobs(lambda job: not job.ended and len(job.stages) < 2)
PAUSED_JOB = _jobs(lambda job: job.status == "PAUSED")
JOB_AT_WORK = _jobs(lambda job: job.open and _has_task(job, "IN_PROGRESS"))
JOB_AT_ITS_LAST_TASK = _jobs(lambda job: job.open and _ends_with_next_report(job))
PAUSED_AT_ITS_LAST_TASK = _jobs(lambda job: job.status == "PAUSED" and _ends_with_next_report(job))
JOB_WITH_FAILURES = _jobs(lambda job: not job.ended and _has_task(job, "RETRIED"))
JOB_WITH_WAITING_STAGE = _jobs(lambda job: not job.ended and any(stage.status == "WAITING" for stage in job.stages))
WAITING_STAGE = _stages(lambda stage: stage.status == "WAITING")
SHORT_STAGE = _stages(lambda stage: not stage.ended and not stage.job.ended and len(stage.tasks) < 4)
LEFT_OVER_STAGE = _stages(lambda stage: not stage.ended and stage.job.ended)
STAGE_TO_CLAIM = _stages(lambda stage: stage.open and _has_waiting(stage))
STAGE_OF_PAUSED = _stages(lambda stage: stage.job.status == "PAUSED" and not stage.ended and _has_waiting(stage))
STAGE_NOT_TO_CLAIM = _stages(lambda stage: not stage.open and _has_waiting(stage))
HELD = _tasks(lambda task: _in_hands(task, leased=False))
HELD_OF_PAUSED = _tasks(lambda task: _in_hands(task, leased=False, job="PAUSED"))
HELD_OF_RESUMED = _tasks(lambda task: _in_hands(task, leased=False, job="PENDING"))
LAST_HELD_OF_PAUSE = _tasks(lambda task: _ends_a_pause(task, leased=False))
LEASED = _tasks(lambda task: _in_hands(task, leased=True))
LEASED_OF_PAUSED = _tasks(lambda task: _in_hands(task, leased=True, job="PAUSED"))
LEASED_OF_RESUMED = _tasks(lambda task: _in_hands(task, leased=True, job="PENDING"))
LAST_LEASED_OF_PAUSE = _tasks(lambda task: _ends_a_pause(task, leased=True))
LEASED_AGAIN = _tasks(lambda task: _in_hands(task, leased=True) and task.attempts > 0)
TASK_AT_WORK = _tasks(_at_work)
TASK_WITH_DEADLINE = _tasks(_has_deadline)
DELAYED = _tasks(lambda task: task.delayed)
DELAYED_BEFORE_OTHERS = _tasks(lambda task: task.delayed and _is_passed_by(task))
ABORTED_AT_WORK = _tasks(lambda task: bool(task.tries) and task.tries[-1].outcome == "ABORTED")
TRIED = _tasks(lambda task: bool(task.tries) and task.at_work is None)


class Kind(NamedTuple):
    """A kind of request.

    Args:
        weight: How often it is sent, compared with others.
        among: The entities that it is mostly sent for; if there are none, it is not sent.
        line: Method and path, with the ``{id}`` of the entity, the ``{type}`` of that stage, the ``{worker}`` of that
            task, or ``{anybody}``.
        body: A strategy for the body, or a function that makes one from the model and the name of the entity.
        prefer: The header ``Prefer``.
    """

    weight: int
    among: Among
    line: str
    body: Bodies | SearchStrategy[Json] = st.none()
    prefer: str | None = None


SETTLE, HEARTBEAT = "POST /v1/tasks/settle", "POST /v1/workers/{worker}/heartbeat"

# Requests that make progress come first: Hypothesis prefers the first ones, and jobs should reach their ends.
KINDS = (
    Kind(96, LAST_HELD_OF_PAUSE, "PUT /v1/tasks/{id}/status", _to("COMPLETED")),
    Kind(96, LAST_LEASED_OF_PAUSE, SETTLE, settlements(st.sampled_from(DONE))),
    Kind(24, HELD_OF_RESUMED, "PUT /v1/tasks/{id}/status", _to("COMPLETED", "FAILED")),
    Kind(24, LEASED_OF_RESUMED, SETTLE, settlements(st.sampled_from((*DONE, *FAILED)))),
    Kind(8, HELD_OF_PAUSED, "PUT /v1/tasks/{id}/status", _to("COMPLETED", "FAILED")),
    Kind(8, LEASED_OF_PAUSED, SETTLE, settlements(OUTCOME)),
    Kind(20, SHORT_STAGE, "POST /v1/stages/{id}/tasks", TASKS),
    Kind(12, SHORT_STAGE, "POST /v1/stages/{id}/tasks", TASKS, MINIMAL),
    Kind(24, SHORT_JOB, "POST /v1/jobs/{id}/stage", STAGE),
    Kind(4, _no_crowd, "POST /v1/jobs", JOB),
    Kind(12, _no_crowd, "POST /v1/jobs", TREE),
    Kind(24, _no_crowd, "POST /v1/jobs", UNIQUE_JOB),
    Kind(16, HELD, "PUT /v1/tasks/{id}/status", _to("COMPLETED")),
    Kind(8, HELD, "PUT /v1/tasks/{id}/status", _to("FAILED")),
    Kind(24, LEASED, SETTLE, settlements(st.sampled_from(DONE))),
    Kind(12, LEASED, SETTLE, settlements(OUTCOME)),
    Kind(12, LEASED, SETTLE, settlements(OUTCOME), MINIMAL),
    Kind(16, LEASED_AGAIN, SETTLE, settlements(st.sampled_from(BACK))),
    Kind(16, STAGE_TO_CLAIM, "PATCH /v1/stages/{type}/tasks/dequeue"),
    Kind(12, STAGE_TO_CLAIM, "POST /v1/stages/{type}/tasks/claim", CLAIM),
    Kind(12, STAGE_TO_CLAIM, "POST /v1/stages/{type}/tasks/claim", CLAIM, MINIMAL),
    Kind(32, DELAYED, "LATER /v1/delays", moments(lambda task: task.delayed)),
    Kind(12, TASK_AT_WORK, "LATER /v1/leases", moments(_at_work)),
    Kind(12, TASK_WITH_DEADLINE, "LATER /v1/deadlines", moments(_has_deadline)),
    Kind(32, DELAYED_BEFORE_OTHERS, "LATER /v1/maintenance", NO_TASKS),
    Kind(4, ANY_TASK, "LATER /v1/maintenance", NO_TASKS),
    Kind(40, PAUSED_JOB, "PUT /v1/jobs/{id}/status", _to("PENDING")),
    Kind(128, PAUSED_AT_ITS_LAST_TASK, "PUT /v1/jobs/{id}/status", _to("PENDING")),
    Kind(8, WAITING_STAGE, "PUT /v1/stages/{id}/status", _to("PENDING")),
    Kind(16, JOB_AT_WORK, "PUT /v1/jobs/{id}/status", _to("PAUSED")),
    Kind(64, JOB_AT_ITS_LAST_TASK, "PUT /v1/jobs/{id}/status", _to("PAUSED")),
    Kind(4, UNFINISHED_JOB, "PUT /v1/jobs/{id}/status", _to("PAUSED", "ABORTED")),
    Kind(10, PAUSED_JOB, "PUT /v1/jobs/{id}/status", _to("ABORTED")),
    Kind(4, JOB_WITH_FAILURES, "PUT /v1/jobs/{id}/status", _to("ABORTED")),
    Kind(4, JOB_WITH_WAITING_STAGE, "PUT /v1/jobs/{id}/status", _to("ABORTED")),
    Kind(4, UNFINISHED_JOB, "PATCH /v1/jobs/{id}/priority", st.fixed_dictionaries({"priority": PRIORITY})),
    Kind(4, ENDED_JOB, "DELETE /v1/jobs/{id}"),
    # Unique keys.
    Kind(6, KEY_OF_UNFINISHED, "POST /v1/jobs", once_more),
    Kind(12, KEY_OF_PAUSED, "POST /v1/jobs", once_more),
    Kind(32, KEY_OF_ENDED, "POST /v1/jobs", once_more),
    Kind(128, KEY_OF_COMPLETED, "POST /v1/jobs", once_more),
    Kind(32, KEY_OF_DELETED, "POST /v1/jobs", once_more),
    Kind(12, ENDED_WITH_KEY, "DELETE /v1/jobs/{id}"),
    # Heartbeats and orders.
    Kind(12, LEASED, HEARTBEAT, heartbeats),
    Kind(8, LEASED, "POST /v1/workers/{anybody}/heartbeat", heartbeats),
    Kind(2, ANY_TASK, "POST /v1/workers/{anybody}/heartbeat", heartbeats),
    Kind(2, ANY_TASK, "PUT /v1/workers/{anybody}", st.fixed_dictionaries({"drain": st.booleans()})),
    # Requests that are refused, or may be: a refusal must change nothing.
    Kind(8, STAGE_NOT_TO_CLAIM, "PATCH /v1/stages/{type}/tasks/dequeue"),
    Kind(8, STAGE_NOT_TO_CLAIM, "POST /v1/stages/{type}/tasks/claim", CLAIM),
    Kind(8, TRIED, SETTLE, settlements(ANY_OUTCOME)),
    Kind(4, TRIED, SETTLE, settlements(ANY_OUTCOME), MINIMAL),
    Kind(12, ABORTED_AT_WORK, SETTLE, settlements(OUTCOME)),
    Kind(3, TASK_AT_WORK, SETTLE, settlements(ANY_OUTCOME, WORKER)),
    Kind(3, TASK_AT_WORK, SETTLE, settlements(ANY_OUTCOME, WORKER), MINIMAL),
    Kind(6, LEASED, "PUT /v1/tasks/{id}/status", _to("COMPLETED", "FAILED")),
    Kind(4, LEFT_OVER_STAGE, "POST /v1/stages/{id}/tasks", TASKS),
    Kind(2, ANY_STAGE, "POST /v1/stages/{id}/tasks", ODD_TASKS),
    Kind(1, ANY_STAGE, "POST /v1/stages/{id}/tasks", ODD_TASKS, MINIMAL),
    Kind(1, ANY_STAGE, "POST /v1/stages/{id}/tasks", ODD_TASKS, "return=representation, return=minimal"),
    Kind(4, ANY_JOB, "POST /v1/jobs", ODD_JOB),
    Kind(1, ANY_STAGE, "POST /v1/stages/{type}/tasks/claim", CLAIM.map(lambda claim: claim | {"limit": 0})),
    Kind(1, ANY_JOB, SETTLE, NO_REPORTS),
    Kind(2, ANY_JOB, "DELETE /v1/jobs/{id}"),
    Kind(2, ANY_JOB, "PUT /v1/jobs/{id}/status", _to(*STATUSES)),
    Kind(2, ANY_STAGE, "PUT /v1/stages/{id}/status", _to(*STATUSES)),
    Kind(2, ANY_TASK, "PUT /v1/tasks/{id}/status", _to(*STATUSES)),
    # Requests that change no status.
    Kind(1, ANY_JOB, "PATCH /v1/jobs/{id}/user-metadata", METADATA),
    Kind(1, ANY_STAGE, "PATCH /v1/stages/{id}/user-metadata", METADATA),
    Kind(1, ANY_TASK, "PATCH /v1/tasks/{id}/user-metadata", METADATA),
    Kind(1, ANY_JOB, "GET /v1/jobs/{id}"),
    Kind(1, ANY_JOB, "GET /v1/jobs/{id}?should_return_stages=true"),
    Kind(1, ANY_JOB, "GET /v1/jobs/{id}?should_return_progress=true&should_return_stages=true"),
    Kind(1, ANY_JOB, "GET /v1/jobs/{id}/stages?should_return_tasks=true"),
    Kind(4, ANY_JOB, "GET /v1/jobs/{id}/history"),
    Kind(1, ANY_STAGE, "GET /v1/stages/{id}?should_return_tasks=true"),
    Kind(1, ANY_STAGE, "GET /v1/stages/{id}?should_return_progress=true"),
    Kind(1, ANY_STAGE, "GET /v1/stages/{id}/summary"),
    Kind(1, ANY_STAGE, "GET /v1/stages/{id}/tasks"),
    Kind(1, ANY_STAGE, "GET /v1/stages?stage_type={type}&stage_operation_status=PENDING"),
    Kind(1, ANY_STAGE, "GET /v1/tasks?stage_type={type}&status=RETRIED"),
    Kind(4, ANY_STAGE, "GET /v1/stages/{id}/history"),
    Kind(4, ANY_STAGE, "GET /v1/queues/{type}/depth"),
    Kind(12, STAGE_OF_PAUSED, "GET /v1/queues/{type}/depth"),
    Kind(1, ANY_TASK, "GET /v1/tasks/{id}"),
    Kind(2, ANY_TASK, "GET /v1/tasks/{id}/attempts"),
    Kind(6, TRIED, "GET /v1/tasks/{id}/history"),
)
RARELY = st.sampled_from(15 * (False,) + (True,))


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A request, mostly for an entity that it is meant for, otherwise for any entity, or for one that never existed."""
    clients: Any = draw(st.runner())  # the state machine that Hypothesis is running
    model: Model = clients.model
    # To a manager of part A alone, requests of part B are sent rarely: it refuses them all alike.
    has_part_b = not model.part_a_only or draw(RARELY)
    kinds = [kind for kind in KINDS if has_part_b or not part_a.is_part_b(*kind.line.split())]
    possible = [(kind, names) for kind in kinds if (names := kind.among(model))]
    # Hypothesis looks at each element of a list, but not of a range.
    ends = list(accumulate(kind.weight for kind, _ in possible))
    kind, names = possible[bisect(ends, draw(st.sampled_from(range(ends[-1]))))]
    method, _, path = kind.line.partition(" ")
    if method != "LATER" and draw(RARELY):
        entity = path.split("/")[2].partition("?")[0].removesuffix("s")
        names = [*(name for name in model.names if name.startswith(entity)), f"{entity}-0"]
    name = draw(st.sampled_from(names))
    stage = model.stages.get(name)
    holder = worker_of(model, name) if "{worker}" in path else None
    worker = holder or (draw(WORKER) if "/workers/" in path else None)
    body = draw(kind.body(model, name) if callable(kind.body) else kind.body)
    if not has_part_b:
        body = part_a.plain(body) if method == "POST" else body
        path = path.partition("?should_return_progress")[0]
    stage_type = stage.type if stage else clients.name
    return Request(method, path.format(id=name, type=stage_type, worker=worker, anybody=worker), body, kind.prefer)
