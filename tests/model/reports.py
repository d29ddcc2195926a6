"""Strategies for the bodies of workers' requests: reports and heartbeats; and for moments that come together."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.model.entities import Attempt, Body, Id, Json, Lease, Task
from tests.model.model import Model

MOST_OTHERS = 2
"""The most further tasks in one request: a step should need few choices of Hypothesis."""

WORKER: SearchStrategy[str] = st.builds(
    "{}-worker-{}".format, st.runner().map(lambda clients: clients.name), st.sampled_from("12")
)
ERROR = {"type": "ValueError", "message": "no ü", "stack": "line 1"}
DONE: tuple[Body, ...] = (
    {"outcome": "COMPLETED"},
    {"outcome": "COMPLETED", "result": {"pages": [1, 2.5]}},
    # Fields that belong to other outcomes are ignored.
    {"outcome": "COMPLETED", "result": 0, "error": ERROR, "retryable": False, "delaySeconds": 3600},
)
FAILED: tuple[Body, ...] = (
    {"outcome": "FAILED", "error": {"type": "Oops"}},
    {"outcome": "FAILED", "error": ERROR, "result": 1},
    {"outcome": "FAILED", "delaySeconds": 3600},
    {"outcome": "FAILED", "error": ERROR, "retryable": False},
)
BACK: tuple[Body, ...] = (
    {"outcome": "RELEASED"},
    {"outcome": "SNOOZED", "delaySeconds": 7200, "error": ERROR},
    {"outcome": "SNOOZED", "delaySeconds": 0},
    {"outcome": "RELEASED", "delaySeconds": 3600, "retryable": False},
)
WRONG: tuple[Body, ...] = ({"outcome": "GREAT"}, {"outcome": "RELEASED", "delaySeconds": -1}, {})
OUTCOME: SearchStrategy[Body] = st.sampled_from((*DONE, *DONE, *FAILED, *BACK))
ANY_OUTCOME: SearchStrategy[Body] = st.sampled_from((*DONE, *DONE, *FAILED, *BACK, *WRONG))
PROGRESS: SearchStrategy[Body] = st.sampled_from(
    (
        {},
        {"progress": {"fraction": 0.25}},
        {"progress": {"fraction": 1.0, "message": "nearly", "etaSeconds": 30.0}},
    )
)

Bodies = Callable[[Model, str], SearchStrategy[Json]]
"""Bodies of requests that are mostly about the entity of that name."""


def worker_of(model: Model, name: str) -> str | None:
    """The worker of the last attempt at a task."""
    task = model.tasks.get(name)
    return task.tries[-1].worker if task and task.tries else None


def settlements(outcome: SearchStrategy[Body], worker: SearchStrategy[str] | None = None) -> Bodies:
    """Reports of the last attempt at a task, and of other attempts of the same worker, of others, or of none.

    Args:
        outcome: The outcome in the first report.
        worker: The worker that reports; None for the worker of the attempt.
    """

    @st.composite
    def bodies(draw: st.DrawFn, model: Model, name: str) -> Json:
        reporter = draw(worker) if worker is not None else worker_of(model, name) or draw(WORKER)
        others = draw(st.lists(_others(model, reporter), max_size=MOST_OTHERS))
        reports: list[Json] = [_names(Id(name), _last(model, name)) | draw(outcome)]
        reports += [_names(task, lease) | draw(ANY_OUTCOME) for task, lease in others]
        return {"workerId": reporter, "results": reports}

    return bodies


@st.composite
def heartbeats(draw: st.DrawFn, model: Model, name: str) -> Json:
    """A heartbeat of a worker that runs a task, and others that may not be its own."""
    others = draw(st.lists(_others(model, worker_of(model, name)), max_size=MOST_OTHERS))
    running = {Id(name): _last(model, name)} | dict(others)
    return {
        "stageTypes": ["a", "b"],
        "running": [_names(task, lease) | draw(PROGRESS) for task, lease in running.items()],
    } | draw(st.sampled_from(({}, {"host": "here", "version": "1.2", "draining": True})))


def moments(comes: Callable[[Task], object]) -> Bodies:
    """The moment of a task comes, and of some others for which it can."""

    def bodies(model: Model, name: str) -> SearchStrategy[Json]:
        others = [task.id for task in model.tasks.values() if comes(task) and task.id != name]
        if not others:
            return st.just([Id(name)])
        return st.lists(st.sampled_from(others), max_size=MOST_OTHERS, unique=True).map(lambda more: [Id(name), *more])

    return bodies


def _others(model: Model, worker: str | None) -> SearchStrategy[tuple[Id, Lease]]:
    """Further attempts: mostly those of the worker in progress, otherwise any attempt, and some that never existed."""
    tries = [(task, attempt) for task in model.tasks.values() for attempt in task.tries]
    own = [(task.id, attempt.lease) for task, attempt in tries if attempt is task.at_work and attempt.worker == worker]
    mistaken = [(task, lease) for (task, _), (_, lease) in pairwise(own)]
    all_tries = [(task.id, attempt.lease) for task, attempt in tries]
    return st.sampled_from([*4 * own, *4 * mistaken, *all_tries, (Id("task-0"), Lease(0, 0))])


def _last(model: Model, name: str) -> Lease:
    attempts: list[Attempt] = model.tasks[name].tries if name in model.tasks else []
    return attempts[-1].lease if attempts else Lease(0, 0)


def _names(task: Id, lease: Lease) -> dict[str, Any]:
    return {"taskId": task, "leaseId": lease}
