"""Streams of tasks."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx2
import pytest
from jobnik_sdk import (
    ConfigurationError,
    InvalidPayloadError,
    JobnikClient,
    ManagerFailureError,
    NewTask,
    PayloadTooLargeError,
    Producer,
    StageType,
    StreamError,
    StreamProgress,
    UnsupportedError,
)
from pydantic import BaseModel

if TYPE_CHECKING:
    from tests.unit.sdk.conftest import Wire


class Number(BaseModel):
    """The data of a task."""

    value: int
    padding: str = ""


numbers = StageType("numbers", task=Number)
STAGE = UUID(int=1)


def has(*features: str) -> httpx2.Response:
    """Return the response of a manager with these features."""
    return httpx2.Response(200, json={"features": features})


def created() -> httpx2.Response:
    """Return the response to a batch; its content is ignored."""
    return httpx2.Response(201, json=[])


def values(request: httpx2.Request) -> list[int]:
    """Return the values of the tasks in a batch."""
    return [task["data"]["value"] for task in json.loads(request.content)]


def many(count: int) -> Iterator[Number]:
    """Return a generator of tasks."""
    return (Number(value=value) for value in range(count))


async def test_batches_are_sent_in_order(wire: "Wire") -> None:
    """With one batch in flight, tasks are created in order, and their number is returned."""
    wire.will_answer(has(), created(), created(), created())
    reported: list[StreamProgress] = []
    count = await Producer(wire.client).stream_tasks(
        STAGE, numbers, many(7), batch=3, in_flight=1, on_progress=reported.append
    )
    assert count == 7
    assert [values(request) for request in wire.requests[1:]] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [progress.created for progress in reported] == [3, 6, 7]
    assert all(progress.rate > 0 for progress in reported)


async def test_tasks_from_an_async_iterator(wire: "Wire") -> None:
    """Tasks may come from an asynchronous iterator, as data or as `NewTask`."""

    async def source() -> AsyncIterator[Number | NewTask[Number]]:
        for task in many(2):
            yield task
        yield NewTask(Number(value=2), max_attempts=1)

    wire.will_answer(has(), created())
    assert await Producer(wire.client).stream_tasks(STAGE, numbers, source()) == 3
    assert values(wire.requests[1]) == [0, 1, 2]


async def test_empty_stream_sends_nothing(wire: "Wire") -> None:
    """No request is sent for an empty stream."""
    wire.will_answer(has())
    assert await Producer(wire.client).stream_tasks(STAGE, numbers, []) == 0
    assert wire.sent == ["GET /v1/capabilities"]


async def test_minimal_responses_are_preferred(wire: "Wire") -> None:
    """A manager with the feature `minimal-answers` is asked not to return the tasks."""
    wire.will_answer(has("minimal-answers"), httpx2.Response(201, json={"created": 1}))
    await Producer(wire.client).stream_tasks(STAGE, numbers, many(1))
    assert wire.requests[1].headers["Prefer"] == "return=minimal"


async def test_batches_stay_below_the_size_limit(wire: "Wire") -> None:
    """Large tasks are sent in smaller batches. A task above the limit is sent alone, and the manager decides."""
    wire.will_answer(has(), created(), created(), created())
    tasks = [Number(value=value, padding="x" * 400_000) for value in range(3)]
    tasks.append(Number(value=3, padding="x" * 2_000_000))
    await Producer(wire.client).stream_tasks(STAGE, numbers, tasks, in_flight=1)
    assert [values(request) for request in wire.requests[1:]] == [[0, 1], [2], [3]]
    assert len(wire.requests[1].content) < 2**20


class ManualManager:
    """A manager that responds to a batch when the test says so."""

    def __init__(self) -> None:
        self.pending: dict[int, asyncio.Future[httpx2.Response]] = {}
        self.arrived = asyncio.Event()
        self.client = JobnikClient("http://manager", transport=httpx2.MockTransport(self._answer))

    async def wait_for(self, count: int) -> None:
        """Wait until this many batches are pending."""
        while len(self.pending) < count:
            self.arrived.clear()
            await self.arrived.wait()

    def respond(self, first_value: int, response: httpx2.Response) -> None:
        """Respond to the batch that starts with this value."""
        self.pending.pop(first_value).set_result(response)

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            return has()
        future: asyncio.Future[httpx2.Response] = asyncio.get_running_loop().create_future()
        self.pending[values(request)[0]] = future
        self.arrived.set()
        return await future


async def test_source_is_consumed_as_fast_as_batches_are_sent() -> None:
    """At most the tasks in flight and one more batch are taken from an endless source."""
    manager, taken = ManualManager(), 0

    def source() -> Iterator[Number]:
        nonlocal taken
        while True:
            yield Number(value=taken)
            taken += 1

    async with manager.client as client:
        stream = asyncio.create_task(Producer(client).stream_tasks(STAGE, numbers, source(), batch=2, in_flight=3))
        await manager.wait_for(3)
        assert sorted(manager.pending) == [0, 2, 4]
        manager.respond(2, created())
        await manager.wait_for(3)
        assert sorted(manager.pending) == [0, 4, 6]
        assert taken <= 11
        stream.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stream


async def test_failure_counts_created_refused_and_unknown_tasks() -> None:
    """Batches in flight are awaited. The error has the number of created tasks, and the positions of all others."""
    manager = ManualManager()
    async with manager.client as client:
        stream = asyncio.create_task(Producer(client).stream_tasks(STAGE, numbers, many(100), batch=2, in_flight=3))
        await manager.wait_for(3)
        manager.respond(2, httpx2.Response(413, json={"code": "BODY_TOO_LARGE", "message": "No."}))
        manager.respond(4, httpx2.Response(500, json={"code": "DATABASE_RELATED_ERROR", "message": "No."}))
        manager.respond(0, created())
        with pytest.raises(
            StreamError, match="2 tasks created, 2 refused, 2 unknown; nothing was sent from position 6"
        ) as caught:
            await stream
    assert isinstance(caught.value.__cause__, PayloadTooLargeError | ManagerFailureError)
    error = caught.value
    assert (error.created, error.refused, error.uncertain, error.unsent) == (2, (range(2, 4),), (range(4, 6),), 6)


async def test_batch_with_a_lost_response_is_uncertain(wire: "Wire") -> None:
    """A batch whose response was lost is not sent again, and is reported as uncertain."""
    wire.will_answer(has(), created(), httpx2.ReadTimeout("silence"))
    with pytest.raises(StreamError) as caught:
        await Producer(wire.client).stream_tasks(STAGE, numbers, many(5), batch=2, in_flight=1)
    assert (caught.value.created, caught.value.uncertain, caught.value.unsent) == (2, (range(2, 4),), 4)


async def test_failing_source_stops_the_stream(wire: "Wire") -> None:
    """Complete batches before the failure are created; the rest is not sent."""

    def source() -> Iterator[Number]:
        yield from many(3)
        raise OSError("the file is gone")

    wire.will_answer(has(), created())
    with pytest.raises(StreamError, match="the file is gone") as caught:
        await Producer(wire.client).stream_tasks(STAGE, numbers, source(), batch=2)
    assert isinstance(caught.value.__cause__, OSError)
    assert (caught.value.created, caught.value.unsent) == (2, 2)


async def test_invalid_task_stops_the_stream(wire: "Wire") -> None:
    """The error has the position of the task in the whole stream."""
    tasks: list[Any] = [*many(3), Number.model_construct(value="three")]
    wire.will_answer(has(), created())
    with pytest.raises(StreamError) as caught:
        await Producer(wire.client).stream_tasks(STAGE, numbers, tasks, batch=2)
    assert isinstance(caught.value.__cause__, InvalidPayloadError)
    assert caught.value.__cause__.field == "tasks[3].data.value"


async def test_missing_feature_stops_the_stream(wire: "Wire") -> None:
    """A task with an option that the manager does not support is not sent."""
    wire.will_answer(has())
    delayed = NewTask(Number(value=1), delay=timedelta(seconds=1))
    with pytest.raises(StreamError) as caught:
        await Producer(wire.client).stream_tasks(STAGE, numbers, [delayed])
    assert isinstance(caught.value.__cause__, UnsupportedError)
    assert caught.value.created == 0


async def test_failing_progress_callback_stops_the_stream(wire: "Wire") -> None:
    """The error still has the correct number of created tasks."""

    def fail(_progress: StreamProgress) -> None:
        raise ZeroDivisionError

    wire.will_answer(has(), created())
    with pytest.raises(StreamError) as caught:
        await Producer(wire.client).stream_tasks(STAGE, numbers, many(10), batch=2, in_flight=1, on_progress=fail)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert (caught.value.created, caught.value.unsent) == (2, 2)


@pytest.mark.parametrize("option", ["batch", "in_flight"])
async def test_batch_and_in_flight_must_be_positive(option: str, wire: "Wire") -> None:
    """Neither a batch without tasks nor a stream without requests is accepted."""
    wire.will_answer(has())
    options: dict[str, Any] = {option: 0}
    with pytest.raises(ConfigurationError, match="must be 1 or more"):
        await Producer(wire.client).stream_tasks(STAGE, numbers, many(1), **options)
