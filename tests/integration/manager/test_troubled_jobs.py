"""Jobs in trouble of every kind at once: maintenance and claims pass by them, and finish their work afterwards."""

import asyncio
import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

import pytest
from reference_manager.domain.states import JobStatus
from reference_manager.engine.maintenance import job_maintenance
from reference_manager.engine.maintenance.aborted_tasks import AbortedTasks
from reference_manager.engine.maintenance.counter_folding import CounterFolding
from reference_manager.engine.maintenance.delayed_tasks import DelayedTasks
from reference_manager.engine.maintenance.deleted_jobs import DeletedJobs
from reference_manager.engine.maintenance.job_maintenance import JobMaintenance
from reference_manager.engine.maintenance.lease_sweeper import LeaseSweeper
from reference_manager.engine.records.jobs import Jobs
from reference_manager.store.pool import Connection, Database

from tests.support import invariants
from tests.support.claims import claim_statement, claimed_tasks
from tests.support.sessions import Session, job_of
from tools.backlog import add_backlog, without_claims

TYPE: Final = "work"
LEASE: Final = timedelta(hours=1)
TROUBLES: Final = ("none", "locked job", "locked tasks", "broken", "aborted", "deleted")
PENDING: Final = """
    SELECT stage_id FROM leases WHERE expires_at < now() UNION SELECT stage_id FROM delayed_tasks WHERE due < now()
    UNION SELECT stage_id FROM stage_deltas UNION SELECT stage_id FROM aborted_stages
    UNION SELECT stage_id FROM deleted_stages
"""
"""The stages with work for maintenance."""
DELAY: Final = """
    WITH moved AS (DELETE FROM waiting_tasks WHERE task_id = ANY ($1) RETURNING *)
    INSERT INTO delayed_tasks (task_id, stage_id, seq, due)
    SELECT task_id, stage_id, seq, now() - interval '1 minute' FROM moved
"""


async def _claim(connection: Connection, limit: int) -> set[UUID]:
    """Claim until no more tasks are returned."""
    tasks = set[UUID]()
    while claimed := claimed_tasks(await connection.fetch(*claim_statement(TYPE, limit, "worker", LEASE))):
        tasks |= {one.task for one in claimed}
    return tasks


async def _ids(session: Session, table: str, stages: Sequence[UUID]) -> set[UUID]:
    rows = await session.fetch(f"SELECT task_id FROM {table} WHERE stage_id = ANY ($1)", stages)  # noqa: S608 - our own
    return {row["task_id"] for row in rows}


class Scene:
    """Jobs of one stage each, with work for every kind of maintenance, and each in a trouble of its own or in none."""

    def __init__(self, database: Database, other: Session, seed: int) -> None:
        self._database = database
        self._other = other
        self._seed = seed
        self.chance = random.Random(seed)  # noqa: S311 - repeatable
        self._jobs = Jobs(database, without_claims(database))
        self.troubles: dict[UUID, str] = {}

    def stages(self, *troubles: str) -> list[UUID]:
        """Return the stages whose jobs are in one of these troubles."""
        return [stage for stage, trouble in self.troubles.items() if trouble in troubles]

    async def create(self) -> None:
        """Create the jobs, start some, and let leases expire and delays end."""
        for trouble in self.chance.sample([*TROUBLES, *self.chance.choices(TROUBLES, k=6)], 12):
            self.troubles[await add_backlog(self._database, TYPE, self.chance.randint(1, 40))] = trouble
        async with self._database.connection() as connection:
            for _ in range(self.chance.randint(1, 4)):
                await connection.fetch(*claim_statement(TYPE, self.chance.randint(1, 30), "worker", LEASE))
        await self._other.execute(
            "UPDATE leases SET expires_at = now() - interval '1 minute' WHERE hashtext(task_id::text) % 3 <> $1",
            self._seed,
        )
        waiting = sorted(await _ids(self._other, "waiting_tasks", list(self.troubles)))
        await self._other.execute(DELAY, self.chance.sample(waiting, len(waiting) // 3))
        for stage in self.stages("aborted", "deleted"):
            await self._jobs.set_status(await job_of(self._other, stage), JobStatus.ABORTED)
        for stage in self.stages("deleted"):
            await self._jobs.delete(await job_of(self._other, stage))

    async def break_jobs(self) -> None:
        """Let every transaction that returns a task of a broken job to the queue fail."""
        broken = ", ".join(f"'{stage}'" for stage in self.stages("broken"))
        await self._other.execute(f"""
            CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                RAISE 'broken';
            END
            $$;
            CREATE TRIGGER broken BEFORE INSERT ON waiting_tasks FOR EACH ROW
            WHEN (NEW.stage_id IN ({broken})) EXECUTE FUNCTION fail()
        """)

    async def lock_jobs(self) -> None:
        """Lock jobs and tasks until the end of the transaction."""
        for stage in self.stages("locked job"):
            await self._other.fetch("SELECT pg_advisory_xact_lock(job_key($1))", await job_of(self._other, stage))
        await self._other.fetch("SELECT FROM tasks WHERE stage_id = ANY ($1) FOR UPDATE", self.stages("locked tasks"))


def _maintenance(database: Database, chance: random.Random) -> list[JobMaintenance]:
    """Return all maintenance of jobs in a random order."""
    handover = without_claims(database)
    tasks: list[JobMaintenance] = [LeaseSweeper(handover), DelayedTasks(handover)]
    tasks += [CounterFolding(), AbortedTasks(), DeletedJobs()]
    chance.shuffle(tasks)
    return tasks


@pytest.mark.parametrize("seed", range(3))
async def test_jobs_in_trouble_delay_no_others(
    database: Database, other: Session, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whichever jobs are locked, broken, aborted or deleted, one round does the work of the others; claims get them."""
    monkeypatch.setattr(job_maintenance, "LONGEST_PAUSE", job_maintenance.LOCKED_PAUSE)
    scene = Scene(database, other, seed)
    await scene.create()
    await scene.break_jobs()
    maintenance = _maintenance(database, scene.chance)
    async with database.maintenance_connection() as connection:
        async with other.transaction():
            await scene.lock_jobs()
            for task in maintenance:
                await task.round(connection)
            left = {row["stage_id"] for row in await other.fetch(PENDING)}
            assert left
            assert left.isdisjoint(scene.stages("none", "aborted", "deleted"))
            due = await _ids(other, "waiting_tasks", scene.stages("none", "broken"))
            assert due
            assert due <= await _claim(connection, scene.chance.choice((1, 7, 200)))

        await other.execute("DROP FUNCTION fail CASCADE")
        while await other.fetch(PENDING):
            for task in maintenance:
                await task.round(connection)
            await asyncio.sleep(0.05)
        await _claim(connection, 200)
    assert await _ids(other, "waiting_tasks", list(scene.troubles)) == set()
    assert await invariants.violations(other) == []
