"""Each trouble once, in the middle of the work: nothing is lost, nothing wrong. ``make chaos`` goes on for longer."""

from collections.abc import Sequence

import pytest

from tests.chaos import troubles
from tests.chaos.checks import Checks
from tests.chaos.rounds import play
from tests.chaos.site import Site
from tests.chaos.troubles import Trouble

ROUNDS = {
    "workers": [troubles.kill_worker, troubles.stop_worker, troubles.drain_worker],
    "managers": [troubles.kill_manager, troubles.stop_manager],
    "PostgreSQL": [troubles.end_backend, troubles.kill_backend, troubles.kill_postgres],
    "the network": [troubles.drop_answers, troubles.abort_job, troubles.pause_job, troubles.cut_network],
    "the pool": [troubles.hold_lock, troubles.fill_pool],
}


@pytest.mark.timeout(90)  # on a busy machine it takes its time until two managers, four workers and a database are up
@pytest.mark.parametrize("struck", ROUNDS.values(), ids=ROUNDS)
async def test_whatever_is_struck_nothing_is_lost(site: Site, checks: Checks, struck: Sequence[Trouble]) -> None:
    """Every task, attempt, figure and history is what the workers' journals say, and what has ended stays so."""
    findings = await play(site, checks, struck)
    assert not any(findings), f"{findings}\n{site.folder}"
    assert not await checks.nothing_has_changed(), site.folder
    if troubles.stop_worker in struck:
        assert site.fenced
        assert site.journal.refused
