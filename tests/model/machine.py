"""Two clients of one manager, as a Hypothesis state machine: each step is a request.

To teach it a new request: what it means, as a method of `Model`; where it is found, as a case in `endpoints`; when it
is asked, as a row in `requests`. What happens without a request, such as a lease that ends, is a rule of its own beside
`ask`: a method of `Model` says what follows, and `stored` sees whether it did.
"""

from collections.abc import Sequence
from itertools import count, cycle

import httpx
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.model.endpoints import Request, due
from tests.model.entities import Answer
from tests.model.knowledge import Knowledge
from tests.model.model import Model
from tests.model.requests import LETTERS, requests

_numbers = count(1)

Move = tuple[str, str, str]
"""What moved, from which status, to which."""


class Clients(RuleBasedStateMachine):
    """Two clients of the model alone.

    Args:
        moves: Where every move is noted.
    """

    def __init__(self, moves: set[Move]) -> None:
        super().__init__()
        self.model = Model()
        self.name = f"model-{next(_numbers)}"
        self._moves = moves
        self._statuses: dict[str, str] = {}

    @rule(client=st.sampled_from((0, 1)), request=requests())
    def ask(self, client: int, request: Request) -> None:
        """A client asks for something."""
        self._ask(client, request)
        statuses = {name: entity.status for name, entity in self.model.entities()}
        for name, status in statuses.items():
            before = self._statuses.get(name, "CREATED")
            if before != status:
                self._moves.add((name.partition("-")[0], before, status))
        self._statuses = statuses

    def _ask(self, client: int, request: Request) -> None:  # noqa: ARG002 - the model does not care who asks
        due(self.model, request)


class ManagersClients(Clients):
    """Two clients of a manager, which must answer and store what the model does.

    It may be a manager that has other clients: the name of the jobs and the stage types are this example's own.

    Args:
        connections: Two, to the same manager.
        moves: Where every move is noted.
    """

    def __init__(self, connections: Sequence[httpx.Client], moves: set[Move]) -> None:
        super().__init__(moves)
        self._connections = connections
        self._knowledge = Knowledge()
        self._letters = cycle(LETTERS)

    @invariant()
    def stored(self) -> None:
        """What the manager stores is as in the model: all jobs and stages, and the tasks of each type in turn."""
        letter = next(self._letters)
        self._ask(0, Request("GET", f"/v1/jobs?job_name={self.name}&should_return_stages=true"))
        self._ask(1, Request("GET", f"/v1/tasks?stage_type={self.name}-{letter}"))

    def teardown(self) -> None:
        """Leave nothing behind: a database with the jobs of a long run would slow it down."""
        for job in self.model.jobs:
            path = self._knowledge.path(f"/v1/jobs/{job}")
            self._connections[0].put(f"{path}/status", json={"status": "ABORTED"})
            self._connections[0].delete(path)

    def _ask(self, client: int, request: Request) -> None:
        wanted = due(self.model, request)
        response = self._connections[client].request(
            request.method, self._knowledge.path(request.path), json=request.body
        )
        given = Answer(response.status_code, response.json() if response.content else None)
        differences = self._knowledge.differences(wanted, given)
        assert not differences, "\n".join((f"{request.method} {request.path}", *differences))
