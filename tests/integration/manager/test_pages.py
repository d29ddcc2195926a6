"""Pages of lists: their contents, the links to the next page, and refused parameters."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from tests.support.protocol import Client, refused

UNKNOWN_ID = "00000000-0000-7000-8000-000000000000"


async def pages(http: httpx2.AsyncClient, path: str, limit: int) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield the pages of a list by following their links."""
    link: str | None = f"{path}{'&' if '?' in path else '?'}limit={limit}"
    while link is not None:
        response = await http.get(link)
        assert response.status_code == 200, response.text
        yield response.json()
        link = response.links.get("next", {}).get("url")


async def next_link(http: httpx2.AsyncClient, path: str) -> str:
    """Return the link to the next page."""
    return (await http.get(path)).links["next"]["url"]


async def next_cursor(http: httpx2.AsyncClient, path: str) -> str:
    """Return the cursor of the next page."""
    return parse_qs(urlsplit(await next_link(http, path)).query)["cursor"][0]


@pytest.mark.parametrize("limit", [1, 2, 3, 500])
async def test_the_pages_of_every_list_add_up_to_the_list(client: Client, stage_type: str, limit: int) -> None:
    """With any filter and limit, the pages contain the entries of the list without a limit, in order, each once."""
    jobs = [await client.job(name=stage_type, priority=priority) for priority in ("HIGH", "LOW", "HIGH")]
    stages = [await client.stage(job, stage_type) for job in jobs for _ in range(2)]
    tasks = [task for stage in stages for task in await client.tasks(stage, 3)]
    await client.settle(await client.claimed(stage_type))
    await client.claimed(stage_type)
    job, stage, then = jobs[1], stages[2], jobs[1]["createdAt"]
    by_job = sorted(stages, key=lambda stage: (stage["jobId"], stage["order"]))
    wanted: dict[str, list[dict[str, Any]]] = {
        f"/v1/jobs?job_name={stage_type}": jobs,
        f"/v1/jobs?job_name={stage_type}&should_return_stages=true": jobs,
        f"/v1/jobs?job_name={stage_type}&priority=HIGH": [jobs[0], jobs[2]],
        f"/v1/jobs?job_name={stage_type}&from_date={then}": [job for job in jobs if job["createdAt"] >= then],
        f"/v1/jobs?job_name={stage_type}&end_date={then}": [job for job in jobs if job["createdAt"] <= then],
        f"/v1/jobs/{job['id']}/stages": stages[2:4],
        f"/v1/jobs/{job['id']}/stages?should_return_tasks=true": stages[2:4],
        f"/v1/stages?job_id={job['id']}": stages[2:4],
        f"/v1/stages?job_id={job['id']}&stage_type={stage_type}": stages[2:4],
        f"/v1/stages?stage_type={stage_type}": by_job,
        f"/v1/stages?stage_type={stage_type}&stage_operation_status=CREATED": [s for s in by_job if s["order"] == 2],
        f"/v1/stages/{stage['id']}/tasks": tasks[6:9],
        f"/v1/tasks?stage_id={stage['id']}": tasks[6:9],
        f"/v1/tasks?stage_id={stage['id']}&from_date=2999-01-01": [],
        f"/v1/tasks?stage_id={stages[0]['id']}&status=IN_PROGRESS": tasks[1:2],
        f"/v1/tasks?stage_type={stage_type}": tasks,
        f"/v1/tasks?stage_type={stage_type}&status=PENDING": tasks[2:],
        f"/v1/tasks?stage_type={stage_type}&end_date={then}": [],
        f"/v1/tasks?stage_type={stage_type}&from_date={then}": tasks,
    }
    for path, entities in wanted.items():
        whole = await client.http.get(path)
        assert "Link" not in whole.headers
        assert [entity["id"] for entity in whole.json()] == [entity["id"] for entity in entities], path
        read = [page async for page in pages(client.http, path, limit)]
        assert [entity for page in read for entity in page] == whole.json(), path
        assert all(len(page) == limit for page in read[:-1])
        assert read[-1] or not whole.json(), "a link leads to an empty page"


async def test_a_link_repeats_the_request_with_a_cursor(client: Client, stage_type: str) -> None:
    """The link is a path with every parameter; the limit may change and the stages may be left out along the way."""
    name = f"{stage_type} <ä&>"
    for _ in range(3):
        await client.job(name=name)
    query = {"job_name": name, "should_return_stages": "true", "limit": "1"}
    response = await client.http.get("/v1/jobs", params=query)
    assert response.headers["Link"].startswith("</v1/jobs?job_name=")
    link = urlsplit(response.links["next"]["url"])
    cursor = parse_qs(link.query).pop("cursor")
    assert parse_qs(link.query) == {key: [value] for key, value in query.items()} | {"cursor": cursor}

    rest = await client.http.get("/v1/jobs", params={"job_name": name, "limit": "2", "cursor": cursor[0]})
    assert len(rest.json()) == 2
    assert "Link" not in rest.headers


