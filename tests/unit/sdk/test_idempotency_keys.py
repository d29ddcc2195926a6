"""Idempotency keys of creations, with which they are repeated like any other request."""

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx2
import pytest
from jobnik_sdk import (
    IdempotencyKeyReusedError,
    JobType,
    LostAnswerError,
    NewStage,
    Producer,
    StageFinishedError,
    StageType,
    StreamError,
)
from jobnik_sdk.testing import FakeManager
from pydantic import BaseModel

if TYPE_CHECKING:
    from tests.unit.sdk.conftest import Wire

Make = Callable[..., dict[str, Any]]
Refuse = Callable[[int, str], httpx2.Response]

PARENT = UUID(int=1)
LOST = httpx2.ReadError("reset")
BAD_GATEWAY = httpx2.Response(502, html="<h1>nginx</h1>")


class Number(BaseModel):
    """The data of a task."""

    value: int


plain = JobType("plain")
numbers = StageType("numbers", task=Number)


def many(count: int) -> list[Number]:
    """Return tasks."""
    return [Number(value=value) for value in range(count)]


def keys(wire: "Wire") -> list[str | None]:
    """Return the keys of all requests, in their order."""
    return [request.headers.get("Idempotency-Key") for request in wire.requests]


def created(entity: Make) -> httpx2.Response:
    """Return the response to a creation."""
    return httpx2.Response(201, json=entity())


async def create_everything(producer: Producer) -> None:
    """Create a job, a job with stages, a stage, tasks, and a stream of tasks in two batches."""
    await producer.create_job(plain)
    await producer.create_job(plain, stages=[NewStage(numbers, many(1))])
    await producer.create_stage(PARENT, numbers)
    await producer.create_tasks(PARENT, numbers, many(0))
    await producer.stream_tasks(PARENT, numbers, many(4), batch=2, in_flight=1)


@pytest.mark.usefixtures("pauses")
@pytest.mark.parametrize("failure", [LOST, httpx2.ReadTimeout(""), BAD_GATEWAY, httpx2.Response(503)])
async def test_every_creation_is_repeated_with_its_own_key(
    wire: "Wire", entity: Make, failure: httpx2.Response | Exception
) -> None:
    """Each creation, and each batch of a stream, has a new key, and repeats it after a failure."""
    wire.features = ["idempotency-keys", "job-tree"]
    answers = [created(entity)] * 3 + [httpx2.Response(201, json=[])] * 3
    wire.will_answer(*(one for answer in answers for one in (failure, answer)))
    await create_everything(Producer(wire.client))
    sent = keys(wire)
    assert sent[0::2] == sent[1::2]
    assert len({key for key in sent if key}) == 6
    assert sorted(sent[0::2], key=str) == sent[0::2]


async def test_a_manager_without_the_feature_gets_no_keys(wire: "Wire", entity: Make) -> None:
    """A creation is then not repeated after a lost response."""
    wire.features = ["job-tree"]
    wire.will_answer(*[created(entity)] * 3, *[httpx2.Response(201, json=[])] * 3, LOST)
    producer = Producer(wire.client)
    await create_everything(producer)
    with pytest.raises(LostAnswerError):
        await producer.create_job(plain)
    assert keys(wire) == [None] * 7


async def test_a_given_key_is_sent(wire: "Wire", entity: Make, refusal: Refuse) -> None:
    """The application's key identifies the job; another job with the same key is an error."""
    wire.features = ["idempotency-keys", "job-tree"]
    wire.will_answer(created(entity), refusal(422, "IDEMPOTENCY_KEY_REUSED"))
    producer = Producer(wire.client)
    await producer.create_job(plain, idempotency_key="order 7")
    with pytest.raises(IdempotencyKeyReusedError):
        await producer.create_job(plain, idempotency_key="order 7")
    assert keys(wire) == ["order 7"] * 2


async def test_a_given_key_of_a_stage_or_of_tasks_is_sent(wire: "Wire", entity: Make) -> None:
    """Otherwise each call has a new one."""
    wire.features = ["idempotency-keys"]
    wire.will_answer(created(entity), httpx2.Response(201, json=[]))
    producer = Producer(wire.client)
    await producer.create_stage(PARENT, numbers, idempotency_key="stage 7")
    await producer.create_tasks(PARENT, numbers, [], idempotency_key="tasks 7")
    assert keys(wire) == ["stage 7", "tasks 7"]


@pytest.mark.usefixtures("pauses")
@pytest.mark.parametrize("first", [LOST, BAD_GATEWAY])
async def test_the_outcome_is_unknown_if_a_repeated_request_is_not_answered(
    wire: "Wire", first: httpx2.Response | Exception
) -> None:
    """A refused connection does not undo what an earlier request may have done."""
    wire.features = ["idempotency-keys"]
    wire.will_answer(first, *[httpx2.ConnectError("refused")] * 3)
    with pytest.raises(LostAnswerError, match="refused"):
        await Producer(wire.client).create_job(plain)
    wire.will_answer(first, *[httpx2.ConnectError("refused")] * 3)
    with pytest.raises(StreamError) as caught:
        await Producer(wire.client).stream_tasks(PARENT, numbers, many(2))
    assert (caught.value.uncertain, caught.value.refused) == ((range(2),), ())


async def test_the_fake_manager_keeps_keys_for_a_day() -> None:
    """A call that is repeated later creates another job."""
    manager = FakeManager()
    async with manager.client() as client:
        producer = Producer(client)
        first = await producer.create_job(plain, idempotency_key="a")
        manager.advance(timedelta(hours=23))
        assert await producer.create_job(plain, idempotency_key="a") == first
        manager.advance(timedelta(hours=1, seconds=1))
        assert (await producer.create_job(plain, idempotency_key="a")).id != first.id


@pytest.mark.usefixtures("pauses")
async def test_a_refusal_after_a_lost_response_is_certain(wire: "Wire", refusal: Refuse) -> None:
    """The manager would have answered with the created tasks if it had created them."""
    wire.features = ["idempotency-keys"]
    wire.will_answer(LOST, refusal(400, "STAGE_IN_FINITE_STATE"))
    with pytest.raises(StreamError) as caught:
        await Producer(wire.client).stream_tasks(PARENT, numbers, many(2))
    assert isinstance(caught.value.__cause__, StageFinishedError)
    assert (caught.value.uncertain, caught.value.refused) == ((), (range(2),))
