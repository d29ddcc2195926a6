"""The order and the filters of lists, beyond those of part A."""

import asyncio
from typing import Any
from urllib.parse import quote

import pytest

from tests.integration.manager.test_pages import LISTS, pages
from tests.support.protocol import Client, refused


async def found(client: Client, path: str) -> list[str]:
    """Return the ids of a list, which must be the same in pages of one and without a limit."""
    whole = [entity["id"] for entity in (await client.http.get(path)).json()]
    assert [entity["id"] async for page in pages(client.http, path, 1) for entity in page] == whole, path
    return whole


@pytest.mark.parametrize("limit", [1, 2, 3, 500])
async def test_a_descending_list_is_the_list_in_reverse(client: Client, stage_type: str, limit: int) -> None:
    """With any filter and limit, the newest entity comes first, and nothing is skipped."""
    jobs = [await client.job(name=stage_type, priority=priority) for priority in ("HIGH", "LOW", "HIGH")]
    stages = [await client.stage(job, stage_type) for job in jobs for _ in range(2)]
    for stage in stages:
        await client.tasks(stage, 3)
    first, then = jobs[0]["id"], jobs[1]["createdAt"]
    for path in (
        f"/v1/jobs?job_name={stage_type}",
        f"/v1/jobs?job_name={stage_type}&should_return_stages=true",
        f"/v1/jobs?job_name={stage_type}&priority=HIGH",
        f"/v1/jobs?job_name={stage_type}&from_date={then}",
        f"/v1/jobs?job_name={stage_type}&end_date={then}",
        f"/v1/jobs?job_name={stage_type}&from_date={then}&end_date={then}",
        f"/v1/jobs/{first}/stages?should_return_tasks=true",
        f"/v1/stages?job_id={first}",
        f"/v1/stages?stage_type={stage_type}",
        f"/v1/stages?stage_type={stage_type}&stage_operation_status=CREATED",
        f"/v1/stages/{stages[0]['id']}/tasks?",
        f"/v1/tasks?stage_id={stages[0]['id']}&status=PENDING",
        f"/v1/tasks?stage_type={stage_type}",
        f"/v1/tasks?stage_type={stage_type}&end_date={then}",
    ):
        ascending = (await client.http.get(path)).json()
        assert (await client.http.get(f"{path}&order=asc")).json() == ascending
        assert (await client.http.get(f"{path}&order=desc")).json() == ascending[::-1]
        descending = [entity async for page in pages(client.http, f"{path}&order=desc", limit) for entity in page]
        assert descending == ascending[::-1], path


async def test_a_cursor_belongs_to_its_order(client: Client, stage_type: str) -> None:
    """A cursor of the ascending list is refused by the descending one; the default order may be written out."""
    for _ in range(3):
        await client.job(name=stage_type)
    path = f"/v1/jobs?job_name={stage_type}&limit=1"
    link = (await client.http.get(path)).links["next"]["url"]
    refused(await client.http.get(f"{link}&order=desc"), 400, "VALIDATION_ERROR")
    assert (await client.http.get(f"{link}&order=asc")).json() == (await client.http.get(link)).json()
    descending = (await client.http.get(f"{path}&order=desc")).links["next"]["url"]
    refused(await client.http.get(descending.replace("order=desc", "order=asc")), 400, "VALIDATION_ERROR")


