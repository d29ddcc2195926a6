"""A manager and the model of it are asked the same, at random, and must answer and store the same.

``uv run pytest tests/model`` is short, and the same each time. ``uv run pytest tests/model --hypothesis-profile=long``
goes on for minutes, differently each time, and begins with what it found before. What fails is shortened to the few
requests that show it.
"""

from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from reference_manager.domain.transitions import MACHINES, RESERVED

from tests.model.fake_site import FakeSite
from tests.model.lifecycle import Move
from tests.model.machine import Clients, ManagersClients
from tests.model.site import Site
from tools.manager import ManagerProcess

# Short, so that all of it stays well below the limit of one test.
SHORT = settings(derandomize=True, deadline=None, stateful_step_count=100, max_examples=14)
SHORT_PART_A = settings(SHORT, max_examples=7)
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


@pytest.mark.timeout(0)  # each request has its own limit, and what fails takes minutes to be shortened
@pytest.mark.parametrize("part_a_only", [False, True], ids=["parts A and B", "part A"])
def test_the_manager_answers_and_stores_what_the_model_does(
    start_manager: Callable[..., ManagerProcess],
    database_url: str,
    part_a_only: bool,  # noqa: FBT001 - pytest passes it by name
) -> None:
    """After every step of two clients and of the clock, every answer and every row is what the model says."""
    manager = start_manager(*["--part-a-only"] * part_a_only)
    with Site.opened(manager.url, database_url) as site:
        _run(
            lambda: ManagersClients(site, set(), site.falsehoods, part_a_only=part_a_only),
            SHORT if not part_a_only else SHORT_PART_A,
        )


@pytest.mark.timeout(0)  # as above
@pytest.mark.parametrize("part_a_only", [False, True], ids=["parts A and B", "part A"])
def test_the_fake_manager_answers_and_stores_what_the_model_does(part_a_only: bool) -> None:  # noqa: FBT001 - as above
    """The manager in memory is held to the same model by the same requests."""
    with FakeSite.opened(part_a_only=part_a_only) as site:
        _run(lambda: ManagersClients(site, set(), part_a_only=part_a_only), SHORT)


@pytest.mark.timeout(0)  # as above
def test_the_model_moves_along_the_edges() -> None:
    """The requests lead the model along all edges of the state machines, and along no others."""
    moves: set[Move] = set()
    _run(lambda: Clients(moves), SHORT_ALONE)
    assert moves <= EDGES
    assert EDGES - moves <= INSIDE_A_STATEMENT | (set() if _is_long() else SELDOM)
