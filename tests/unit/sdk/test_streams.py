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
    """A task's data."""

    value: int
    ballast: str = ""


numbers = StageType("numbers", task=Number)
STAGE = UUID(int=1)


def has(*features: str) -> httpx2.Response:
    """What a manager with these features says of itself."""
    return httpx2.Response(200, json={"features": features})


def created() -> httpx2.Response:
    """The answer to a batch; what is in it is of no interest."""
    return httpx2.Response(201, json=[])


def values(request: httpx2.Request) -> list[int]:
    """The tasks in a batch."""
    return [task["data"]["value"] for task in json.loads(request.content)]


def many(count: int) -> Iterator[Number]:
    """Tasks as they are needed."""
    return (Number(value=value) for value in range(count))


async def test_batches_follow_each_other(wire: "Wire") -> None:
    """With one batch in flight, tasks keep their order; their number is returned."""
    wire.will_answer(has(), created(), created(), created())
    seen: list[StreamProgress] = []
    count = await Producer(wire.client).stream_tasks(
        STAGE, numbers, many(7), batch=3, in_flight=1, on_progress=seen.append
    )
    assert count == 7
    assert [values(request) for request in wire.requests[1:]] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [progress.created for progress in seen] == [3, 6, 7]
    assert all(progress.rate > 0 for progress in seen)


async def test_asynchronous_source_is_read(wire: "Wire") -> None:
    """Tasks may come from an asynchronous iterator; each may be a NewTask."""

    async def source() -> AsyncIterator[Number | NewTask[Number]]:
        for task in many(2):
            yield task
        yield NewTask(Number(value=2), max_attempts=1)

    wire.will_answer(has(), created())
    assert await Producer(wire.client).stream_tasks(STAGE, numbers, source()) == 3
    assert values(wire.requests[1]) == [0, 1, 2]


async def test_empty_stream_sends_nothing(wire: "Wire") -> None:
    """No tasks need no request."""
    wire.will_answer(has())
    assert await Producer(wire.client).stream_tasks(STAGE, numbers, []) == 0
    assert wire.sent == ["GET /v1/capabilities"]


async def test_answers_are_small_where_they_can_be(wire: "Wire") -> None:
    """A manager that can answer in one line is asked to."""
    wire.will_answer(has("minimal-answers"), httpx2.Response(201, json={"created": 1}))
    await Producer(wire.client).stream_tasks(STAGE, numbers, many(1))
    assert wire.requests[1].headers["Prefer"] == "return=minimal"


async def test_batches_stay_below_the_body_limit(wire: "Wire") -> None:
    """Large tasks make small batches; one that is too large alone is sent alone, for the manager to judge."""
    wire.will_answer(has(), created(), created(), created())
    tasks = [Number(value=value, ballast="x" * 400_000) for value in range(3)]
    tasks.append(Number(value=3, ballast="x" * 2_000_000))
    await Producer(wire.client).stream_tasks(STAGE, numbers, tasks, in_flight=1)
    assert [values(request) for request in wire.requests[1:]] == [[0, 1], [2], [3]]
    assert len(wire.requests[1].content) < 2**20


class Gate:
    """A manager that answers batches when it is told to."""

    def __init__(self) -> None:
        self.open: dict[int, asyncio.Future[httpx2.Response]] = {}
        self.arrived = asyncio.Event()
        self.client = JobnikClient("http://manager", transport=httpx2.MockTransport(self._answer))

    async def waiting(self, count: int) -> None:
        """Wait until so many batches wait for their answers."""
        while len(self.open) < count:
            self.arrived.clear()
            await self.arrived.wait()

    def answer(self, first_value: int, answer: httpx2.Response) -> None:
        """Answer the batch that begins with this value."""
        self.open.pop(first_value).set_result(answer)

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            return has()
        future: asyncio.Future[httpx2.Response] = asyncio.get_running_loop().create_future()
        self.open[values(request)[0]] = future
        self.arrived.set()
        return await future


async def test_only_so_many_are_in_flight_and_the_source_waits() -> None:
    """Of a source without an end no more is taken than is in flight, and one batch in hand."""
    gate, taken = Gate(), 0

    def source() -> Iterator[Number]:
        nonlocal taken
        while True:
            yield Number(value=taken)
            taken += 1

    async with gate.client as client:
        stream = asyncio.create_task(Producer(client).stream_tasks(STAGE, numbers, source(), batch=2, in_flight=3))
        await gate.waiting(3)
        assert sorted(gate.open) == [0, 2, 4]
        gate.answer(2, created())
        await gate.waiting(3)
        assert sorted(gate.open) == [0, 4, 6]
        assert taken <= 11
        stream.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stream


