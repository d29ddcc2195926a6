"""Claims and reports of a consumer."""

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
    StatusConflictError,
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


async def test_a_claim_returns_a_typed_task(wire: "Wire", task_json: Make) -> None:
    """The task has its attempt, counted from 1, and its stage type, whose name is quoted in the path."""
    wire.will_answer(httpx2.Response(200, json=task_json(data={"source": "a"}, attempts=1)))
    task = await Consumer(wire.client).claim(pictures)
    assert task is not None
    assert (task.data.source, task.attempt, task.stage_type) == ("a", 2, "pictures/large")
    assert wire.requests[0].url.raw_path == b"/v1/stages/pictures%2Flarge/tasks/dequeue"


async def test_a_claim_on_an_empty_queue_returns_none(wire: "Wire", refusal: Refuse) -> None:
    """An empty queue is not an error."""
    wire.will_answer(refusal(404, "TASK_NOT_FOUND"))
    assert await Consumer(wire.client).claim(pictures) is None


@pytest.mark.parametrize(("code", "kind"), [("JOB_NOT_FOUND", JobNotFoundError), (None, UnexpectedAnswerError)])
async def test_other_404s_are_errors(code: str | None, kind: type[Exception], wire: "Wire", refusal: Refuse) -> None:
    """A wrong address must not look like an empty queue."""
    wire.will_answer(httpx2.Response(404, text="nginx") if code is None else refusal(404, code))
    with pytest.raises(kind):
        await Consumer(wire.client).claim(pictures)


async def test_an_unreadable_task_can_be_reported(wire: "Wire", task_json: Make) -> None:
    """The error names the field, and has the task that must be reported as failed."""
    answer = task_json(data={"source": 3})
    wire.will_answer(httpx2.Response(200, json=answer), httpx2.Response(200, json={}))
    consumer = Consumer(wire.client)
    with pytest.raises(UnreadableTaskError, match=r"^data\.source: ") as caught:
        await consumer.claim(pictures)
    await consumer.fail(caught.value.task)
    assert wire.sent[1] == f"PUT /v1/tasks/{answer['id']}/status"


async def test_a_report_carries_the_trace_of_the_task(wire: "Wire", task: ClaimedTask[Empty, Empty]) -> None:
    """The request of a report belongs to the task's trace."""
    traceparent = trace_context.generate()
    wire.will_answer(httpx2.Response(200, json={}))
    await Consumer(wire.client).complete(task.model_copy(update={"traceparent": traceparent}))
    assert wire.requests[0].content == b'{"status":"COMPLETED"}'
    assert wire.requests[0].headers["traceparent"][:35] == traceparent[:35]


async def test_a_completion_is_not_repeated_if_it_was_recorded(
    wire: "Wire", task: ClaimedTask[Empty, Empty], pauses: list[float]
) -> None:
    """After a lost response, the consumer reads the task and finds it completed."""
    wire.will_answer(httpx2.ReadError("reset"), _now(task, "COMPLETED", 1))
    await Consumer(wire.client).complete(task)
    assert len(pauses) == 1


async def test_a_failure_is_not_repeated_if_it_was_recorded(
    wire: "Wire", task: ClaimedTask[Empty, Empty], pauses: list[float]
) -> None:
    """A second FAILED would fail the attempt that the next worker has started."""
    wire.will_answer(httpx2.ReadError("reset"), _now(task, "IN_PROGRESS", 2))
    await Consumer(wire.client).fail(task)
    assert wire.sent == [f"PUT /v1/tasks/{task.id}/status", f"GET /v1/tasks/{task.id}"]
    assert len(pauses) == 1


async def test_a_report_is_repeated_if_it_was_not_recorded(
    wire: "Wire", task: ClaimedTask[Empty, Empty], pauses: list[float]
) -> None:
    """The consumer repeats the report after lost responses, refused connections and failures of the manager."""
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
async def test_the_error_is_raised_after_three_retries(
    error: Exception | httpx2.Response, wire: "Wire", task: ClaimedTask[Empty, Empty], pauses: list[float]
) -> None:
    """The caller decides what to do then."""
    wire.will_answer(*[error] * 4)
    with pytest.raises((UnreachableError, ManagerFailureError)):
        await Consumer(wire.client).complete(task)
    assert len(pauses) == 3


@pytest.mark.parametrize(
    ("status", "code"), [(400, "ILLEGAL_TASK_STATUS_TRANSITION"), (409, "TASK_STATUS_UPDATE_FAILED")]
)
async def test_a_refused_report_succeeds_if_it_was_recorded(
    status: int, code: str, wire: "Wire", task: ClaimedTask[Empty, Empty], refusal: Refuse
) -> None:
    """The manager refuses a status that the task already has."""
    consumer = Consumer(wire.client)
    wire.will_answer(refusal(status, code), _now(task, "COMPLETED", 1))
    await consumer.complete(task)
    wire.will_answer(refusal(status, code), _now(task, "RETRIED", 2))
    await consumer.fail(task)


async def test_a_refused_report_is_an_error_if_it_was_not_recorded(
    wire: "Wire", task: ClaimedTask[Empty, Empty], refusal: Refuse
) -> None:
    """A task that has been aborted is neither completed nor failed."""
    consumer = Consumer(wire.client)
    for report in (consumer.complete, consumer.fail):
        wire.will_answer(refusal(400, "ILLEGAL_TASK_STATUS_TRANSITION"), _now(task, "ABORTED", 1))
        with pytest.raises(IllegalTransitionError):
            await report(task)