async def test_lists_are_filtered_by_any_of_several_statuses(client: Client, stage_type: str) -> None:
    """Statuses are separated by commas, or the parameter is repeated; an unknown or empty one is refused."""
    waiting, running, aborted = [await client.job(name=stage_type) for _ in range(3)]
    stages = [await client.stage(job, stage_type) for job in (running, running, aborted)]
    tasks = await client.tasks(stages[0], 3)
    await client.settle(await client.claimed(stage_type))
    await client.claimed(stage_type)
    await client.move(aborted, "ABORTED")

    for query, jobs in (
        ("status=IN_PROGRESS", [running]),
        ("status=PENDING,IN_PROGRESS", [waiting, running]),
        ("status=PENDING&status=ABORTED", [waiting, aborted]),
        ("status=PENDING,ABORTED&status=IN_PROGRESS,PENDING", [waiting, running, aborted]),
        ("status=PAUSED,FAILED", []),
    ):
        assert await found(client, f"/v1/jobs?job_name={stage_type}&{query}") == [job["id"] for job in jobs]
    path = f"/v1/stages?job_id={running['id']}&stage_operation_status="
    assert await found(client, f"{path}CREATED,IN_PROGRESS") == [stages[0]["id"], stages[1]["id"]]
    assert await found(client, f"{path}CREATED,ABORTED") == [stages[1]["id"]]
    path = f"/v1/tasks?stage_type={stage_type}&status="
    assert await found(client, f"{path}COMPLETED,PENDING") == [tasks[0]["id"], tasks[2]["id"]]
    assert await found(client, f"{path}IN_PROGRESS&status=COMPLETED") == [tasks[0]["id"], tasks[1]["id"]]
    for path in ("/v1/jobs?status=", "/v1/tasks?status=", "/v1/stages?stage_operation_status="):
        for value in ("", ",", "PENDING,", "pending", "PENDING,NONE", "PENDING COMPLETED"):
            refused(await client.http.get(path + quote(value)), 400, "VALIDATION_ERROR")


METADATA: list[dict[str, Any]] = [
    {"album": "2026", "page": 1, "draft": True},
    {"album": 2026, "page": 1.5, "draft": "true"},
    {"album": "Ü: a,b", "note": 'a "quoted" \\u0000', "page": "1"},
    {"album": "2026", "nul": "\0", "\0": "a", "page": 1e30},
    {"album": None, "": "", "nested": {"album": "2026"}, "list": ["2026"]},
    {},
]
MATCHES = {
    ("album:2026",): [0, 1, 3],
    ("album:2026", "page:1"): [0],
    ("album:2026", "album:2025"): [],
    ("page:1",): [0, 2],
    ("page:1.5",): [1],
    ("page:1.0",): [],
    ("page:1e+30",): [3],
    ("draft:true",): [0, 1],
    ("draft:True",): [],
    ("album:Ü: a,b",): [2],
    ('note:a "quoted" \\u0000',): [2],
    ("nul:",): [],
    ("album:null",): [],
    ("album:",): [],
    (":",): [4],
    ("nested:{}",): [],
    ('list:["2026"]',): [],
    ("missing:2026",): [],
}


async def test_lists_are_filtered_by_metadata(client: Client, stage_type: str) -> None:
    """Strings, numbers and booleans of the top level match by their text; several conditions must all hold."""
    jobs = [await client.job(name=stage_type, userMetadata=metadata) for metadata in METADATA]
    first = jobs[0]
    stages = [await client.stage(first, stage_type, userMetadata=metadata) for metadata in METADATA]
    tasks = [(await client.tasks(stages[0], 1, userMetadata=metadata))[0] for metadata in METADATA]
    lists = (
        (f"/v1/jobs?job_name={stage_type}", jobs),
        (f"/v1/stages?job_id={first['id']}", stages),
        (f"/v1/tasks?stage_type={stage_type}", tasks),
        (f"/v1/tasks?stage_id={stages[0]['id']}", tasks),
    )
    for conditions, places in MATCHES.items():
        query = "".join(f"&metadata={quote(condition)}" for condition in conditions)
        for path, entities in lists:
            assert await found(client, path + query) == [entities[place]["id"] for place in places], conditions
    await client.http.patch(f"/v1/tasks/{tasks[5]['id']}/user-metadata", json={"album": "new"})
    assert await found(client, f"{lists[2][0]}&metadata=album:new") == [tasks[5]["id"]]


