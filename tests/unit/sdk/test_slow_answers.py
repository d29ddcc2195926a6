"""A worker gives up each of its requests after a time, even if its answer keeps arriving."""

import asyncio
import re
import threading
import time
from datetime import timedelta
from socket import create_server
from typing import Final

import httpx2
import pytest
from jobnik_sdk import Handler, JobnikClient, JobStatus, JobType, Producer, StageType, TaskContext, Worker
from jobnik_sdk.testing.fake.manager import FakeManager
from pydantic import BaseModel
from typing_extensions import override

TIMEOUT: Final = timedelta(seconds=0.2)
"""The timeout of the worker's client."""


class Nothing(BaseModel):
    """The data of a task."""


things: Final = StageType("things", task=Nothing)


class NeverAnswering(httpx2.AsyncBaseTransport, httpx2.BaseTransport):
    """Lets the first request that matches a pattern wait forever."""

    def __init__(self, manager: FakeManager, pattern: str) -> None:
        self._manager = manager
        self._pattern = re.compile(pattern)
        self.matched = False

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if not self.matched and self._pattern.fullmatch(f"{request.method} {request.url.path}"):
            self.matched = True
            await asyncio.Event().wait()
        return await self._manager.transport.handle_async_request(request)

    @override
    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return self._manager.transport.handle_request(request)


async def do_nothing(_task: Nothing, _context: TaskContext) -> None:
    """Do nothing."""


@pytest.mark.parametrize(
    ("pattern", "part_a_only"),
    [
        ("GET /v1/capabilities", False),
        ("POST .*/claim", False),
        ("POST /v1/tasks/settle", False),
        ("GET /v1/capabilities", True),
        ("PATCH .*/dequeue", True),
        ("PUT /v1/tasks/.*/status", True),
        ("GET /v1/stages/[^/]*", True),
        ("GET /v1/jobs/[^/]*", True),
    ],
)
async def test_no_request_of_a_worker_waits_forever(pattern: str, *, part_a_only: bool) -> None:
    """The worker sends it again, and the job is completed."""
    manager = FakeManager(part_a_only=part_a_only)
    producer = Producer(manager.client())
    stage = await producer.create_stage(job := await producer.create_job(JobType("job")), things)
    await producer.create_tasks(stage, things, [Nothing()])
    transport = NeverAnswering(manager, pattern)
    client = JobnikClient("http://manager", timeout=TIMEOUT, transport=transport)
    lease = timedelta(seconds=1)  # the shortest that the protocol allows
    worker = Worker(client, [Handler(things, do_nothing)], lease=lease, poll_max_delay=timedelta(milliseconds=20))
    async with asyncio.timeout(30), asyncio.TaskGroup() as running:
        running.create_task(worker.run())
        assert (await producer.wait_for_job(job)).status is JobStatus.COMPLETED
        worker.stop()
    assert transport.matched


def test_a_blocking_request_has_a_limit_in_total() -> None:
    """The heartbeat and the progress sender give up an answer that arrives byte by byte."""
    stopped = threading.Event()
    with create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                while not stopped.wait(0.02):
                    connection.send(b" ")

        dripping = threading.Thread(target=drip)
        dripping.start()
        http = JobnikClient(f"http://127.0.0.1:{server.getsockname()[1]}").blocking(timedelta(seconds=0.5))
        started = time.monotonic()
        with pytest.raises(httpx2.ReadTimeout, match=r"the time limit of 0\.5 s has passed"):
            http.post("/v1/anything", content=b"{}")
        assert time.monotonic() - started < 10
        stopped.set()
        dripping.join()
        http.close()
