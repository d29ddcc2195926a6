"""The fake manager of `jobnik_sdk.testing`: asked through its transport, moved on in time in its memory."""

import heapq
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Self
from uuid import UUID

import httpx2
from jobnik_sdk.testing import FakeManager
from jobnik_sdk.testing.fake import wire
from jobnik_sdk.testing.fake.manager import ADDRESS
from jobnik_sdk.testing.fake.state import Attempt, State, Task
from pydantic_core import from_json, to_json

from tests.model.entities import Answer, Json
from tests.model.model import FAR

_A_SECOND = timedelta(seconds=1)
_TICK = timedelta(milliseconds=2)
"""Between two requests. In memory several fit into a millisecond, and their times would not differ."""


def _end_leases(state: State, tasks: Collection[UUID]) -> None:
    for task in tasks:
        state.tasks[task].attempts[-1].expires = state.now - _A_SECOND


def _end_deadlines(state: State, tasks: Collection[UUID]) -> None:
    _end_leases(state, tasks)
    for task in tasks:
        state.tasks[task].attempts[-1].deadline = state.now - _A_SECOND


def _end_delays(state: State, tasks: Collection[UUID]) -> None:
    now = state.now - _A_SECOND
    delayed = [(now if task.id in tasks else due, number, task) for due, number, task in state.delayed]
    heapq.heapify(delayed)
    state.delayed[:] = delayed


_MOMENTS: Mapping[str, Callable[[State, Collection[UUID]], None]] = {
    "leases": _end_leases,
    "deadlines": _end_deadlines,
    "delays": _end_delays,
    "maintenance": lambda _state, _tasks: None,
}
"""What each moment changes. `FakeManager.advance` would bring the moment of all tasks at once."""


class FakeSite:
    """Two clients of one fake manager."""

    def __init__(self, manager: FakeManager, clients: Sequence[httpx2.Client]) -> None:
        self._manager = manager
        self._clients = clients

    @classmethod
    @contextmanager
    def opened(cls, *, part_a_only: bool) -> Generator[Self]:
        """Create a fake manager, and close its clients at the end."""
        manager = FakeManager(part_a_only=part_a_only)
        with (
            httpx2.Client(base_url=ADDRESS, transport=manager.transport) as one,
            httpx2.Client(base_url=ADDRESS, transport=manager.transport) as other,
        ):
            yield cls(manager, (one, other))

    def ask(self, client: int, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Send a request by one of the clients."""
        self._manager.advance(_TICK)
        response = self._clients[client].request(method, path, json=body, headers=headers)
        content = response.json() if response.content else None
        return Answer(response.status_code, content, response.headers.get("Preference-Applied"))

    def pass_time(self, moment: str, tasks: Sequence[str]) -> Answer:
        """Let something happen to these tasks, such as the end of their leases, with all consequences."""
        with self._manager.transport.locked() as state:
            _MOMENTS[moment](state, {UUID(task) for task in tasks})
        self._manager.advance(timedelta())
        return Answer(204, None)

    def queue(self, name: str) -> Answer:
        """The place in the queue of every task of the jobs of that name, in the form of ``tables.sql``."""
        with self._manager.transport.locked() as state:
            due = {task.id: due for due, _, task in state.delayed}
            jobs = sorted((job for job in state.jobs.values() if job.name == name), key=lambda job: job.number)
            stages = [stage for job in jobs for stage in job.stages if stage.status != "ABORTED"]
            queue = [_queue_json(task, due.get(task.id)) for stage in stages for task in stage.tasks]
            return Answer(200, from_json(to_json(queue)))


def _queue_json(task: Task, due: datetime | None) -> Json:
    stage = task.stage
    return {
        "id": str(task.id),
        "waits": any(waiting is task for _, waiting in stage.waiting),
        "place": str(stage.place.id) if stage.place and stage.status not in {"COMPLETED", "FAILED"} else None,
        "priority": stage.job.priority,
        "delay": None if due is None else _delay_json(task, due),
        "lease": _lease_json(task.attempts[-1]) if task.status == "IN_PROGRESS" else None,
        "result": task.result,
        "error": task.error,
        "attempts": wire.attempts_json(task),
    }


def _delay_json(task: Task, due: datetime) -> Json:
    """For how many seconds the task is delayed; a moment that was asked for as it is."""
    if due == datetime.fromisoformat(FAR):
        return FAR
    since = max((attempt.ended for attempt in task.attempts if attempt.ended), default=task.created)
    return round((due - since).total_seconds())


def _lease_json(attempt: Attempt) -> Json:
    leased = attempt.worker_id is not None
    return {
        "leaseId": attempt.lease_id,
        "workerId": attempt.worker_id,
        "seconds": round(attempt.length.total_seconds()) if leased else None,
        "expires": wire.moment(attempt.expires) if leased else None,
        "deadline": wire.moment(attempt.deadline),
    }
