"""Two clients of one manager, or of two that share a database, as a Hypothesis state machine.

Each step is a request, or time that passes.

To add a request, write what it means as a method of `Model`, its endpoint as a case in `endpoints`, and when it is sent
as a row in `requests`. An event without a request, such as the end of a lease, needs the same three with the method
``LATER``, and a moment in `site` and `fake_site`.
"""

import re
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from itertools import count, cycle
from typing import Any, NamedTuple, Protocol

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.model.bindings import Bindings
from tests.model.creations import LETTERS
from tests.model.endpoints import LATER, Request, due
from tests.model.entities import Answer
from tests.model.lifecycle import Move
from tests.model.model import Model
from tests.model.requests import requests

CREATION = re.compile("/v1/(jobs|jobs/[^/]+/stage|stages/[^/]+/tasks)")
_numbers = count(1)


class _Creation(NamedTuple):
    """A creation that succeeded: a request with its headers, and its answer."""

    path: str
    body: object
    headers: dict[str, str]
    answer: Answer


class Clients(RuleBasedStateMachine):
    """Two clients of the model alone.

    Args:
        moves: Collects every move.
        part_a_only: Whether the manager serves part A of the protocol alone.
    """

    def __init__(self, moves: set[Move], *, part_a_only: bool = False) -> None:
        super().__init__()
        self.model = Model(part_a_only=part_a_only)
        self.name = f"model-{next(_numbers)}"
        self._moves = moves

    @rule(client=st.sampled_from((0, 1)), request=requests())
    def ask(self, client: int, request: Request) -> None:
        """Send a request by a client, or let time pass."""
        self._ask(client, request)

    def teardown(self) -> None:
        """Collect the moves of the model."""
        self._moves |= self.model.moves

    def _ask(self, client: int, request: Request) -> None:  # noqa: ARG002 - the model does not distinguish its clients
        due(self.model, request)


class Site(Protocol):
    """Two clients, and their managers. The maintenance runs when time passes here, and at no other moment."""

    def ask(self, client: int, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Send a request by one of the clients."""
        ...

    def pass_time(self, moment: str, tasks: Sequence[str]) -> Answer:
        """Let something happen to these tasks, such as the end of their leases, with all consequences."""
        ...

    def queue(self, name: str) -> Answer:
        """Return the place in the queue of every task of the jobs of that name; see ``tables.sql``."""
        ...


class ManagersClients(Clients):
    """Two clients of one manager or two, which must answer and store what the model does.

    Args:
        site: The manager with its clients. It may have others: the names of the jobs, the workers and the stage types
            belong to this example alone.
        moves: Collects every move.
        contradictions: Returns contradictions in what the manager stores. Only a database can have them: tables that
            repeat each other. The fake manager stores everything once, and `Site.queue` and the answers cover it.
        part_a_only: Whether the manager serves part A of the protocol alone.
    """

    def __init__(
        self,
        site: Site,
        moves: set[Move],
        contradictions: Callable[[], Sequence[str]] = lambda: (),
        *,
        part_a_only: bool = False,
    ) -> None:
        super().__init__(moves, part_a_only=part_a_only)
        self._site = site
        self._contradictions = contradictions
        self._bindings = Bindings()
        lists = (
            f"/v1/jobs?job_name={self.name}&should_return_stages=true",
            *(f"/v1/tasks?stage_type={self.name}-{letter}" for letter in LETTERS),
        )
        views = (partial(self._ask, 0, Request("GET", path)) for path in lists)
        self._views = cycle((*views, self._check_progress, self._check_contradictions, self._repeat_creation))
        self._creations = deque[_Creation]()
        """Those with an idempotency key."""
        self._keys = count()

    @invariant()
    def stored(self) -> None:
        """The manager stores what the model does: the queue after each step, and one further view in turn."""
        self._compare("The queue", self.model.get_queue(), self._site.queue(self.name))
        next(self._views)()

    def teardown(self) -> None:
        """Delete all jobs: a manager with the jobs of a long run would be slow."""
        super().teardown()
        for job in self.model.jobs:
            path = self._bindings.path(f"/v1/jobs/{job}")
            self._site.ask(0, "PUT", f"{path}/status", {"status": "ABORTED"})
            self._site.ask(0, "DELETE", path)

    def _check_progress(self) -> None:
        """Compare the progress of the unfinished job that is furthest, and of its stages."""
        jobs = [job for job in self.model.jobs.values() if not job.ended]
        if jobs and not self.model.part_a_only:
            job = max(jobs, key=lambda job: job.fraction or 0)
            for path in (f"jobs/{job.id}", *(f"stages/{stage.id}" for stage in job.stages)):
                self._ask(0, Request("GET", f"/v1/{path}?should_return_progress=true"))

    def _check_contradictions(self) -> None:
        contradictions = self._contradictions()
        assert not contradictions, "\n".join(contradictions)

    def _ask(self, client: int, request: Request) -> None:
        wanted = due(self.model, request)
        path, body = self._bindings.path(request.path), self._bindings.value(request.body)
        headers = {"Prefer": request.prefer} if request.prefer else {}
        if request.method == LATER:
            given = self._site.pass_time(path.removeprefix("/v1/"), body)
        elif request.method == "POST" and CREATION.fullmatch(path) and not self.model.part_a_only:
            given = self._create(client, path, body, headers)
        else:
            given = self._site.ask(client, request.method, path, body, **headers)
        self._compare(f"{request.method} {request.path}", wanted, given)

    def _create(self, client: int, path: str, body: object, headers: dict[str, str]) -> Answer:
        """Send a creation. Every second one has an idempotency key."""
        number = next(self._keys)
        if number % 2:
            return self._site.ask(client, "POST", path, body, **headers)
        headers |= {"Idempotency-Key": f"{self.name} {number}"}
        given = self._site.ask(client, "POST", path, body, **headers)
        if given.status < HTTPStatus.BAD_REQUEST:
            self._creations.append(_Creation(path, body, headers, given))
        return given

    def _repeat_creation(self) -> None:
        """Repeat a creation. It gets the first answer, and creates nothing, which the other views show."""
        self._creations.rotate()
        for path, body, headers, first in list(self._creations)[:1]:
            given = self._site.ask(0, "POST", path, body, **headers)
            entity: Any = first.body
            needed = f"/v1/jobs/{entity['id']}" if path == "/v1/jobs" else path.rpartition("/")[0]
            current = self._site.ask(0, "GET", needed)
            if current.status == HTTPStatus.NOT_FOUND:
                assert given.status == HTTPStatus.NOT_FOUND
            elif first.status == HTTPStatus.CREATED:
                assert given == first
            else:
                found: Any = given.body
                assert (given.status, found["id"]) == (first.status, entity["id"])

    def _compare(self, what: str, wanted: Answer, given: Answer) -> None:
        differences = self._bindings.differences(wanted, given)
        assert not differences, "\n".join((what, *differences))
