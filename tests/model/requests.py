"""What clients ask for: a table of requests, each with what it is mostly about."""

from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.model.endpoints import Request
from tests.model.entities import PRIORITIES, Body, Job, Json, Stage, Task
from tests.model.model import Model

STATUSES = ("CREATED", "WAITING", "PENDING", "RETRIED", "IN_PROGRESS", "PAUSED", "COMPLETED", "FAILED", "ABORTED")
LETTERS = "ab"
"""How stage types end: few of them, so that stages compete for claims."""
CROWD = 3
"""Unfinished jobs at a time: with more of them none would come to its end."""

# Bodies. A step should need few choices of Hypothesis, since an example may have only so many.

NAME: SearchStrategy[str] = st.runner().map(lambda clients: clients.name)
TYPE = st.builds("{}-{}".format, NAME, st.sampled_from((LETTERS[0], *LETTERS)))
PRIORITY = st.sampled_from(("MEDIUM", "HIGH", "MEDIUM", *PRIORITIES))
METADATA: SearchStrategy[Json] = st.sampled_from(
    ({}, {"deep": [1, {"ü": None}]}, {"userMetadata": {"wrapped": 1.5}}, {"userMetadata": 5})
)
COMMON: SearchStrategy[Body] = st.sampled_from(
    (
        {"data": {}},
        {
            "data": {"deep": [1, {"ü": None}]},
            "userMetadata": {"userMetadata": {}},
            "traceparent": "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01",
        },
    )
)


def _new(**fields: SearchStrategy[Any]) -> SearchStrategy[Json]:
    """What is said of a new entity; a field that is None is not said."""
    return st.builds(_said, COMMON, st.fixed_dictionaries(fields))


def _said(common: Body, fields: Body) -> Body:
    return common | {name: value for name, value in fields.items() if value is not None}


def _to(*statuses: str) -> SearchStrategy[Json]:
    return st.fixed_dictionaries({"status": st.sampled_from(statuses)})


JOB = _new(name=NAME, priority=st.one_of(st.none(), PRIORITY))
STAGE = _new(type=TYPE, startAsWaiting=st.sampled_from((None, None, None, True)))
TASK = _new(maxAttempts=st.sampled_from((None, 1, 2)))
TASKS: SearchStrategy[Json] = st.one_of(st.tuples(TASK), st.tuples(TASK, TASK)).map(list)
ODD_TASKS: SearchStrategy[Json] = st.sampled_from(([], [{"data": {}}, {"data": {}, "maxAttempts": 0}]))

# What they are about

Among = Callable[[Model], list[str]]
"""The names of what a request is mostly about."""


def _jobs(fits: Callable[[Job], bool]) -> Among:
    return lambda model: [name for name, job in model.jobs.items() if fits(job)]


def _stages(fits: Callable[[Stage], bool]) -> Among:
    return lambda model: [name for name, stage in model.stages.items() if fits(stage)]


def _tasks(fits: Callable[[Task], bool]) -> Among:
    return lambda model: [name for name, task in model.tasks.items() if fits(task)]


def _has_task(job: Job, status: str) -> bool:
    return any(task.status == status for stage in job.stages for task in stage.tasks)


def _ends_with_next_report(job: Job) -> bool:
    left = [task.status for stage in job.stages for task in stage.tasks if not task.ended]
    return left == ["IN_PROGRESS"] and all(stage.tasks for stage in job.stages)


def _has_waiting(stage: Stage) -> bool:
    return any(task.waiting for task in stage.tasks)


def _no_crowd(model: Model) -> list[str]:
    """A job that is not there yet, while few are."""
    return ["job-0"] if sum(not job.ended for job in model.jobs.values()) < CROWD else []


ANY_JOB, ANY_STAGE, ANY_TASK = _jobs(lambda _: True), _stages(lambda _: True), _tasks(lambda _: True)
ENDED_JOB = _jobs(lambda job: job.ended)
UNFINISHED_JOB = _jobs(lambda job: not job.ended)
SHORT_JOB = _jobs(lambda job: not job.ended and len(job.stages) < 2)
PAUSED_JOB = _jobs(lambda job: job.status == "PAUSED")
JOB_AT_WORK = _jobs(lambda job: job.open and _has_task(job, "IN_PROGRESS"))
JOB_AT_ITS_LAST_TASK = _jobs(lambda job: job.open and _ends_with_next_report(job))
JOB_WITH_FAILURES = _jobs(lambda job: not job.ended and _has_task(job, "RETRIED"))
WAITING_STAGE = _stages(lambda stage: stage.status == "WAITING")
SHORT_STAGE = _stages(lambda stage: not stage.ended and not stage.job.ended and len(stage.tasks) < 3)
LEFT_OVER_STAGE = _stages(lambda stage: not stage.ended and stage.job.ended)
STAGE_TO_CLAIM = _stages(lambda stage: stage.open and _has_waiting(stage))
STAGE_NOT_TO_CLAIM = _stages(lambda stage: not stage.open and _has_waiting(stage))
TASK_AT_WORK = _tasks(lambda task: task.status == "IN_PROGRESS")
TASK_OF_PAUSED = _tasks(lambda task: task.status == "IN_PROGRESS" and task.stage.job.status == "PAUSED")
TASK_OF_RESUMED = _tasks(lambda task: task.status == "IN_PROGRESS" and task.stage.job.status == "PENDING")


