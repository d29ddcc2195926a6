"""The base of all endpoints: their routes, and the entities that their paths name."""

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final, NamedTuple, TypeVar
from uuid import UUID

from jobnik_sdk.testing.fake import bodies
from jobnik_sdk.testing.fake.dispatch import Dispatcher
from jobnik_sdk.testing.fake.jobs import Jobs
from jobnik_sdk.testing.fake.queries import Query
from jobnik_sdk.testing.fake.requests import Answer, NotYet, Request
from jobnik_sdk.testing.fake.state import Creation, Job, RefusedRequestError, Stage, State, Task

KEYS_KEPT_FOR: Final = timedelta(hours=24)
"""How long an idempotency key is kept."""

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

    def _once(
        self,
        request: Request,
        identity: Callable[[], object],
        create: Callable[[], tuple[Job, FoundT]],
        kind: str = "job",
    ) -> FoundT:
        """Create something, or return what an earlier request with the same idempotency key returned.

        Args:
            request: The request.
            identity: Returns what it creates and where, without trace contexts.
            create: Creates it. Returns its job and the response.
            kind: What is missing if the job was deleted meanwhile.
        """
        key = request.idempotency_key
        if key is None:
            return create()[1]
        document = json.dumps(identity(), sort_keys=True, default=str)  # in which 1, 1.0 and true differ
        earlier = self._state.creations.get(key)
        if earlier is None or earlier.at + KEYS_KEPT_FOR < self._state.now:
            earlier = Creation(self._state.now, document, *create())
            self._state.creations[key] = earlier
        elif earlier.request != document:
            message = "Another request used this Idempotency-Key: use a new key for each request that differs"
            raise RefusedRequestError(422, "IDEMPOTENCY_KEY_REUSED", message)
        if earlier.job.id not in self._state.jobs:
            raise RefusedRequestError(404, f"{kind.upper()}_NOT_FOUND", f"There is no such {kind}")
        response: FoundT = earlier.response
        return response

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