async def test_a_cursor_without_a_limit_returns_the_rest(client: Client, stage_type: str) -> None:
    """The limit and the cursor are independent of each other."""
    stage = await client.stage(await client.job(), stage_type)
    tasks = await client.tasks(stage, 5)
    path = f"/v1/stages/{stage['id']}/tasks"
    rest = await client.http.get(path, params={"cursor": await next_cursor(client.http, f"{path}?limit=2")})
    assert [task["id"] for task in rest.json()] == [task["id"] for task in tasks[2:]]
    assert "Link" not in rest.headers


async def test_unchanged_entities_are_listed_once_while_others_change(client: Client, stage_type: str) -> None:
    """Tasks added, settled and deleted between two pages, before or after the cursor, do not affect the others."""
    kept = [await client.stage(await client.job(priority="HIGH"), stage_type) for _ in range(2)]
    doomed = [await client.job() for _ in range(6)]
    staying: list[str] = []
    for job in doomed:
        await client.tasks(await client.stage(job, stage_type), 3)
        staying += [task["id"] for stage in kept for task in await client.tasks(stage, 2)]

    seen: list[str] = []
    async for page in pages(client.http, f"/v1/tasks?stage_type={stage_type}", 4):
        seen += [task["id"] for task in page]
        await client.tasks(kept[len(seen) % 2], 1)
        await client.settle(await client.claimed(stage_type))
        if doomed:
            gone = doomed.pop(len(seen) % len(doomed))
            await client.move(gone, "ABORTED")
            assert (await client.http.delete(f"/v1/jobs/{gone['id']}")).status_code == 200
    assert len(seen) == len(set(seen))
    assert [task for task in seen if task in staying] == staying


async def test_large_entities_make_short_pages(client: Client, stage_type: str) -> None:
    """A page ends after 1 MiB with a link to the rest; the list without a limit is complete."""
    stage = await client.stage(await client.job(), stage_type)
    text = "x" * 125_000
    ids = [(await client.tasks(stage, 1, data={"text": text}))[0]["id"] for _ in range(12)]
    path = f"/v1/stages/{stage['id']}/tasks"
    read = [[task["id"] for task in page] async for page in pages(client.http, path, 500)]
    assert [len(page) for page in read] == [9, 3]
    assert [task for page in read for task in page] == ids
    assert [task["id"] for task in (await client.http.get(path)).json()] == ids


LISTS = ["/v1/jobs", f"/v1/jobs/{UNKNOWN_ID}/stages", "/v1/stages", f"/v1/stages/{UNKNOWN_ID}/tasks", "/v1/tasks"]


@pytest.mark.parametrize("limit", ["0", "501", "-1", "ten", "5.0", "1_0", " 5", "", "9" * 30])
async def test_an_invalid_limit_is_refused(client: Client, limit: str) -> None:
    """The limit must be a number from 1 to 500, and the refusal names it."""
    for path in LISTS:
        response = await client.http.get(path, params={"limit": limit})
        refused(response, 400, "VALIDATION_ERROR")
        assert response.json()["message"].startswith("query.limit: ")


async def test_a_cursor_of_another_list_is_refused(client: Client, stage_type: str) -> None:
    """A cursor is valid only for its path and filters; an invented, shortened or changed cursor is refused."""
    for _ in range(2):
        stage = await client.stage(await client.job(name=stage_type), stage_type)
        await client.tasks(stage, 2)
    of_tasks = await next_cursor(client.http, f"/v1/tasks?stage_type={stage_type}&limit=1")
    of_jobs = await next_cursor(client.http, f"/v1/jobs?job_name={stage_type}&limit=1")
    of_stages = await next_cursor(client.http, f"/v1/stages?stage_type={stage_type}&limit=1")
    changed = of_tasks[:-1] + ("A" if of_tasks[-1] != "A" else "B")
    cursors = ["", "x", "\x00", "é", "=" * 32, "A" * 32, "A" * 43, of_tasks[:-1], f"{of_tasks}=", f" {of_tasks}"]

    for cursor in [*cursors, changed, of_jobs, of_stages]:
        response = await client.http.get(f"/v1/tasks?stage_type={stage_type}", params={"cursor": cursor, "limit": 1})
        refused(response, 400, "VALIDATION_ERROR")
        assert response.json()["message"].startswith("query.cursor: ")
    for path in (f"/v1/tasks?stage_type={stage_type}&status=PENDING", "/v1/tasks", "/v1/stages", "/v1/jobs"):
        refused(await client.http.get(path, params={"cursor": of_tasks}), 400, "VALIDATION_ERROR")


async def test_a_list_of_an_unknown_entity_is_refused(client: Client) -> None:
    """The stages of an unknown job and the tasks of an unknown stage are 404, with and without a limit."""
    for query in ("", "?limit=1"):
        refused(await client.http.get(f"/v1/jobs/{UNKNOWN_ID}/stages{query}"), 404, "JOB_NOT_FOUND")
        refused(await client.http.get(f"/v1/stages/{UNKNOWN_ID}/tasks{query}"), 404, "STAGE_NOT_FOUND")
