"""All faults that chaos injects."""

from tests.chaos.faults.database import end_backend, kill_backend, kill_postgres, promote_standby
from tests.chaos.faults.jobs import abort_job, pause_job
from tests.chaos.faults.locks import LOCKS, fill_pool
from tests.chaos.faults.machines import block_log, close_log, fill_disk, hold_gil, jump_clocks
from tests.chaos.faults.network import (
    cut_network,
    cut_network_for_long,
    drop_answers,
    silence_connection,
    silence_database,
    slow_database,
)
from tests.chaos.faults.processes import (
    drain_worker,
    kill_manager,
    kill_worker,
    roll_back,
    stop_manager,
    stop_worker,
)
from tests.chaos.faults.repairs import Fault

FAULTS: tuple[Fault, ...] = (
    kill_postgres,
    kill_backend,
    end_backend,
    promote_standby,
    silence_connection,
    silence_database,
    slow_database,
    *LOCKS,
    fill_pool,
    stop_manager,
    roll_back,
    kill_manager,
    pause_job,
    abort_job,
    cut_network,
    cut_network_for_long,
    drop_answers,
    stop_worker,
    kill_worker,
    drain_worker,
    jump_clocks,
    hold_gil,
    fill_disk,
    close_log,
    block_log,
)
"""All faults in the order of their repair: a repair comes before the repairs that depend on it."""
HARMLESS: tuple[Fault, ...] = (*LOCKS, pause_job)
"""Faults that delay only one job until they are repaired."""
KILLS: tuple[Fault, ...] = (kill_postgres, kill_backend, end_backend, kill_manager, kill_worker)


def describe(fault: Fault) -> str:
    """Return the description of a fault, from its docstring."""
    return (fault.__doc__ or "").rstrip(".")
