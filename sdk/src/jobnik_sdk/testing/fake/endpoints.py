"""The base of all endpoints: their routes, and the entities that their paths name."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar
from uuid import UUID

from jobnik_sdk.testing.fake import bodies
from jobnik_sdk.testing.fake.dispatch import Dispatcher
from jobnik_sdk.testing.fake.jobs import Jobs
from jobnik_sdk.testing.fake.queries import Query
from jobnik_sdk.testing.fake.requests import Answer, NotYet, Request
from jobnik_sdk.testing.fake.state import Job, RefusedRequestError, Stage, State, Task

FoundT = TypeVar("FoundT")

Serve = Callable[[Request], Answer | NotYet]


class Route(NamedTuple):
    """An endpoint."""

    method: str
    path: str
    """Its parameters are in braces."""
    serve: Serve
    part_b: bool = False
    """Whether the endpoint belongs to part B of the protocol."""


class Endpoints:
    """A group of endpoints.

    Args:
        state: The state that they read and change.
        part_a_only: Whether this manager supports only part A of the protocol.
    """

    def __init__(self, state: State, *, part_a_only: bool) -> None:
        self._state = state
        self._part_a_only = part_a_only
        self._jobs = Jobs(state)
        self._dispatcher = Dispatcher(state)

    def _job(self, request: Request) -> Job:
        return _found(self._state.jobs, request.id(), "job")

    def _stage(self, request: Request) -> Stage:
        return _found(self._state.stages, request.id(), "stage")

    def _task(self, request: Request) -> Task:
        return _found(self._state.tasks, request.id(), "task")

    def _setting_metadata(self, find: Callable[[Request], Job | Stage | Task], kind: str) -> Serve:
        def serve(request: Request) -> Answer:
            request.query(Query)
            metadata = request.metadata(bodies.Payload if self._part_a_only else bodies.Metadata)
            self._jobs.set_metadata(find(request), metadata)
            return done(f"{kind}_MODIFIED_SUCCESSFULLY")

        return serve


def done(code: str) -> Answer:
    """Return the answer to a change that returns no entity."""
    return Answer(200, {"code": code})


def _found(entities: Mapping[UUID, FoundT], wanted: UUID, kind: str) -> FoundT:
    entity = entities.get(wanted)
    if entity is None:
        raise RefusedRequestError(404, f"{kind.upper()}_NOT_FOUND", f"There is no such {kind}")
    return entity
