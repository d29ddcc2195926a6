"""The progress of stages and jobs: completed tasks, tasks in progress, and the estimated time left."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from reference_manager.store.pool import Database

from tests.support.protocol import Client, refused
from tests.support.worker import LeasedWorker, report
from tools.manager import ManagerProcess


@pytest.fixture
def worker(http: httpx2.AsyncClient) -> LeasedWorker:
    """A worker of the shared manager."""
    return LeasedWorker(http)


async def progress(client: Client, entity: dict[str, Any]) -> dict[str, Any] | None:
    """Return the progress of a stage or job; None if it has none."""
    kind = "stages" if "jobId" in entity else "jobs"
    answer = await client.http.get(f"/v1/{kind}/{entity['id']}", params={"should_return_progress": True})
    assert answer.is_success, answer.text
    return answer.json().get("progress")


async def fraction(client: Client, entity: dict[str, Any]) -> float:
    """Return the completed fraction of a stage or job."""
    found = await progress(client, entity)
    assert found is not None
    return found["fraction"]


def with_progress(share: float, task: dict[str, Any]) -> dict[str, Any]:
    """Return a task with this progress, as a heartbeat reports it."""
    return task | {"progress": {"fraction": share}}


async def test_the_progress_of_a_stage_includes_tasks_in_progress(
    client: Client, worker: LeasedWorker, stage_type: str
) -> None:
    """Completed tasks count fully, tasks in progress by their last reported fraction, and others not at all."""
    stage = await client.stage(await client.job(), stage_type)
    await client.tasks(stage, 8)
    assert await progress(client, stage) == {"fraction": 0}
    first, second, third, silent = await worker.claim(stage_type, 4)
    await worker.heartbeat(with_progress(0.5, first), with_progress(0.25, second), with_progress(1, third), silent)
    assert await fraction(client, stage) == 1.75 / 8
    await worker.heartbeat(with_progress(0.75, first), second, third, silent)
    assert await fraction(client, stage) == 2 / 8
    await worker.complete(first)
    assert await fraction(client, stage) == 2.25 / 8
    await worker.settle(report(second, "FAILED"), report(third, "RELEASED"))
    assert await fraction(client, stage) == 1 / 8
    again = await worker.claim(stage_type, 2)
    assert {task["id"] for task in again} == {second["id"], third["id"]}
    assert await fraction(client, stage) == 1 / 8


async def test_only_the_holder_of_a_task_can_report_progress(
    client: Client, worker: LeasedWorker, stage_type: str
) -> None:
    """Reports by others do not count, and a fraction too small to be shown counts as 0."""
    stage = await client.stage(await client.job(), stage_type)
    await client.tasks(stage, 1)
    (task,) = await worker.claim(stage_type)
    await LeasedWorker(client.http).heartbeat(with_progress(0.5, task))
    await worker.heartbeat(with_progress(0.5, task | {"leaseId": task["leaseId"] + 1}))
    await worker.heartbeat(with_progress(5e-324, task))
    assert await progress(client, stage) == {"fraction": 0}


async def test_the_progress_of_a_job_is_the_weighted_mean_of_its_stages(
    client: Client, worker: LeasedWorker, stage_type: str
) -> None:
    """Each stage counts by its weight, 1 by default, and a stage without tasks has progress 0."""
    job = await client.job()
    assert await progress(client, job) is None
    first = await client.stage(job, stage_type, weight=2.5)
    second = await client.stage(job, stage_type)
    assert (first["weight"], "weight" in second) == (2.5, False)
    assert await progress(client, first) is None
    assert await progress(client, job) == {"fraction": 0}
    await client.tasks(first, 2)
    await client.stage(job, stage_type, weight=0.5)
    await worker.complete(*await worker.claim(stage_type))
    assert await fraction(client, job) == 2.5 * 0.5 / 4
    await worker.complete(*await worker.claim(stage_type))
    assert await fraction(client, job) == 2.5 / 4
    await client.tasks(second, 2)
    (task,) = await worker.claim(stage_type)
    await worker.heartbeat(with_progress(0.5, task))
    assert await fraction(client, job) == (2.5 + 0.25) / 4


async def test_the_time_left_is_extrapolated_from_the_time_taken(
    database: Database, start_manager: Callable[..., ManagerProcess], stage_type: str
) -> None:
    """The time left is the time since the start, by the database's clock, times the rest over the fraction."""
    async with (
        httpx2.AsyncClient(base_url=start_manager().url, timeout=15) as http,
        database.connection() as connection,
    ):
        client, worker = Client(http), LeasedWorker(http)
        job = await client.job()
        stage = await client.stage(job, stage_type)
        await client.stage(job, stage_type)
        await client.tasks(stage, 4)
        await worker.complete(*await worker.claim(stage_type))
        await connection.execute("UPDATE stages SET start_time = now() - interval '1 hour' WHERE position = 1")
        for entity, done in ((stage, 1 / 4), (job, 1 / 8)):
            found = await progress(client, entity)
            assert found is not None
            taken = await connection.fetchval(
                "SELECT extract(epoch FROM clock_timestamp() - start_time)::float8 FROM stages WHERE position = 1"
            )
            assert found["fraction"] == done
            assert 3600 * (1 - done) / done <= found["etaSeconds"] <= taken * (1 - done) / done


