"""A manager and the model of it are asked the same, at random, and must answer and store the same.

``uv run pytest tests/model`` is short, and the same each time. ``uv run pytest tests/model --hypothesis-profile=long``
goes on for minutes, differently each time, and begins with what it found before. What fails is shortened to the few
requests that show it.
"""

from collections.abc import Callable, Generator
from typing import cast

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from reference_manager.domain.transitions import MACHINES, RESERVED

from tests.model.course import Move
from tests.model.machine import Clients, ManagersClients
from tests.model.site import Site
from tools.manager import ManagerProcess

# Short, so that all of it stays well below the limit of one test.
SHORT = settings(derandomize=True, deadline=None, stateful_step_count=100, max_examples=14)
SHORT_ALONE = settings(SHORT, max_examples=30)

EDGES = {
    (machine.name, str(edge.source), str(edge.target))
    for machine in MACHINES
    for edge in machine.edges
    if edge.cause != RESERVED
}
INSIDE_A_STATEMENT = {("job", "CREATED", "ABORTED"), ("task", "CREATED", "ABORTED")}
"""Jobs and tasks are CREATED only within the statement that creates them."""
SELDOM = {("job", source, target) for source in ("PENDING", "PAUSED") for target in ("COMPLETED", "FAILED")}
"""Ends of a job that has just been paused, which a short run may miss."""


def _is_long() -> bool:
    return settings.get_current_profile_name() == "long"


def _run(clients: Callable[[], Clients], short: settings) -> None:
    # It takes any function that makes one, but its annotation says a class.
    machine = cast("type[Clients]", clients)
    run_state_machine_as_test(machine, settings=settings.get_profile("long") if _is_long() else short)


@pytest.fixture
def site(start_manager: Callable[..., ManagerProcess], database_url: str) -> Generator[Site]:
    """A manager that nobody else asks, with two clients."""
    with Site.opened(start_manager().url, database_url) as opened:
        yield opened


@pytest.mark.timeout(0)  # each request has its own limit, and what fails takes minutes to be shortened
def test_the_manager_does_as_the_model(site: Site) -> None:
    """Whatever two clients ask and whatever time brings, every answer and everything stored is as the model says."""
    _run(lambda: ManagersClients(site, set()), SHORT)


@pytest.mark.timeout(0)  # as above
def test_the_model_moves_along_the_edges() -> None:
    """The requests lead the model along all edges of the state machines, and along no others."""
    moves: set[Move] = set()
    _run(lambda: Clients(moves), SHORT_ALONE)
    assert moves <= EDGES
    assert EDGES - moves <= INSIDE_A_STATEMENT | (set() if _is_long() else SELDOM)
