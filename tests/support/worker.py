"""A worker that holds leases, for tests that drive a manager over HTTP."""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import httpx2


class LeasedWorker:
    """Claims, reports and sends heartbeats under one worker id. Each method checks that its request succeeded."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.http = http
        self.id = f"worker-{uuid4().hex[:8]}"

    async def claim(self, stage_type: str, limit: int = 1, **fields: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - any field
        """Claim tasks."""
        body = {"workerId": self.id, "limit": limit} | fields
        return (await self._request("POST", f"/v1/stages/{stage_type}/tasks/claim", body))["tasks"]

    async def settle(self, *reports: dict[str, Any]) -> list[dict[str, Any]]:
        """Send reports and return the answer to each. Those that are undecided are sent again."""
        answers: list[dict[str, Any]] = [{}] * len(reports)
        left = list(range(len(reports)))
        while left:
            body = {"workerId": self.id, "results": [reports[index] for index in left]}
            results = (await self._request("POST", "/v1/tasks/settle", body))["results"]
            for index, result in zip(left, results, strict=True):
                answers[index] = result
            left = [index for index in left if answers[index].get("code") == "UNDECIDED"]
        return answers

    async def complete(self, *tasks: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - any field
        """Report tasks as COMPLETED."""
        return await self.settle(*(report(task, "COMPLETED", **fields) for task in tasks))

    async def heartbeat(self, *running: dict[str, Any], **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any field
        """Send a heartbeat."""
        entries = [{"taskId": task["id"], "leaseId": task["leaseId"]} | _reported_fields(task) for task in running]
        body = {"stageTypes": ["any"], "running": entries} | fields
        return await self._request("POST", f"/v1/workers/{self.id}/heartbeat", body)

    async def deregister(self) -> None:
        """Deregister the worker."""
        assert (await self._request("DELETE", f"/v1/workers/{self.id}")) == {"code": "WORKER_DELETED_SUCCESSFULLY"}

    async def attempts(self, task: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the attempts of a task."""
        return await self._request("GET", f"/v1/tasks/{task['id']}/attempts")

    async def history(self, kind: str, entity: dict[str, Any]) -> Sequence[tuple[str | None, str, str]]:
        """Return the previous status, the new status and the author of each change of a job, a stage or a task."""
        changes = await self._request("GET", f"/v1/{kind}s/{entity['id']}/history")
        return [(change["from"], change["to"], change["by"]) for change in changes]

    async def _request(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - any JSON
        response = await self.http.request(method, path, json=body) if body else await self.http.request(method, path)
        assert response.is_success, response.text
        return response.json()


def report(task: dict[str, Any], outcome: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any field
    """Return a report of a task under its lease."""
    return {"taskId": task["id"], "leaseId": task["leaseId"], "outcome": outcome} | fields


def _reported_fields(task: dict[str, Any]) -> dict[str, Any]:
    return {name: task[name] for name in ("progress", "checkpoint") if name in task}
