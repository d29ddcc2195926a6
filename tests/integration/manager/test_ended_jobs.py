"""When jobs ended: recorded by the database, whichever release of the manager changes their status."""

from uuid import UUID

from tests.integration.manager.test_flow import TIMESTAMP_PATTERN
from tests.support.protocol import Client
from tests.support.sessions import Session, session

UPDATE_OF_THE_PREVIOUS_VERSION = "UPDATE jobs SET status = 'ABORTED', updated_at = now() WHERE id = $1"


async def test_a_job_has_the_time_of_its_end(client: Client, stage_type: str) -> None:
    """`endedAt` is null until a job is COMPLETED, FAILED or ABORTED, and never changes after that."""
    completed, failed, aborted = [await client.job() for _ in range(3)]
    for job in (completed, failed):
        assert job["endedAt"] is None
        await client.tasks(await client.stage(job, f"{stage_type}-{job['id'][-4:]}"), 1, maxAttempts=1)
    done = await client.claimed(f"{stage_type}-{completed['id'][-4:]}")
    assert (await client.read(completed))["endedAt"] is None
    await client.settle(done)
    await client.settle(await client.claimed(f"{stage_type}-{failed['id'][-4:]}"), "FAILED")
    await client.move(aborted, "PAUSED")
    assert (await client.read(aborted))["endedAt"] is None
    await client.move(aborted, "ABORTED")
    for job, status in ((completed, "COMPLETED"), (failed, "FAILED"), (aborted, "ABORTED")):
        ended = await client.read(job)
        assert (ended["status"], ended["endedAt"]) == (status, ended["updatedAt"])
        assert TIMESTAMP_PATTERN.fullmatch(ended["endedAt"])
        response = await client.http.patch(f"/v1/jobs/{job['id']}/user-metadata", json={"changed": True})
        assert response.status_code == 200
        assert (await client.read(job))["endedAt"] == ended["endedAt"]


async def test_a_job_that_ended_before_this_was_recorded(client: Client, shared_database_url: str) -> None:
    """Its end is the time of its last change."""
    job = await client.job()
    async with session(shared_database_url) as connection, connection.transaction():
        await connection.execute("ALTER TABLE jobs DISABLE TRIGGER ended")
        await connection.execute(UPDATE_OF_THE_PREVIOUS_VERSION, UUID(job["id"]))
        await connection.execute("ALTER TABLE jobs ENABLE TRIGGER ended")
    ended = await client.read(job)
    assert ended["endedAt"] == ended["updatedAt"] != job["updatedAt"]
    assert (await client.http.delete(f"/v1/jobs/{job['id']}")).status_code == 200


async def test_ended_jobs_are_listed_until_they_are_deleted(client: Client, shared_database_url: str) -> None:
    """The list has the jobs that a manager of the previous release ends, and loses those that it deletes."""
    jobs = [UUID((await client.job())["id"]) for _ in range(2)]
    async with session(shared_database_url) as connection:
        await connection.execute("UPDATE jobs SET priority = 'LOW' WHERE id = ANY ($1)", jobs)
        assert await listed(connection, jobs) == []
        for job in jobs:
            await connection.execute(UPDATE_OF_THE_PREVIOUS_VERSION, job)
        assert await listed(connection, jobs) == sorted(jobs)
        assert await connection.fetchval("SELECT count(*) FROM ended_jobs JOIN jobs USING (name, status, ended_at)") > 1
        await connection.execute("DELETE FROM jobs WHERE id = $1", jobs[0])
        assert await listed(connection, jobs) == jobs[1:]


async def listed(connection: Session, jobs: list[UUID]) -> list[UUID]:
    """Return those of these jobs that are in the list of ended jobs."""
    rows = await connection.fetch("SELECT job_id FROM ended_jobs WHERE job_id = ANY ($1) ORDER BY job_id", jobs)
    return [row["job_id"] for row in rows]
