"""Requests of the client: retries, errors and trace context."""

import asyncio
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx2
import pytest
from jobnik_sdk import JobnikClient, UnexpectedAnswerError, errors
from jobnik_sdk.http.connections import Pool
from jobnik_sdk.observability import trace_context
from typing_extensions import override

if TYPE_CHECKING:
    from tests.unit.sdk.conftest import Wire

_TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_transient_statuses_are_retried(status: int, wire: "Wire", pauses: list[float]) -> None:
    """There are three retries. The first delay is 100 ms, and each further one is twice as long."""
    wire.will_answer(*[httpx2.Response(status)] * 3, httpx2.Response(200, json={}))
    await wire.client.request("POST", "/v1/jobs", json={})
    assert pauses == [0.1, 0.2, 0.4]


async def test_the_error_is_raised_after_three_retries(wire: "Wire", pauses: list[float]) -> None:
    """The caller gets the error of the last try."""
    wire.will_answer(*[httpx2.Response(503)] * 4)
    with pytest.raises(errors.ManagerFailureError) as caught:
        await wire.client.request("GET", "/v1/jobs")
    assert caught.value.status == 503
    assert len(pauses) == 3


async def test_refused_connections_are_retried(wire: "Wire", pauses: list[float]) -> None:
    """A request that was never sent is safe to repeat, even a POST."""
    wire.will_answer(httpx2.ConnectError("refused"), httpx2.ConnectTimeout("slow"), httpx2.Response(200, json={}))
    await wire.client.request("POST", "/v1/jobs", json={})
    assert len(pauses) == 2


async def test_the_error_names_an_unreachable_manager(wire: "Wire", pauses: list[float]) -> None:
    """The message has the address and what to check."""
    wire.will_answer(*[httpx2.ConnectError("refused")] * 4)
    with pytest.raises(
        errors.UnreachableError,
        match=r"http://manager cannot be reached \(check the address, and that the manager is running\): refused",
    ):
        await wire.client.request("GET", "/v1/jobs")
    assert len(pauses) == 3