async def test_work_that_does_not_continue_has_no_time_left(
    client: Client, worker: LeasedWorker, stage_type: str
) -> None:
    """There is no estimate before the first progress, during a pause, or after the end."""

    async def progress_of(*entities: dict[str, Any]) -> list[tuple[float, bool]]:
        found = [await progress(client, entity) or {} for entity in entities]
        return [(one["fraction"], "etaSeconds" in one) for one in found]

    job = await client.job()
    stage = await client.stage(job, stage_type)
    await client.tasks(stage, 2)
    first, second = await worker.claim(stage_type, 2)
    assert await progress_of(stage, job) == [(0, False)] * 2
    await worker.heartbeat(with_progress(1, second))
    assert await progress_of(stage, job) == [(0.5, True)] * 2
    await client.move(job, "PAUSED")
    assert await progress_of(stage, job) == [(0.5, False)] * 2
    await client.move(job, "PENDING")
    await worker.complete(first, second)
    assert await progress_of(stage, job) == [(1, False)] * 2

    job = await client.job()
    stage = await client.stage(job, stage_type)
    await client.tasks(stage, 3, maxAttempts=1)
    first, second, third = await worker.claim(stage_type, 3)
    await worker.complete(first)
    await worker.heartbeat(with_progress(0.5, second))
    await worker.settle(report(third, "FAILED"))
    assert await progress_of(stage, job) == [(0.5, False)] * 2

    job = await client.job()
    stage = await client.stage(job, stage_type)
    await client.tasks(stage, 4)
    first, second = await worker.claim(stage_type, 2)
    await worker.complete(first)
    await worker.heartbeat(with_progress(0.5, second))
    await client.move(job, "ABORTED")
    assert await progress_of(stage, job) == [(0.25, False)] * 2


async def test_progress_is_included_on_request(client: Client, worker: LeasedWorker, stage_type: str) -> None:
    """Progress is included only on request, also together with all children; lists do not accept the parameter."""
    job = await client.job()
    stage = await client.stage(job, stage_type)
    await client.tasks(stage, 25)
    await worker.complete(*await worker.claim(stage_type, 5))
    assert "progress" not in await client.read(stage)
    assert "progress" not in await client.read(job)
    both = {"should_return_progress": True, "should_return_tasks": True}
    whole = (await client.http.get(f"/v1/stages/{stage['id']}", params=both)).json()
    assert (whole["progress"]["fraction"], len(whole["tasks"])) == (0.2, 25)
    both = {"should_return_progress": True, "should_return_stages": True}
    whole = (await client.http.get(f"/v1/jobs/{job['id']}", params=both)).json()
    assert (whole["progress"]["fraction"], "progress" in whole["stages"][0]) == (0.2, False)
    for path in ("/v1/jobs", "/v1/stages", f"/v1/jobs/{job['id']}/stages"):
        refused(await client.http.get(path, params={"should_return_progress": True}), 400, "VALIDATION_ERROR")


async def test_progress_never_decreases_while_no_task_fails(
    start_manager: Callable[..., ManagerProcess], stage_type: str
) -> None:
    """While two managers hand out and settle tasks of a stage, progress readings never decrease."""
    managers = [start_manager(), start_manager()]
    async with httpx2.AsyncClient(base_url=managers[0].url) as one, httpx2.AsyncClient(base_url=managers[1].url) as two:
        client = Client(one)
        stage = await client.stage(await client.job(), stage_type)
        await client.tasks(stage, 120)

        async def work(worker: LeasedWorker) -> None:
            while tasks := await worker.claim(stage_type, 7):
                await worker.heartbeat(*(with_progress(0.5, task) for task in tasks))
                await worker.complete(*tasks)

        working = asyncio.gather(*(work(LeasedWorker(http)) for http in (one, two, one, two)))
        readings: list[float] = []
        while not working.done():
            readings.append(await fraction(Client(two), stage))
        await working
        assert len(readings) > 2
        assert readings == sorted(readings)
        assert await progress(client, stage) == {"fraction": 1}
