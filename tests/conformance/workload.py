"""A job of numbers, and workers for it."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

from jobnik_sdk import Handler, JobnikClient, JobType, NewTask, Priority, Producer, StageType, Worker
from pydantic import BaseModel

LEASE = timedelta(seconds=1.5)
"""The shortest lease that leaves time for a heartbeat on a busy machine."""
SHORT = timedelta(milliseconds=20)
"""The delay between two polls of an empty queue, for a manager without long polls."""


class Number(BaseModel):
    """A task's data, a stage's data, and a result."""

    value: int


numbers = JobType("numbers", data=Number)


class Workload:
    """A job with one stage of numbers on a manager."""

    def __init__(self, client: JobnikClient, name: str) -> None:
        self.client = client
        self.producer = Producer(client)
        self.stage_type = StageType(name, task=Number, result=Number, data=Number)
        self.job: Any = None
        self.stage: Any = None

    async def fill(
        self, *values: int, priority: Priority = Priority.HIGH, max_attempts: int = 3, waiting: bool = False
    ) -> None:
        """Create a job with a task for each value."""
        self.job = await self.producer.create_job(numbers, Number(value=7), priority=priority)
        self.stage = await self.producer.create_stage(self.job, self.stage_type, Number(value=8), waiting=waiting)
        tasks = [NewTask(Number(value=value), max_attempts=max_attempts) for value in values]
        await self.producer.create_tasks(self.stage, self.stage_type, tasks)

    async def ask(self, path: str) -> Any:  # noqa: ANN401 any JSON
        """Return the JSON of an answer."""
        return (await self.client.request("GET", path)).json()

    async def tasks(self) -> dict[int, Any]:
        """Return the tasks by their values."""
        return {task["data"]["value"]: task for task in await raw_tasks(self.client, self.stage.id)}

    async def statuses(self) -> dict[int, tuple[str, int]]:
        """Return the status of each task and the number of its failed attempts, by their values."""
        return {value: (task["status"], task["attempts"]) for value, task in (await self.tasks()).items()}

    async def job_status(self) -> str:
        """Return the status of the job."""
        return (await self.ask(f"/v1/jobs/{self.job.id}"))["status"]

    async def attempts(self, value: int) -> Sequence[Any]:
        """Return the attempts at a task. Needs part B of the protocol."""
        return await self.ask(f"/v1/tasks/{(await self.tasks())[value]['id']}/attempts")

    def handler(self, function: Any, concurrency: int = 1, **options: Any) -> Handler[Any, Any, Any, Any, Any]:  # noqa: ANN401 passed on
        """Return a handler for the numbers."""
        return Handler(self.stage_type, function, concurrency=concurrency, **options)

    def worker(self, function: Any, concurrency: int = 1, **options: Any) -> Worker:  # noqa: ANN401 passed on
        """Return a worker with one handler."""
        return new_worker(self.client, self.handler(function, concurrency), **options)


async def raw_tasks(client: JobnikClient, stage_id: UUID) -> Sequence[Any]:
    """Return the JSON of the tasks of a stage, which a manager returns as an array or in pages of 10."""
    path = f"/v1/stages/{stage_id}/tasks"
    tasks: Any = (await client.request("GET", path)).json()
    if isinstance(tasks, list):
        return cast("list[Any]", tasks)
    numbers = range(1, 2 + tasks["total"] // 100)
    pages = [(await client.request("GET", f"{path}?page={number}&page_size=100")).json() for number in numbers]
    return [task for page in pages for task in page["items"]]


def new_worker(client: JobnikClient, *handlers: Handler[Any, Any, Any, Any, Any], **options: Any) -> Worker:  # noqa: ANN401 passed on
    """Return a worker with short delays."""
    settings: dict[str, Any] = {"lease": LEASE, "poll_max_delay": SHORT} | options
    return Worker(client, handlers, **settings)
