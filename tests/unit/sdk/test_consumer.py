"""Claims and reports on the wire."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from jobnik_sdk import (
    ClaimedTask,
    Consumer,
    Empty,
    IllegalTransitionError,
    JobNotFoundError,
    ManagerFailureError,
    StageType,
    UnexpectedAnswerError,
    UnreachableError,
    UnreadableTaskError,
)
from jobnik_sdk.observability import trace_context
from pydantic import BaseModel

if TYPE_CHECKING:
    from tests.unit.sdk.conftest import Wire

Make = Callable[..., dict[str, Any]]
Refuse = Callable[[int, str], httpx2.Response]


class Picture(BaseModel):
    """A task's data."""

    source: str


pictures = StageType("pictures/large", task=Picture)


@pytest.fixture
def task(task_json: Make) -> ClaimedTask[Empty, Empty]:
    """A task in its second attempt."""
    return ClaimedTask[Empty, Empty].model_validate(task_json(attempts=1, stageType="pictures"))


def _now(task: ClaimedTask[Any, Any], status: str, attempts: int) -> httpx2.Response:
    answer = task.model_dump(mode="json", by_alias=True) | {"status": status, "attempts": attempts}
    return httpx2.Response(200, json=answer)


async def test_claim_is_typed(wire: "Wire", task_json: Make) -> None:
    """A claimed task knows its attempt, from 1, and its stage type, whose name is quoted in the path."""
    wire.will_answer(httpx2.Response(200, json=task_json(data={"source": "a"}, attempts=1)))
    task = await Consumer(wire.client).claim(pictures)
    assert task is not None
    assert (task.data.source, task.attempt, task.stage_type) == ("a", 2, "pictures/large")
    assert wire.requests[0].url.raw_path == b"/v1/stages/pictures%2Flarge/tasks/dequeue"


async def test_nothing_to_claim(wire: "Wire", refusal: Refuse) -> None:
    """An empty queue is no error."""
    wire.will_answer(refusal(404, "TASK_NOT_FOUND"))
    assert await Consumer(wire.client).claim(pictures) is None


@pytest.mark.parametrize(("code", "kind"), [("JOB_NOT_FOUND", JobNotFoundError), (None, UnexpectedAnswerError)])
async def test_other_404s_are_no_empty_queue(
    code: str | None, kind: type[Exception], wire: "Wire", refusal: Refuse
) -> None:
    """A wrong address must not look like a queue without work."""
    wire.will_answer(httpx2.Response(404, text="nginx") if code is None else refusal(404, code))
    with pytest.raises(kind):
        await Consumer(wire.client).claim(pictures)


async def test_claimed_task_that_does_not_fit(wire: "Wire", task_json: Make) -> None:
    """The error names the field, and brings what is needed to report the task."""
    answer = task_json(data={"source": 3})
    wire.will_answer(httpx2.Response(200, json=answer), httpx2.Response(200, json={}))
    consumer = Consumer(wire.client)
    with pytest.raises(UnreadableTaskError, match=r"^data\.source: ") as caught:
        await consumer.claim(pictures)
    await consumer.fail(caught.value.task)
    assert wire.sent[1] == f"PUT /v1/tasks/{answer['id']}/status"


async def test_reports_carry_the_trace_of_the_task(wire: "Wire", task: ClaimedTask[Empty, Empty]) -> None:
    """A report is a child of the task's trace."""
    traceparent = trace_context.generate()
    wire.will_answer(httpx2.Response(200, json={}))
    await Consumer(wire.client).complete(task.model_copy(update={"traceparent": traceparent}))
    assert wire.requests[0].content == b'{"status":"COMPLETED"}'
    assert wire.requests[0].headers["traceparent"][:35] == traceparent[:35]


async def test_lost_reply_to_completed(wire: "Wire", task: ClaimedTask[Empty, Empty], pauses: list[float]) -> None:
    """A completion whose answer was lost is found to have arrived."""
    wire.will_answer(httpx2.ReadError("reset"), _now(task, "COMPLETED", 1))
    await Consumer(wire.client).complete(task)
    assert len(pauses) == 1


async def test_lost_reply_to_failed(wire: "Wire", task: ClaimedTask[Empty, Empty], pauses: list[float]) -> None:
    """A failure is not said again while the next worker is at its attempt already."""
    wire.will_answer(httpx2.ReadError("reset"), _now(task, "IN_PROGRESS", 2))
    await Consumer(wire.client).fail(task)
    assert wire.sent == [f"PUT /v1/tasks/{task.id}/status", f"GET /v1/tasks/{task.id}"]
    assert len(pauses) == 1


async def test_lost_report_is_said_again(wire: "Wire", task: ClaimedTask[Empty, Empty], pauses: list[float]) -> None:
    """A report that did not arrive is repeated, whether the manager was away or failed."""
    wire.will_answer(
        httpx2.ReadError("reset"),
        httpx2.ConnectError("refused"),
        httpx2.Response(500),
        _now(task, "IN_PROGRESS", 1),
        httpx2.Response(200, json={}),
    )
    await Consumer(wire.client).complete(task)
    assert [entry.partition(" ")[0] for entry in wire.sent] == ["PUT", "GET", "GET", "GET", "PUT"]
    assert pauses == [0.1, 0.2, 0.4]


@pytest.mark.parametrize("error", [httpx2.ConnectError("refused"), httpx2.Response(503)])
async def test_undelivered_report_is_raised(
    error: Exception | httpx2.Response, wire: "Wire", task: ClaimedTask[Empty, Empty], pauses: list[float]
) -> None:
    """After three retries it is the caller's to decide."""
    wire.will_answer(*[error] * 4)
    with pytest.raises((UnreachableError, ManagerFailureError)):
        await Consumer(wire.client).complete(task)
    assert len(pauses) == 3


@pytest.mark.parametrize(
    ("status", "code"), [(400, "ILLEGAL_TASK_STATUS_TRANSITION"), (409, "TASK_STATUS_UPDATE_FAILED")]
)
async def test_refused_report_is_success_where_it_is_true(
    status: int, code: str, wire: "Wire", task: ClaimedTask[Empty, Empty], refusal: Refuse
) -> None:
    """What the manager already holds for true needs no second saying."""
    consumer = Consumer(wire.client)
    wire.will_answer(refusal(status, code), _now(task, "COMPLETED", 1))
    await consumer.complete(task)
    wire.will_answer(refusal(status, code), _now(task, "RETRIED", 2))
    await consumer.fail(task)


async def test_refused_report_is_an_error_where_it_is_not(
    wire: "Wire", task: ClaimedTask[Empty, Empty], refusal: Refuse
) -> None:
    """A task that was aborted meanwhile was neither completed nor failed."""
    consumer = Consumer(wire.client)
    for say in (consumer.complete, consumer.fail):
        wire.will_answer(refusal(400, "ILLEGAL_TASK_STATUS_TRANSITION"), _now(task, "ABORTED", 1))
        with pytest.raises(IllegalTransitionError):
            await say(task)