@pytest.mark.parametrize("metadata", ["", "album", "%00:a", "a:%00"])
async def test_an_invalid_metadata_filter_is_refused(client: Client, metadata: str) -> None:
    """A condition needs a colon, cannot contain NUL, and there are at most ten."""
    for path in ("/v1/jobs", "/v1/stages", "/v1/tasks"):
        refused(await client.http.get(f"{path}?metadata={metadata}"), 400, "VALIDATION_ERROR")
        refused(await client.http.get(f"{path}?{'metadata=a:b&' * 11}"), 400, "VALIDATION_ERROR")


@pytest.mark.parametrize("order", ["", "DESC", "newest", "asc,desc"])
async def test_an_invalid_order_is_refused(client: Client, order: str) -> None:
    """The order is asc or desc, and is given once."""
    for path in (*LISTS, "/v1/workers"):
        response = await client.http.get(path, params={"order": order})
        refused(response, 400, "VALIDATION_ERROR")
        assert response.json()["message"].startswith("query.order: ")
        refused(await client.http.get(f"{path}?order=asc&order=asc"), 400, "VALIDATION_ERROR")


@pytest.mark.parametrize(
    "path", ["/v1/jobs?stage_operation_status=PENDING", "/v1/stages?status=PENDING", "/v1/workers?page=1"]
)
async def test_a_parameter_of_another_list_is_refused(client: Client, path: str) -> None:
    """Each list has its own parameters."""
    name = path.partition("?")[2].partition("=")[0]
    refused(await client.http.get(path), 400, "VALIDATION_ERROR", f"query.{name}: Unknown parameter")


async def test_workers_are_listed_in_pages(client: Client, stage_type: str) -> None:
    """The pages of workers, in both orders and with any id, add up to the list."""
    names = [f"{stage_type}/{name}" for name in ("a", "é", "%2E", "x" * 150, "\N{PILE OF POO}" * 100)]
    for name in names:
        path = f"/v1/workers/{quote(name, safe='')}/heartbeat"
        assert (await client.http.post(path, json={"stageTypes": []})).status_code == 200
    for order in ("asc", "desc"):
        whole = [worker["id"] for worker in (await client.http.get(f"/v1/workers?order={order}")).json()]
        assert set(names) <= set(whole)
        paged = [one["id"] async for page in pages(client.http, f"/v1/workers?order={order}", 2) for one in page]
        assert paged == whole
    assert whole[::-1] == [worker["id"] for worker in (await client.http.get("/v1/workers")).json()]


async def test_numbered_pages_have_a_total_and_their_items(client: Client, stage_type: str) -> None:
    """With a page number or size, the response has the number of all matching entities and the items of one page."""
    jobs = [await client.job(name=stage_type, priority="LOW" if number % 3 else "HIGH") for number in range(12)]
    stages = [await client.stage(jobs[0], stage_type) for _ in range(12)]
    await client.tasks(stages[0], 25)
    for path in (
        f"/v1/jobs?job_name={stage_type}",
        f"/v1/jobs?job_name={stage_type}&priority=LOW&should_return_stages=true",
        f"/v1/jobs?job_name={stage_type}&from_date={jobs[3]['createdAt']}&end_date={jobs[9]['createdAt']}",
        f"/v1/jobs/{jobs[0]['id']}/stages?should_return_tasks=true",
        f"/v1/stages?stage_type={stage_type}&stage_operation_status=CREATED,PENDING",
        f"/v1/stages?job_id={jobs[0]['id']}&metadata=a:b",
        f"/v1/stages/{stages[0]['id']}/tasks?",
        f"/v1/stages/{stages[1]['id']}/tasks?",
        f"/v1/tasks?stage_type={stage_type}",
        f"/v1/tasks?stage_id={stages[0]['id']}&status=PENDING,FAILED",
    ):
        for order, step in (("asc", 1), ("desc", -1)):
            ordered = f"{path}&order={order}"
            whole = (await client.http.get(ordered)).json()
            assert whole == (await client.http.get(path)).json()[::step]
            for number, size in ((1, 1), (1, 5), (2, 5), (3, 5), (3, 10), (4, 10), (1, 100), (2**31 - 1, 100)):
                response = await client.http.get(f"{ordered}&page={number}&page_size={size}")
                items = whole[(number - 1) * size : number * size]
                assert response.json() == {"total": len(whole), "items": items}, (ordered, number, size)
                assert "Link" not in response.headers
            assert (await client.http.get(f"{ordered}&page=2")).json()["items"] == whole[10:20]
            assert (await client.http.get(f"{ordered}&page_size=7")).json()["items"] == whole[:7]