async def test_requests_need_no_files(wire: "Wire", monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports and heartbeats continue if a handler changes `sys.path`, or opens as many files as the process may."""
    monkeypatch.setattr(sys, "path", [])
    wire.will_answer(*[httpx2.Response(200, json={})] * len(Pool))
    for pool in Pool:
        await wire.client.request("POST", "/v1/tasks/settle", json={}, pool=pool)


@pytest.mark.parametrize(
    "error", [httpx2.ReadError("reset"), httpx2.RemoteProtocolError("gone"), httpx2.ReadTimeout("")]
)
async def test_a_post_is_not_repeated_after_a_lost_response(
    error: Exception, wire: "Wire", pauses: list[float]
) -> None:
    """A second POST could create a second job."""
    wire.will_answer(error)
    with pytest.raises(errors.LostAnswerError):
        await wire.client.request("POST", "/v1/jobs", json={})
    assert not pauses


async def test_a_put_is_repeated_after_a_lost_response(wire: "Wire", pauses: list[float]) -> None:
    """A PUT is idempotent."""
    wire.will_answer(httpx2.ReadError("reset"), httpx2.Response(200, json={}))
    await wire.client.request("PUT", "/v1/jobs/1/status", json={})
    assert len(pauses) == 1


async def test_retry_after_is_respected(wire: "Wire", pauses: list[float]) -> None:
    """The manager may ask for a longer delay than the backoff has."""
    wire.will_answer(httpx2.Response(503, headers={"Retry-After": "7"}), httpx2.Response(200, json={}))
    await wire.client.request("GET", "/v1/jobs")
    assert pauses == [7.0]


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "VALIDATION_ERROR", errors.InvalidRequestError),
        (404, "JOB_NOT_FOUND", errors.JobNotFoundError),
        (404, "STAGE_NOT_FOUND", errors.StageNotFoundError),
        (404, "TASK_NOT_FOUND", errors.TaskNotFoundError),
        (400, "JOB_IN_FINITE_STATE", errors.JobFinishedError),
        (400, "JOB_NOT_IN_FINITE_STATE", errors.JobNotFinishedError),
        (400, "STAGE_IN_FINITE_STATE", errors.StageFinishedError),
        (400, "NOT_ALLOWED_TO_ADD_TASKS_TO_IN_PROGRESS_STAGE", errors.StageStartedError),
        (400, "ILLEGAL_JOB_STATUS_TRANSITION", errors.IllegalTransitionError),
        (400, "ILLEGAL_STAGE_STATUS_TRANSITION", errors.IllegalTransitionError),
        (400, "ILLEGAL_TASK_STATUS_TRANSITION", errors.IllegalTransitionError),
        (409, "TASK_STATUS_UPDATE_FAILED", errors.StatusConflictError),
        (413, "PAYLOAD_TOO_LARGE", errors.PayloadTooLargeError),
        (500, "DATABASE_RELATED_ERROR", errors.ManagerFailureError),
        (500, "UNKNOWN_ERROR", errors.ManagerFailureError),
        (418, "SOMETHING_NEW", errors.AnswerError),
    ],
)
async def test_error_codes_become_exceptions(
    status: int,
    code: str,
    kind: type[errors.AnswerError],
    wire: "Wire",
    refusal: Callable[[int, str], httpx2.Response],
) -> None:
    """Each code of the protocol has its own exception, with status and code."""
    wire.will_answer(refusal(status, code))
    with pytest.raises(errors.AnswerError) as caught:
        await wire.client.request("GET", "/v1/jobs")
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.code) == (status, code)
    assert str(caught.value) == f"GET /v1/jobs: No. [{status} {code}]"


@pytest.mark.parametrize(
    "answer", [httpx2.Response(404, html="<h1>nginx</h1>"), httpx2.Response(302), httpx2.Response(401, json=[])]
)
async def test_responses_of_other_servers_are_unexpected(answer: httpx2.Response, wire: "Wire") -> None:
    """A response that does not follow the protocol is not an error of the manager."""
    wire.will_answer(answer)
    with pytest.raises(errors.UnexpectedAnswerError):
        await wire.client.request("GET", "/v1/jobs")


async def test_requests_carry_the_current_trace(wire: "Wire") -> None:
    """An explicit trace takes precedence over the current one; without either, a new one starts."""
    wire.will_answer(*[httpx2.Response(200, json={})] * 3)
    with trace_context.use_trace(_TRACE):
        await wire.client.request("GET", "/v1/jobs")
        await wire.client.request("GET", "/v1/jobs", traceparent=_TRACE[:-2] + "00")
    await wire.client.request("GET", "/v1/jobs")
    sent = [request.headers["traceparent"] for request in wire.requests]
    assert sent[:2] == [_TRACE, _TRACE[:-2] + "00"]
    assert trace_context.is_valid(sent[2])


@pytest.mark.parametrize("base_url", ["", "manager:8080", "ftp://manager", "http://", "http://host:port", "/v1"])
def test_invalid_addresses_are_errors(base_url: str) -> None:
    """An invalid address is an error before the first request."""
    with pytest.raises(errors.ConfigurationError, match="address"):
        JobnikClient(base_url)


async def test_an_address_may_have_a_path() -> None:
    """A manager may be served under a prefix."""
    seen: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(str(request.url))
        return httpx2.Response(200, json={})

    async with JobnikClient("https://host/jobnik/", transport=httpx2.MockTransport(answer)) as client:
        await client.request("GET", "/v1/jobs")
    assert seen == ["https://host/jobnik/v1/jobs"]


@pytest.mark.parametrize(
    ("status", "location", "named"),
    [
        (301, "https://new.example/jobnik/v1/jobs", "https://new.example/jobnik: "),
        (302, "https://user:secret@new.example/v1/jobs?token=1#top", "https://new.example: "),
        (307, "/login?next=/v1/jobs", "http://manager/login: "),
        (308, "//[broken", "http://%5bbroken: "),
    ],
)
async def test_a_redirect_is_an_error_that_says_where_it_points(
    status: int, location: str, named: str, wire: "Wire"
) -> None:
    """The redirect is not followed, and secrets in its target are not shown."""
    wire.will_answer(httpx2.Response(status, headers={"Location": location}))
    with pytest.raises(errors.UnexpectedAnswerError) as caught:
        await wire.client.request("GET", "/v1/jobs")
    assert f"a redirect to {named}" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "token" not in str(caught.value)


@pytest.mark.parametrize("page", [b"<html>", b"OK", b'"text"'])
async def test_a_page_is_no_success(page: bytes, wire: "Wire") -> None:
    """A page with status 200, as a proxy may send, is an error, even if the response would have been empty."""
    wire.will_answer(httpx2.Response(200, content=page))
    with pytest.raises(UnexpectedAnswerError, match="was 200 OK, but not JSON"):
        await wire.client.request("PUT", "/v1/jobs/1/status")


class _SlowToClose(httpx2.AsyncBaseTransport):
    def __init__(self) -> None:
        self.closing = asyncio.Event()
        self.may_close = asyncio.Event()

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json={}, request=request)

    @override
    async def aclose(self) -> None:
        self.closing.set()
        await self.may_close.wait()


async def test_a_client_can_be_closed_again_while_it_is_closing() -> None:
    """A second interrupt, and the end of the event loop, may close it again."""
    transport = _SlowToClose()
    client = JobnikClient("http://manager", transport=transport)
    await client.request("GET", "/v1/jobs")
    first = asyncio.create_task(client.aclose())
    await transport.closing.wait()
    await client.aclose()
    transport.may_close.set()
    await first
