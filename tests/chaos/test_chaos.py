"""Inject each fault once while work is in progress. ``make chaos`` runs longer."""

from collections.abc import Sequence

import pytest

from tests.chaos import faults
from tests.chaos.checks import Checks
from tests.chaos.cluster import Cluster
from tests.chaos.faults import Fault
from tests.chaos.rounds import play_round

ROUNDS = {
    "workers": [faults.kill_worker, faults.stop_worker, faults.drain_worker],
    "managers": [faults.kill_manager, faults.stop_manager],
    "releases": [faults.roll_back],
    "PostgreSQL": [faults.end_backend, faults.kill_backend, faults.kill_postgres],
    "the standby": [faults.promote_standby],
    "the network": [faults.drop_answers, faults.abort_job, faults.pause_job, faults.cut_network],
    "the database's network": [faults.slow_database, faults.silence_connection, faults.silence_database],
    "the pool": [faults.hold_lock, faults.fill_pool],
    "locks": [faults.hold_stage_row, faults.hold_job_row, faults.hold_task_rows, faults.hold_snapshot],
}


@pytest.mark.timeout(90)  # a busy machine starts two managers, four workers and a database slowly
@pytest.mark.parametrize("faults_to_inject", ROUNDS.values(), ids=ROUNDS)
async def test_no_task_is_lost_under_faults(
    cluster: Cluster, checks: Checks, faults_to_inject: Sequence[Fault]
) -> None:
    """All tasks, attempts, summaries and histories match the workers' journals, and finished jobs stay unchanged."""
    times = 2 if faults.hold_snapshot in faults_to_inject else 1  # each lock needs jobs that are not yet started
    findings = await play_round(cluster, checks, faults_to_inject, times)
    assert not any(findings), f"{findings}\n{cluster.folder}"
    assert not await checks.nothing_has_changed(), cluster.folder
    if faults.stop_worker in faults_to_inject:
        assert cluster.fenced
        assert cluster.journal.refused
