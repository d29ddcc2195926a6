"""Attempts and status changes of long-lived tasks and jobs come in pages."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from tests.integration.manager.test_pages import UNKNOWN_ID
from tests.support.protocol import Client, refused
from tests.support.worker import LeasedWorker, report

PAGE = 100
"""The size of a page without a limit."""


async def read(http: httpx2.AsyncClient, path: str) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield the pages from a path on."""
    link: str | None = path
    while link is not None:
        response = await http.get(link)
        assert response.status_code == 200, response.text
        yield response.json()
        link = response.links.get("next", {}).get("url")


async def joined(http: httpx2.AsyncClient, path: str) -> list[dict[str, Any]]:
    """Return the entries of all pages from a path on."""
    return [entry async for page in read(http, path) for entry in page]


@pytest.fixture
async def snoozed(client: Client, stage_type: str) -> dict[str, Any]:
    """A task that was snoozed 120 times, failed once, and is in progress again."""
    stage = await client.stage(await client.job(), stage_type)
    (task,) = await client.tasks(stage)
    worker = LeasedWorker(client.http)
    for _ in range(120):
        (claimed,) = await worker.claim(stage_type)
        await worker.settle(report(claimed, "SNOOZED", delaySeconds=0))
    (claimed,) = await worker.claim(stage_type)
    await worker.settle(report(claimed, "FAILED", error={"type": "Unreadable"}))
    await worker.claim(stage_type, leaseSeconds=600)
    return task


@pytest.mark.timeout(180)  # two hundred and fifty requests prepare it
async def test_a_long_history_is_read_in_pages(client: Client, snoozed: dict[str, Any]) -> None:
    """A page without a limit is bounded; links lead through the rest, in both orders and with any limit."""
    path = f"/v1/tasks/{snoozed['id']}"
    attempts = await joined(client.http, f"{path}/attempts")
    assert [attempt["number"] for attempt in attempts] == list(range(1, 123))
    assert [attempt["outcome"] for attempt in attempts] == ["SNOOZED"] * 120 + ["FAILED", None]
    assert [attempt["leaseId"] for attempt in attempts] == sorted({attempt["leaseId"] for attempt in attempts})
    changes = await joined(client.http, f"{path}/history")
    assert [change["to"] for change in changes] == ["PENDING", *["IN_PROGRESS", "PENDING"] * 120, *LAST_CHANGES]
    assert [change["from"] for change in changes[1:]] == [change["to"] for change in changes[:-1]]

    for name, whole in (("attempts", attempts), ("history", changes)):
        assert [len(page) async for page in read(client.http, f"{path}/{name}")] == sizes(len(whole), PAGE)
        for limit in (1, 2, 7, 500):
            pages = [page async for page in read(client.http, f"{path}/{name}?limit={limit}")]
            assert [len(page) for page in pages] == sizes(len(whole), limit), (name, limit)
            assert [entry for page in pages for entry in page] == whole
            assert await joined(client.http, f"{path}/{name}?order=desc&limit={limit}") == whole[::-1], (name, limit)
        assert await joined(client.http, f"{path}/{name}?order=desc") == whole[::-1]
        for limit in ("", "&limit=7"):  # the default order
            assert await joined(client.http, f"{path}/{name}?order=asc{limit}") == whole

    await client.move({"id": (await client.read({"id": snoozed["stageId"], "jobId": ""}))["jobId"]}, "ABORTED")
    whole = await joined(client.http, f"{path}/history?limit=500")
    assert whole[:-1] == changes
    assert (whole[-1]["from"], whole[-1]["to"]) == ("IN_PROGRESS", "ABORTED")
    for limit in (1, 2, 7, 100):
        assert await joined(client.http, f"{path}/history?limit={limit}") == whole
        assert await joined(client.http, f"{path}/history?order=desc&limit={limit}") == whole[::-1]
    last = (await client.http.get(f"{path}/attempts?order=desc&limit=1")).json()
    assert [(attempt["number"], attempt["outcome"]) for attempt in last] == [(122, "ABORTED")]


LAST_CHANGES = ["IN_PROGRESS", "RETRIED", "IN_PROGRESS"]


def sizes(count: int, limit: int) -> list[int]:
    """Return the sizes of the pages of a list."""
    return [min(limit, count - start) for start in range(0, count, limit)]


async def test_the_changes_of_jobs_and_stages_are_read_in_pages(client: Client, stage_type: str) -> None:
    """Each history has its own changes alone, in both orders."""
    job = await client.job()
    stages = [await client.stage(job, stage_type) for _ in range(3)]
    for _ in range(5):
        await client.move(job, "PAUSED")
        await client.move(job, "PENDING")
    await client.move(job, "ABORTED")
    wanted = {
        f"/v1/jobs/{job['id']}/history": ["PENDING", *["PAUSED", "PENDING"] * 5, "ABORTED"],
        f"/v1/stages/{stages[0]['id']}/history": ["PENDING", "ABORTED"],
        f"/v1/stages/{stages[2]['id']}/history": ["CREATED", "ABORTED"],
    }
    for path, statuses in wanted.items():
        whole = (await client.http.get(path)).json()
        assert [change["to"] for change in whole] == statuses
        for limit in (1, 2, 3, 100):
            assert await joined(client.http, f"{path}?limit={limit}") == whole
            assert await joined(client.http, f"{path}?limit={limit}&order=desc") == whole[::-1]


async def test_a_task_without_attempts_has_one_change(client: Client, stage_type: str) -> None:
    """Before the first claim, the history has the creation alone; after an abort, it has the abort, too."""
    job = await client.job()
    (task,) = await client.tasks(await client.stage(job, stage_type))
    path = f"/v1/tasks/{task['id']}"
    assert (await client.http.get(f"{path}/attempts")).json() == []
    assert [change["to"] for change in await joined(client.http, f"{path}/history?limit=1")] == ["PENDING"]
    await client.move(job, "ABORTED")
    for order, statuses in (("asc", ["PENDING", "ABORTED"]), ("desc", ["ABORTED", "PENDING"])):
        pages = [page async for page in read(client.http, f"{path}/history?limit=1&order={order}")]
        assert [[change["to"] for change in page] for page in pages] == [[status] for status in statuses]


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "cursor=x", "page=1", "status=PENDING", "metadata=a:b"])
async def test_other_parameters_are_refused(client: Client, stage_type: str, query: str) -> None:
    """A history has a limit, a cursor and an order, and no filters."""
    job = await client.job()
    stage = await client.stage(job, stage_type)
    (task,) = await client.tasks(stage)
    histories = (f"/v1/jobs/{job['id']}/history", f"/v1/stages/{stage['id']}/history")
    for path in (*histories, f"/v1/tasks/{task['id']}/history", f"/v1/tasks/{task['id']}/attempts"):
        refused(await client.http.get(f"{path}?{query}"), 400, "VALIDATION_ERROR")


async def test_the_history_of_an_unknown_entity_is_refused(client: Client) -> None:
    """The history of something that does not exist is 404."""
    for kind in ("jobs", "stages", "tasks"):
        code = f"{kind[:-1].upper()}_NOT_FOUND"
        refused(await client.http.get(f"/v1/{kind}/{UNKNOWN_ID}/history?limit=1"), 404, code)
    refused(await client.http.get(f"/v1/tasks/{UNKNOWN_ID}/attempts"), 404, "TASK_NOT_FOUND")