class Kind(NamedTuple):
    """A kind of request.

    Args:
        weight: How often it is asked, compared with others.
        among: What it is mostly about; where there is none of these, it is not asked.
        line: Method and path, with the ``{id}`` of what it is about, or the ``{type}`` of that stage.
    """

    weight: int
    among: Among
    line: str
    body: SearchStrategy[Json] = st.none()


# What brings jobs forward stands first: Hypothesis likes the first best, and jobs should come to their ends.
KINDS = (
    Kind(48, TASK_OF_RESUMED, "PUT /v1/tasks/{id}/status", _to("COMPLETED", "FAILED")),
    Kind(16, TASK_OF_PAUSED, "PUT /v1/tasks/{id}/status", _to("COMPLETED", "FAILED")),
    Kind(32, SHORT_STAGE, "POST /v1/stages/{id}/tasks", TASKS),
    Kind(24, SHORT_JOB, "POST /v1/jobs/{id}/stage", STAGE),
    Kind(24, _no_crowd, "POST /v1/jobs", JOB),
    Kind(24, TASK_AT_WORK, "PUT /v1/tasks/{id}/status", _to("COMPLETED")),
    Kind(16, TASK_AT_WORK, "PUT /v1/tasks/{id}/status", _to("FAILED")),
    Kind(32, STAGE_TO_CLAIM, "PATCH /v1/stages/{type}/tasks/dequeue"),
    Kind(40, PAUSED_JOB, "PUT /v1/jobs/{id}/status", _to("PENDING")),
    Kind(8, WAITING_STAGE, "PUT /v1/stages/{id}/status", _to("PENDING")),
    Kind(16, JOB_AT_WORK, "PUT /v1/jobs/{id}/status", _to("PAUSED")),
    Kind(24, JOB_AT_ITS_LAST_TASK, "PUT /v1/jobs/{id}/status", _to("PAUSED")),
    Kind(4, UNFINISHED_JOB, "PUT /v1/jobs/{id}/status", _to("PAUSED", "ABORTED")),
    Kind(4, PAUSED_JOB, "PUT /v1/jobs/{id}/status", _to("ABORTED")),
    Kind(4, JOB_WITH_FAILURES, "PUT /v1/jobs/{id}/status", _to("ABORTED")),
    Kind(4, UNFINISHED_JOB, "PATCH /v1/jobs/{id}/priority", st.fixed_dictionaries({"priority": PRIORITY})),
    Kind(4, ENDED_JOB, "DELETE /v1/jobs/{id}"),
    # What must be refused, or may be: refusals must change nothing.
    Kind(16, STAGE_NOT_TO_CLAIM, "PATCH /v1/stages/{type}/tasks/dequeue"),
    Kind(4, LEFT_OVER_STAGE, "POST /v1/stages/{id}/tasks", TASKS),
    Kind(2, ANY_STAGE, "POST /v1/stages/{id}/tasks", ODD_TASKS),
    Kind(2, ANY_JOB, "DELETE /v1/jobs/{id}"),
    Kind(2, ANY_JOB, "PUT /v1/jobs/{id}/status", _to(*STATUSES)),
    Kind(2, ANY_STAGE, "PUT /v1/stages/{id}/status", _to(*STATUSES)),
    Kind(2, ANY_TASK, "PUT /v1/tasks/{id}/status", _to(*STATUSES)),
    # What changes no status.
    Kind(1, ANY_JOB, "PATCH /v1/jobs/{id}/user-metadata", METADATA),
    Kind(1, ANY_STAGE, "PATCH /v1/stages/{id}/user-metadata", METADATA),
    Kind(1, ANY_TASK, "PATCH /v1/tasks/{id}/user-metadata", METADATA),
    Kind(1, ANY_JOB, "GET /v1/jobs/{id}"),
    Kind(1, ANY_JOB, "GET /v1/jobs/{id}?should_return_stages=true"),
    Kind(1, ANY_JOB, "GET /v1/jobs/{id}/stages?should_return_tasks=true"),
    Kind(1, ANY_STAGE, "GET /v1/stages/{id}?should_return_tasks=true"),
    Kind(1, ANY_STAGE, "GET /v1/stages/{id}/summary"),
    Kind(1, ANY_STAGE, "GET /v1/stages/{id}/tasks"),
    Kind(1, ANY_STAGE, "GET /v1/stages?stage_type={type}&stage_operation_status=PENDING"),
    Kind(1, ANY_STAGE, "GET /v1/tasks?stage_type={type}&status=RETRIED"),
    Kind(1, ANY_TASK, "GET /v1/tasks/{id}"),
)
RARELY = st.sampled_from(15 * (False,) + (True,))


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A request, mostly about what it is meant for; else about anything that there is or was, or that never was."""
    clients: Any = draw(st.runner())  # the state machine that Hypothesis is running
    model: Model = clients.model
    possible = [(kind, names) for kind in KINDS if (names := kind.among(model))]
    kind, names = draw(st.sampled_from([choice for choice in possible for _ in range(choice[0].weight)]))
    method, _, path = kind.line.partition(" ")
    if draw(RARELY):
        entity = path.split("/")[2].partition("?")[0].removesuffix("s")
        names = [*(name for name in model.names if name.startswith(entity)), f"{entity}-0"]
    name = draw(st.sampled_from(names))
    stage = model.stages.get(name)
    return Request(method, path.format(id=name, type=stage.type if stage else clients.name), draw(kind.body))
