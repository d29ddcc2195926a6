"""What all groups of endpoints have in common: the entities that paths name."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from jobnik_sdk.testing.fake import bodies, wire
from jobnik_sdk.testing.fake.jobs import Jobs
from jobnik_sdk.testing.fake.queries import Query
from jobnik_sdk.testing.fake.requests import Answer, Asked, Waiting
from jobnik_sdk.testing.fake.state import Job, Refused, Stage, State, Task
from jobnik_sdk.testing.fake.work import Work

FoundT = TypeVar("FoundT")

Serve = Callable[[Asked], Answer | Waiting]


class Route(NamedTuple):
    """An endpoint."""

    method: str
    path: str
    """With its parameters in braces."""
    serve: Serve
    part_b: bool = False
    """Whether part A of the protocol does not have it."""


class Endpoints:
    """A group of endpoints.

    Args:
        state: What they are about.
        part_a_only: Whether part B of the protocol is unknown here.
    """

    def __init__(self, state: State, *, part_a_only: bool) -> None:
        self._state = state
        self._part_a_only = part_a_only
        self._jobs = Jobs(state)
        self._work = Work(state)

    def _job(self, asked: Asked) -> Job:
        return _found(self._state.jobs, asked.id(), "job")

    def _stage(self, asked: Asked) -> Stage:
        return _found(self._state.stages, asked.id(), "stage")

    def _task(self, asked: Asked) -> Task:
        return _found(self._state.tasks, asked.id(), "task")

    def _task_json(self, task: Task) -> dict[str, Any]:
        # That nobody reported a task in time is known to part B alone.
        body = wire.task_json(task)
        return {name: value for name, value in body.items() if name != "error"} if self._part_a_only else body

    def _setting_metadata(self, find: Callable[[Asked], Job | Stage | Task], kind: str) -> Serve:
        def serve(asked: Asked) -> Answer:
            asked.query(Query)
            metadata = asked.metadata(bodies.Metadata)
            self._jobs.set_metadata(find(asked), metadata)
            return done(f"{kind}_MODIFIED_SUCCESSFULLY")

        return serve


def done(code: str) -> Answer:
    """Return a success without an entity."""
    return Answer(200, {"code": code})


def _found(entities: Mapping[UUID, FoundT], wanted: UUID, kind: str) -> FoundT:
    entity = entities.get(wanted)
    if entity is None:
        raise Refused(404, f"{kind.upper()}_NOT_FOUND", f"There is no such {kind}")
    return entity