async def test_large_entities_are_in_numbered_pages(client: Client, stage_type: str) -> None:
    """A page is complete, however large its entities are."""
    stage = await client.stage(await client.job(), stage_type)
    for size in (10, 600_000, 600_000, 10, 1_040_000, 10):
        await client.tasks(stage, 1, data={"text": "x" * size})
    await client.stage(await client.job(name=stage_type, data={"text": "x" * 1_040_000}), stage_type)
    for path in (f"/v1/stages/{stage['id']}/tasks?", f"/v1/jobs?job_name={stage_type}&should_return_stages=true&"):
        whole = (await client.http.get(path)).json()
        for order, step in (("asc", 1), ("desc", -1)):
            page = await client.http.get(f"{path}page_size=100&order={order}")
            assert page.json() == {"total": len(whole), "items": whole[::step]}


@pytest.mark.parametrize("query", ["page=0", "page=-1", "page=a", "page_size=0", "page_size=101", "page=9999999999"])
async def test_an_invalid_page_number_is_refused(client: Client, query: str) -> None:
    """The number is from 1 and the size from 1 to 100."""
    for path in LISTS:
        refused(await client.http.get(f"{path}?{query}"), 400, "VALIDATION_ERROR")


async def test_a_page_number_excludes_limit_and_cursor(client: Client, stage_type: str) -> None:
    """The two ways to read pages are not combined; the cursor is not read."""
    stage = await client.stage(await client.job(), stage_type)
    await client.tasks(stage, 2)
    for path in ("/v1/jobs", f"/v1/stages/{stage['id']}/tasks", "/v1/stages", "/v1/tasks"):
        for other in ("limit=1", "cursor=AAAA", "limit=1&cursor=AAAA"):
            for page in ("page=1", "page_size=5", "page=1&page_size=5"):
                response = await client.http.get(f"{path}?{page}&{other}")
                refused(response, 400, "VALIDATION_ERROR")
                assert response.json()["message"].startswith(f"query.{other.partition('=')[0]}: ")
    for path in (f"/v1/jobs/{stage['id']}/stages", f"/v1/stages/{stage['jobId']}/tasks"):
        assert (await client.http.get(f"{path}?page=1")).status_code == 404


async def test_the_total_and_the_items_are_of_one_moment(client: Client, stage_type: str) -> None:
    """While tasks are added and completed, the total of a page that holds all matching tasks is their number."""
    stage = await client.stage(await client.job(), stage_type)
    await client.tasks(stage, 40)

    async def work() -> None:
        for _ in range(10):
            await client.settle(await client.claimed(stage_type))
            await client.tasks(stage, 2)

    working = [asyncio.create_task(work()) for _ in range(2)]
    totals: list[int] = []
    while not all(task.done() for task in working):
        page = (await client.http.get(f"/v1/tasks?stage_type={stage_type}&status=PENDING&page_size=100")).json()
        assert len(page["items"]) == page["total"]
        assert {task["status"] for task in page["items"]} == {"PENDING"}
        totals.append(page["total"])
    await asyncio.gather(*working)
    assert totals[0] >= 38
    final = (await client.http.get(f"/v1/stages/{stage['id']}/tasks?page=1")).json()
    assert (final["total"], len(final["items"])) == (80, 10)
