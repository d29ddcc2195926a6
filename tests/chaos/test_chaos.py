"""Inject each fault once while work is in progress. ``make chaos`` runs longer."""

from collections.abc import Sequence

import pytest

from tests.chaos.checks import Checks
from tests.chaos.cluster import Cluster
from tests.chaos.faults import database, jobs, locks, machines, network, processes
from tests.chaos.faults.repairs import Fault
from tests.chaos.rounds import play_round

ROUNDS = {
    "workers": [machines.hold_gil, processes.kill_worker, processes.stop_worker, processes.drain_worker],
    "workers' machines": [machines.block_log, machines.jump_clocks, machines.fill_disk],
    "managers": [processes.roll_back, processes.kill_manager, processes.stop_manager],
    "PostgreSQL": [database.end_backend, database.kill_backend, database.kill_postgres, database.promote_standby],
    "the network": [
        network.drop_answers,
        jobs.abort_job,
        jobs.pause_job,
        network.cut_network,
        network.slow_database,
        network.silence_connection,
        network.silence_database,
    ],
    "locks": [
        locks.hold_stage_row,
        locks.hold_job_row,
        locks.hold_task_rows,
        locks.hold_snapshot,
        locks.hold_lock,
        locks.fill_pool,
    ],
}


@pytest.mark.timeout(90)  # a busy machine starts two managers, four workers and a database slowly
@pytest.mark.parametrize("faults_to_inject", ROUNDS.values(), ids=ROUNDS)
async def test_no_task_is_lost_under_faults(
    cluster: Cluster, checks: Checks, faults_to_inject: Sequence[Fault]
) -> None:
    """All tasks, attempts, summaries and histories match the workers' journals, and finished jobs stay unchanged."""
    times = 2 if locks.hold_snapshot in faults_to_inject else 1  # each lock needs jobs that are not yet started
    findings = await play_round(cluster, checks, faults_to_inject, times)
    assert not any(findings), f"{findings}\n{cluster.folder}"
    assert not await checks.nothing_has_changed(), cluster.folder
    if processes.stop_worker in faults_to_inject:
        assert cluster.fenced
        assert cluster.journal.refused
