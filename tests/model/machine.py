"""Two clients of one manager, as a Hypothesis state machine: each step is a request, or something that comes with time.

To teach it a new request: what it means, as a method of `Model`; where it is found, as a case in `endpoints`; when it
is asked, as a row in `requests`. What happens without a request, such as a lease that ends, has all that too, under the
method ``LATER``, and a moment in `site`.
"""

from functools import partial
from itertools import count, cycle

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.model.course import Move
from tests.model.creations import LETTERS
from tests.model.endpoints import Request, due
from tests.model.entities import Answer
from tests.model.knowledge import Knowledge
from tests.model.model import Model
from tests.model.requests import requests
from tests.model.site import Site

_numbers = count(1)


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

    @rule(client=st.sampled_from((0, 1)), request=requests())
    def ask(self, client: int, request: Request) -> None:
        """A client asks for something, or time passes."""
        self._ask(client, request)

    def teardown(self) -> None:
        """Note what has moved."""
        self._moves |= self.model.moves

    def _ask(self, client: int, request: Request) -> None:  # noqa: ARG002 - the model does not care who asks
        due(self.model, request)


class ManagersClients(Clients):
    """Two clients of a manager, which must answer and store what the model does.

    Args:
        site: The manager with its clients. It may have others: the name of the jobs, of the workers and the stage types
            are this example's own.
        moves: Where every move is noted.
    """

    def __init__(self, site: Site, moves: set[Move]) -> None:
        super().__init__(moves)
        self._site = site
        self._knowledge = Knowledge()
        lists = (
            f"/v1/jobs?job_name={self.name}&should_return_stages=true",
            *(f"/v1/tasks?stage_type={self.name}-{letter}" for letter in LETTERS),
        )
        looks = (partial(self._ask, 0, Request("GET", path)) for path in lists)
        self._looks = cycle((*looks, self._progress, self._sane))

    @invariant()
    def stored(self) -> None:
        """What the manager stores is as in the model: where all tasks stand, and one thing after the other."""
        self._compare("Where the tasks stand", self.model.get_queue(), self._site.queue(self.name))
        next(self._looks)()

    def teardown(self) -> None:
        """Leave nothing behind: a database with the jobs of a long run would slow it down."""
        super().teardown()
        for job in self.model.jobs:
            path = self._knowledge.path(f"/v1/jobs/{job}")
            self._site.ask(0, "PUT", f"{path}/status", {"status": "ABORTED"})
            self._site.ask(0, "DELETE", path)

    def _progress(self) -> None:
        """How far the unfinished job is that is furthest, and its stages."""
        if jobs := [job for job in self.model.jobs.values() if not job.ended]:
            job = max(jobs, key=lambda job: job.fraction or 0)
            for path in (f"jobs/{job.id}", *(f"stages/{stage.id}" for stage in job.stages)):
                self._ask(0, Request("GET", f"/v1/{path}?should_return_progress=true"))

    def _sane(self) -> None:
        """What is true of every manager's tables is true of these."""
        falsehoods = self._site.falsehoods()
        assert not falsehoods, "\n".join(falsehoods)

    def _ask(self, client: int, request: Request) -> None:
        wanted = due(self.model, request)
        path, body = self._knowledge.path(request.path), self._knowledge.value(request.body)
        if request.method == "LATER":
            given = self._site.pass_time(path.removeprefix("/v1/"), body)
        else:
            given = self._site.ask(client, request.method, path, body, request.prefer)
        self._compare(f"{request.method} {request.path}", wanted, given)

    def _compare(self, what: str, wanted: Answer, given: Answer) -> None:
        differences = self._knowledge.differences(wanted, given)
        assert not differences, "\n".join((what, *differences))