async def test_failure_says_what_stands() -> None:
    """What is in flight is waited for; the error counts what exists and names the positions that do not, or may not."""
    gate = Gate()
    async with gate.client as client:
        stream = asyncio.create_task(Producer(client).stream_tasks(STAGE, numbers, many(100), batch=2, in_flight=3))
        await gate.waiting(3)
        gate.answer(2, httpx2.Response(413, json={"code": "BODY_TOO_LARGE", "message": "No."}))
        gate.answer(4, httpx2.Response(500, json={"code": "DATABASE_RELATED_ERROR", "message": "No."}))
        gate.answer(0, created())
        with pytest.raises(
            StreamError, match="Tasks: 2 created, 2 refused, of 2 nobody knows; from position 6 on"
        ) as caught:
            await stream
    assert isinstance(caught.value.__cause__, PayloadTooLargeError | ManagerFailureError)
    error = caught.value
    assert (error.created, error.refused, error.uncertain, error.unsent) == (2, (range(2, 4),), (range(4, 6),), 6)


async def test_lost_answer_leaves_a_doubt(wire: "Wire") -> None:
    """A batch whose answer was lost is not sent again, and is named."""
    wire.will_answer(has(), created(), httpx2.ReadTimeout("silence"))
    with pytest.raises(StreamError) as caught:
        await Producer(wire.client).stream_tasks(STAGE, numbers, many(5), batch=2, in_flight=1)
    assert (caught.value.created, caught.value.uncertain, caught.value.unsent) == (2, (range(2, 4),), 4)


async def test_source_that_breaks_ends_the_stream(wire: "Wire") -> None:
    """Full batches before it are created; the rest was not sent."""

    def source() -> Iterator[Number]:
        yield from many(3)
        raise OSError("the file is gone")

    wire.will_answer(has(), created())
    with pytest.raises(StreamError, match="the file is gone") as caught:
        await Producer(wire.client).stream_tasks(STAGE, numbers, source(), batch=2)
    assert isinstance(caught.value.__cause__, OSError)
    assert (caught.value.created, caught.value.unsent) == (2, 2)


async def test_task_that_does_not_fit_ends_the_stream(wire: "Wire") -> None:
    """The task is named by its position in the whole stream."""
    wrong: list[Any] = [*many(3), Number.model_construct(value="three")]
    wire.will_answer(has(), created())
    with pytest.raises(StreamError) as caught:
        await Producer(wire.client).stream_tasks(STAGE, numbers, wrong, batch=2)
    assert isinstance(caught.value.__cause__, InvalidPayloadError)
    assert caught.value.__cause__.field == "tasks[3].data.value"


async def test_option_that_the_manager_lacks_ends_the_stream(wire: "Wire") -> None:
    """What the manager does not understand is not sent."""
    wire.will_answer(has())
    late = NewTask(Number(value=1), delay=timedelta(seconds=1))
    with pytest.raises(StreamError) as caught:
        await Producer(wire.client).stream_tasks(STAGE, numbers, [late])
    assert isinstance(caught.value.__cause__, UnsupportedError)
    assert caught.value.created == 0


async def test_progress_that_breaks_ends_the_stream(wire: "Wire") -> None:
    """What the application does with the progress is no reason to lose count."""

    def fail(_progress: StreamProgress) -> None:
        raise ZeroDivisionError

    wire.will_answer(has(), created())
    with pytest.raises(StreamError) as caught:
        await Producer(wire.client).stream_tasks(STAGE, numbers, many(10), batch=2, in_flight=1, on_progress=fail)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert (caught.value.created, caught.value.unsent) == (2, 2)


@pytest.mark.parametrize("option", ["batch", "in_flight"])
async def test_stream_without_room_is_refused(option: str, wire: "Wire") -> None:
    """A stream needs a task in a batch and a batch in flight."""
    wire.will_answer(has())
    none: dict[str, Any] = {option: 0}
    with pytest.raises(ConfigurationError, match="at least 1"):
        await Producer(wire.client).stream_tasks(STAGE, numbers, many(1), **none)