async def test_a_claim_that_lost_a_race_is_repeated_at_once(
    wire: "Wire", task_json: Make, refusal: Refuse, pauses: list[float]
) -> None:
    """Another client has taken the task, but there may be others; only many conflicts in a row cause a pause."""
    conflicts = [refusal(409, "TASK_STATUS_UPDATE_FAILED") for _ in range(3)]
    wire.will_answer(*conflicts, httpx2.Response(200, json=task_json(data={"source": "a"})))
    assert await Consumer(wire.client).claim(pictures) is not None
    assert pauses == [0, 0.01, 0.02]


async def test_a_claim_that_loses_every_race_is_an_error(wire: "Wire", refusal: Refuse, pauses: list[float]) -> None:
    """A worker that is asked to stop does not wait for a manager that always answers with a conflict."""
    wire.will_answer(*(refusal(409, "TASK_STATUS_UPDATE_FAILED") for _ in range(12)))
    with pytest.raises(StatusConflictError):
        await Consumer(wire.client).claim(pictures)
    assert sum(pauses) < 5


@pytest.mark.parametrize("method", ["complete", "fail"])
async def test_a_report_is_repeated_after_a_conflict_if_the_attempt_is_still_in_progress(
    method: str, wire: "Wire", task: ClaimedTask[Empty, Empty], refusal: Refuse, pauses: list[float]
) -> None:
    """The report is repeated, because the other client did not decide the outcome of this attempt."""
    conflict = refusal(409, "TASK_STATUS_UPDATE_FAILED")
    wire.will_answer(
        conflict,
        _now(task, "IN_PROGRESS", 1),
        conflict,
        httpx2.Response(502, html="<h1>Bad Gateway</h1>"),
        _now(task, "IN_PROGRESS", 1),
        httpx2.Response(200, json={}),
    )
    await getattr(Consumer(wire.client), method)(task)
    assert [entry.partition(" ")[0] for entry in wire.sent] == ["PUT", "GET", "PUT", "GET", "GET", "PUT"]
    assert pauses == [0.1, 0.2, 0.4]


async def test_a_conflict_is_an_error_if_the_task_has_ended_otherwise(
    wire: "Wire", task: ClaimedTask[Empty, Empty], refusal: Refuse
) -> None:
    """The error is raised if another client has failed, completed or aborted the task."""
    consumer = Consumer(wire.client)
    for report, status, attempts in (
        (consumer.complete, "RETRIED", 2),
        (consumer.complete, "IN_PROGRESS", 2),
        (consumer.fail, "COMPLETED", 1),
        (consumer.fail, "ABORTED", 1),
    ):
        wire.will_answer(refusal(409, "TASK_STATUS_UPDATE_FAILED"), _now(task, status, attempts))
        with pytest.raises(StatusConflictError):
            await report(task)


@pytest.mark.parametrize(
    "page",
    [
        httpx2.Response(404, html="<h1>Not Found</h1>"),
        httpx2.Response(409, html="<h1>Conflict</h1>"),
        httpx2.Response(302, headers={"Location": "https://login/"}),
        httpx2.Response(401, json={"message": "No.", "code": "UNAUTHORIZED"}),
        httpx2.Response(429, json={"message": "No.", "code": "TOO_MANY_REQUESTS"}),
        httpx2.Response(413, html="<h1>Too large</h1>"),
    ],
    ids=lambda page: str(page.status_code),
)
async def test_no_page_of_a_proxy_refuses_a_report(
    page: httpx2.Response, wire: "Wire", task: ClaimedTask[Empty, Empty], pauses: list[float]
) -> None:
    """Only responses in the protocol's format refuse a report."""
    wire.will_answer(page, _now(task, "IN_PROGRESS", 1), httpx2.Response(200, json={}))
    await Consumer(wire.client).complete(task)
    assert len(pauses) == 1


@pytest.mark.parametrize(
    "odd", [{"data": None}, {"attempts": "x"}, {"maxAttempts": None}, {"stageId": 1}, {"status": None}], ids=str
)
async def test_a_task_of_which_only_the_id_is_valid_can_be_reported(
    odd: dict[str, Any], wire: "Wire", task_json: Make
) -> None:
    """The task is reported as failed, because no other client would get it."""
    answer = task_json(data={"source": "a"}) | odd
    wire.will_answer(httpx2.Response(200, json=answer), httpx2.Response(200, json=answer))
    consumer = Consumer(wire.client)
    with pytest.raises(UnreadableTaskError) as caught:
        await consumer.claim(pictures)
    await consumer.fail(caught.value.task)
    assert wire.sent[1] == f"PUT /v1/tasks/{answer['id']}/status"


@pytest.mark.parametrize("page", [b"<html>", b"", b"OK"])
async def test_a_page_does_not_accept_a_report(
    page: bytes, wire: "Wire", task: ClaimedTask[Empty, Empty], pauses: list[float]
) -> None:
    """After a page with any status, the task is read, and the report is repeated."""
    wire.will_answer(
        httpx2.Response(200, content=page), _now(task, "IN_PROGRESS", 1), httpx2.Response(200, json={"status": "any"})
    )
    await Consumer(wire.client).complete(task)
    assert [request.split()[0] for request in wire.sent] == ["PUT", "GET", "PUT"]
    assert len(pauses) == 1
