"""Random requests are sent to managers and to a model of them, which must answer and store the same.

Tested are two reference managers on one database, and the fake manager of `jobnik_sdk.testing`, each with part B of the
protocol and without.

``uv run pytest tests/model`` is short, and sends the same requests each time. ``uv run pytest tests/model
--hypothesis-profile=long`` runs for minutes, sends different requests each time, and starts with those that failed
before. Hypothesis reduces a failure to the few requests that cause it.
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
from tests.support.long_runs import FAST_ENOUGH, is_long
from tools.manager import ManagerProcess

# Few, so that a test takes less than a minute.
SHORT = settings(
    derandomize=True,
    deadline=None,
    stateful_step_count=100,
    max_examples=14,
    suppress_health_check=FAST_ENOUGH,
)
SHORT_PART_A = settings(SHORT, max_examples=7)
SHORT_ALONE = settings(SHORT, max_examples=30)

EDGES = {
    (machine.name, str(edge.source), str(edge.target))
    for machine in MACHINES
    for edge in machine.edges
    if edge.cause != RESERVED
}
INSIDE_A_STATEMENT = {("job", "CREATED", "ABORTED"), ("task", "CREATED", "ABORTED")}
"""Jobs and tasks have the status CREATED only within the statement that creates them."""
SELDOM = {("job", source, target) for source in ("PENDING", "PAUSED") for target in ("COMPLETED", "FAILED")}
"""Ends of a job that was just paused or resumed, which a short run may miss."""


def _run(clients: Callable[[], Clients], short: settings) -> None:
    # Hypothesis accepts any function that creates one, but its annotation requires a class.
    machine = cast("type[Clients]", clients)
    run_state_machine_as_test(machine, settings=settings() if is_long() else short)


@pytest.mark.timeout(0)  # each request has its own limit, and Hypothesis needs minutes to reduce a failure
@pytest.mark.parametrize("part_a_only", [False, True], ids=["parts A and B", "part A"])
def test_the_manager_answers_and_stores_what_the_model_does(
    start_manager: Callable[..., ManagerProcess],
    database_url: str,
    part_a_only: bool,  # noqa: FBT001 - pytest passes it by name
) -> None:
    """After every step of the clients of two managers and of the clock, all answers and rows are those of the model."""
    options = ["--part-a-only"] * part_a_only
    with Site.opened((start_manager(*options).url, start_manager(*options).url), database_url) as site:
        _run(
            lambda: ManagersClients(site, set(), site.contradictions, part_a_only=part_a_only),
            SHORT_PART_A if part_a_only else SHORT,
        )


@pytest.mark.timeout(0)  # as above
@pytest.mark.parametrize("part_a_only", [False, True], ids=["parts A and B", "part A"])
def test_the_fake_manager_answers_and_stores_what_the_model_does(part_a_only: bool) -> None:  # noqa: FBT001 - as above
    """The same requests to the manager in memory. Its state is read in the form that SQL reads from the database."""
    with FakeSite.opened(part_a_only=part_a_only) as site:
        _run(lambda: ManagersClients(site, set(), part_a_only=part_a_only), SHORT)


@pytest.mark.timeout(0)  # as above
def test_the_model_moves_along_the_edges() -> None:
    """The requests take the model along all edges of the state machines, and along no others."""
    moves: set[Move] = set()
    _run(lambda: Clients(moves), SHORT_ALONE)
    assert moves <= EDGES
    assert EDGES - moves <= INSIDE_A_STATEMENT | (set() if is_long() else SELDOM)
