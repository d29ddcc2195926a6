"""Short calls of the protocol, for tests that drive a manager over HTTP."""

from typing import Any

import httpx2


class Client:
    """Short calls of the protocol. Each method checks that its request was accepted."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.http = http

    async def job(self, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any field, wrong ones too
        """Create a job."""
        body = dict[str, Any](name="a job", data={}) | fields
        return _accepted(await self.http.post("/v1/jobs", json=body))

    async def stage(self, job: dict[str, Any], stage_type: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
        """Add a stage."""
        body = dict[str, Any](type=stage_type, data={}) | fields
        return _accepted(await self.http.post(f"/v1/jobs/{job['id']}/stage", json=body))

    async def tasks(self, stage: dict[str, Any], count: int = 1, **fields: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - as above
        """Add tasks, numbered in their data."""
        body = [{"data": {"number": number}} | fields for number in range(count)]
        return _accepted(await self.http.post(f"/v1/stages/{stage['id']}/tasks", json=body))

    async def claim(self, stage_type: str) -> dict[str, Any] | None:
        """Claim a task; None if there is none."""
        response = await self.http.patch(f"/v1/stages/{stage_type}/tasks/dequeue")
        if response.status_code == 404:
            assert response.json()["code"] == "TASK_NOT_FOUND"
            return None
        return _accepted(response)

    async def claimed(self, stage_type: str) -> dict[str, Any]:
        """Claim a task that must exist."""
        task = await self.claim(stage_type)
        assert task is not None
        return task

    async def settle(self, task: dict[str, Any], status: str = "COMPLETED") -> dict[str, Any]:
        """Report a task."""
        return _accepted(await self.http.put(f"/v1/tasks/{task['id']}/status", json={"status": status}))

    async def move(self, job: dict[str, Any], status: str) -> None:
        """Pause, resume or abort a job."""
        _accepted(await self.http.put(f"/v1/jobs/{job['id']}/status", json={"status": status}))

    async def read(self, entity: dict[str, Any]) -> dict[str, Any]:
        """Read the current state of a job with its stages, a stage with its tasks, or a task."""
        if "jobId" in entity:
            path = f"/v1/stages/{entity['id']}?should_return_tasks=true"
        elif "stageId" in entity:
            path = f"/v1/tasks/{entity['id']}"
        else:
            path = f"/v1/jobs/{entity['id']}?should_return_stages=true"
        return _accepted(await self.http.get(path))

    async def status(self, entity: dict[str, Any]) -> str:
        """Read the current status of a job, stage or task."""
        return (await self.read(entity))["status"]


def branch(stage_type: str, count: int) -> dict[str, Any]:
    """Return a stage for a job that is created with its stages; its tasks are numbered in their data."""
    return {"type": stage_type, "data": {}, "tasks": [{"data": {"number": number}} for number in range(count)]}


def _accepted(response: httpx2.Response) -> Any:  # noqa: ANN401 - any JSON
    assert response.is_success, response.text
    return response.json()


def refused(response: httpx2.Response, status: int, code: str, message: str | None = None) -> None:
    """Check that a response is a refusal in the protocol's error format."""
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert set(response.json()) == {"message", "code"}
    assert message is None or response.json()["message"] == message
