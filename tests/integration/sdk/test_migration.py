"""The guide for users of the TypeScript SDK: its handler runs, and old and new workers share a queue."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import httpx2
from jobnik_sdk import Handler, JobnikClient, JobStatus, Producer, StageType, Worker
from jobnik_sdk.testing import work_off

_PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "migrate-from-typescript.md"


class _Printer:
    async def print(self, parcel_id: str) -> int:
        return len(parcel_id)


def _code_of_the_page(stage_type: str) -> Any:  # noqa: ANN401 - names that the page defines
    code = re.findall(r"```python\n(.*?)```", _PAGE.read_text(), re.DOTALL)[0]
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(code.replace('"labels"', f'"{stage_type}"'), str(_PAGE), "exec"), names)  # noqa: S102 - our own page
    return SimpleNamespace(**names)


class _OldClient:
    """Says what the SDK for TypeScript says, request by request."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    async def ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - any JSON
        answer = await self._http.request(method, path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    async def create_job(self, stage_type: str, tasks: list[dict[str, Any]]) -> tuple[UUID, UUID]:
        job = await self.ask("POST", "/v1/jobs", {"name": "Shipment 7", "priority": "HIGH", "data": {"to": "Oslo"}})
        await self.ask("GET", f"/v1/jobs/{job['id']}")
        new = {"type": stage_type, "data": {}, "userMetadata": {"lastPrinted": ""}, "startAsWaiting": False}
        stage = await self.ask("POST", f"/v1/jobs/{job['id']}/stage", new)
        await self.ask("GET", f"/v1/stages/{stage['id']}")
        await self.ask("POST", f"/v1/stages/{stage['id']}/tasks", [{"data": data} for data in tasks])
        return UUID(job["id"]), UUID(stage["id"])

    async def work(self, stage_type: str) -> None:
        task = await self.ask("PATCH", f"/v1/stages/{stage_type}/tasks/dequeue")
        stage = await self.ask("GET", f"/v1/stages/{task['stageId']}")
        await self.ask("GET", f"/v1/jobs/{stage['jobId']}")
        noted = {"userMetadata": {"lastPrinted": task["data"]["parcelId"]}}
        await self.ask("PATCH", f"/v1/stages/{stage['id']}/user-metadata", noted)
        await self.ask("PUT", f"/v1/tasks/{task['id']}/status", {"status": "COMPLETED"})


async def test_old_and_new_workers_share_a_stage(http: httpx2.AsyncClient, client: JobnikClient, own_name: str) -> None:
    """An old producer's job is done by an old worker and the page's handler; the old one's task has no result."""
    page = _code_of_the_page(own_name)
    labels: StageType[Any, Any, Any, Any, Any] = page.labels
    old = _OldClient(http)
    job, stage = await old.create_job(own_name, [{"parcelId": parcel, "weight": 2.5} for parcel in ("a", "bb", "ccc")])
    await old.work(own_name)

    async def print_label(task: Any, context: Any) -> Any:  # noqa: ANN401 - the page's models
        return await page.print_label(task, context, printer=_Printer())

    assert await work_off(Worker(client, [Handler(labels, print_label)]), job) is JobStatus.COMPLETED
    producer = Producer(client)
    assert [task.result and task.result.pages for task in await producer.get_tasks(stage, labels)] == [None, 2, 3]
    assert (await producer.get_stage(stage, labels)).metadata.last_printed == "ccc"
