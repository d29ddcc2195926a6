"""The lists and their filters."""

from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from tests.support.protocol import Client, refused


async def test_jobs_are_filtered_by_name_priority_and_date(client: Client, stage_type: str) -> None:
    """Every filter narrows the list, an impossible name is refused, and the stages are included on request."""
    job = await client.job(name=stage_type, priority="VERY_LOW")
    await client.job(name=stage_type, priority="LOW")
    stage = await client.stage(job, stage_type)

    async def found(query: str) -> int:
        return len((await client.http.get(f"/v1/jobs?job_name={stage_type}{query}")).json())

    now = datetime.now(UTC)
    earlier, later = ((now + shift).isoformat() for shift in (timedelta(hours=-1), timedelta(hours=1)))
    assert await found("") == 2
    assert await found("&priority=VERY_LOW") == 1
    assert await found(f"&from_date={quote(earlier)}&end_date={quote(later)}") == 2
    assert await found(f"&from_date={quote(later)}") == 0
    assert await found(f"&end_date={quote(earlier)}") == 0
    assert await found(f"&from_date={job['createdAt']}&end_date={job['createdAt']}&priority=VERY_LOW") == 1

    refused(await client.http.get("/v1/jobs?job_name=%00"), 400, "VALIDATION_ERROR")

    listed = (await client.http.get(f"/v1/jobs?job_name={stage_type}&should_return_stages=true")).json()
    assert [[part["id"] for part in entry["stages"]] for entry in listed] == [[stage["id"]], []]


async def test_stages_are_filtered_by_job_type_and_status(client: Client, stage_type: str) -> None:
    """Every filter narrows the list, and the tasks are included on request."""
    job = await client.job()
    first, second = await client.stage(job, stage_type), await client.stage(job, stage_type)
    (task,) = await client.tasks(first, 1)

    async def found(query: str) -> list[str]:
        return [entry["id"] for entry in (await client.http.get(f"/v1/stages?{query}")).json()]

    assert await found(f"job_id={job['id']}") == [first["id"], second["id"]]
    assert await found(f"stage_type={stage_type}&stage_operation_status=CREATED") == [second["id"]]
    assert await found(f"stage_type={stage_type}-other") == []
    listed = (await client.http.get(f"/v1/jobs/{job['id']}/stages?should_return_tasks=true")).json()
    assert [[part["id"] for part in entry["tasks"]] for entry in listed] == [[task["id"]], []]
    assert "tasks" not in (await client.http.get(f"/v1/jobs/{job['id']}/stages")).json()[0]


async def test_tasks_are_filtered_by_stage_type_and_status(client: Client, stage_type: str) -> None:
    """Every filter narrows the list, which starts with the oldest task."""
    stage = await client.stage(await client.job(), stage_type)
    tasks = await client.tasks(stage, 3)
    await client.claimed(stage_type)

    async def found(path: str) -> list[str]:
        return [entry["id"] for entry in (await client.http.get(path)).json()]

    ids = [task["id"] for task in tasks]
    assert await found(f"/v1/stages/{stage['id']}/tasks") == ids
    assert await found(f"/v1/tasks?stage_id={stage['id']}") == ids
    assert await found(f"/v1/tasks?stage_type={stage_type}&status=IN_PROGRESS") == ids[:1]
    assert await found(f"/v1/tasks?stage_type={stage_type}&status=PENDING") == ids[1:]
    assert await found(f"/v1/tasks?stage_id={stage['id']}&from_date=2999-01-01T00:00:00Z") == []
    summary = (await client.http.get(f"/v1/stages/{stage['id']}/summary")).json()
    assert summary == (await client.read(stage))["summary"]
    assert (summary["pending"], summary["inProgress"], summary["total"]) == (2, 1, 3)


async def test_tasks_of_an_aborted_job_are_listed_as_aborted(client: Client, stage_type: str) -> None:
    """From the moment of the abort, the status filter matches the status that the tasks are shown with."""
    job = await client.job()
    tasks = await client.tasks(await client.stage(job, stage_type), 3)
    await client.claimed(stage_type)
    await client.move(job, "ABORTED")
    for status, count in (("ABORTED", 3), ("PENDING", 0), ("IN_PROGRESS", 0)):
        path = f"/v1/tasks?stage_type={stage_type}&status={status}&limit=500"
        listed = (await client.http.get(path)).json()
        assert [task["id"] for task in listed] == [task["id"] for task in tasks[:count]]
        assert {task["status"] for task in listed} <= {status}
