"""The hot path: an ASGI application that serves the most frequent requests without the framework.

For these requests, the framework takes several times as long as the work itself. The hot path validates with the same
models and calls the same functions as the framework's routes, so the responses are identical. Only ordinary, valid
requests take it. Every other request goes to the framework's route of the same path, so refusals and their messages
exist in one place. The OpenAPI document describes those routes.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes
from uuid import UUID

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reference_manager.access.errors import RefusedError
from reference_manager.api.common.access import PRODUCE, PRODUCE_OR_WORK, WORK, Access, Gate, record_refusal
from reference_manager.api.common.bodies import LARGE
from reference_manager.api.common.disconnects import client_of
from reference_manager.api.common.errors import error_response
from reference_manager.api.common.fields import Id, NewWorkerId, StageTypeName
from reference_manager.api.common.headers import IDEMPOTENCY_KEY, MINIMAL, is_idempotency_key, request_trace
from reference_manager.api.jobs.requests import JobBody
from reference_manager.api.jobs.routes import create_job_response
from reference_manager.api.queues.requests import ClaimBody, SettleBody, read_completions
from reference_manager.api.queues.routes import claim_response, settle_response
from reference_manager.api.tasks.requests import TaskBody, TaskStatusBody, new_tasks
from reference_manager.api.tasks.routes import add_tasks_response, dequeue_response, report_response
from reference_manager.api.workers.requests import HeartbeatBody
from reference_manager.api.workers.routes import heartbeat_response
from reference_manager.engine.engine import Engine

_JSON = b"application/json"
_MINIMAL = MINIMAL.encode()
_IDEMPOTENCY_KEY = IDEMPOTENCY_KEY.lower().encode()

_ID = TypeAdapter[UUID](Id)
_STAGE_TYPE = TypeAdapter[str](StageTypeName)
_WORKER_ID = TypeAdapter[str](NewWorkerId)
_TASKS = TypeAdapter[Sequence[TaskBody]](list[TaskBody])


class _Headers(NamedTuple):
    """What the headers of an ordinary request say."""

    minimal: bool
    """Whether the client asks for a minimal response."""
    key: str | None
    """The idempotency key."""


class _HotRequest(NamedTuple):
    """An ordinary request whose body has arrived."""

    scope: Scope
    parameter: str
    """The parameter of the path; empty if there is none."""
    body: bytes
    headers: _Headers


class _Route(NamedTuple):
    """What serves a method and a path."""

    serve: Callable[[_HotRequest], Coroutine[Any, Any, Response]]
    """Returns a coroutine that serves a request. Raises ValueError if the request is invalid."""
    access: Access
    """Who may use the route. The framework refuses all others, and serves limited tokens."""
    parameter: bytes = b""
    """The parameter of the path, URL-encoded."""
    takes_body: bool = True


class HotPath:
    """Serves the most frequent requests, and leaves all others to the framework.

    Args:
        app: The application of the framework.
        engine: The engine that serves the requests.
        gate: Records refusals.
        body_limit: The maximum size of a request body, in bytes.
    """

    def __init__(self, app: ASGIApp, engine: Engine, gate: Gate, *, body_limit: int) -> None:
        self._app = app
        self._gate = gate
        self._engine = engine
        self._max_size = min(LARGE, body_limit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        route = self._route(scope)
        headers = (
            _headers(scope, takes_body=route.takes_body) if route and route.access.is_unrestricted(scope) else None
        )
        if route is None or headers is None:
            await self._app(scope, receive, send)
            return
        messages = await self._receive(receive) if route.takes_body else []
        try:
            parameter = unquote_to_bytes(route.parameter).decode()
            work = route.serve(_HotRequest(scope, parameter, self._body(messages), headers))
        except ValueError:
            await self._app(scope, _replay(messages, receive), send)
            return
        try:
            response = await work
        except Exception as error:  # noqa: BLE001 - every error has a response
            if isinstance(error, RefusedError):
                record_refusal(self._gate.audit, scope, error)
            response = error_response(error)
        await response(scope, receive, send)

    def _route(self, scope: Scope) -> _Route | None:  # noqa: PLR0911 - a table of routes
        """Return the route of a request. None: the framework serves it."""
        if scope["type"] != "http" or scope["query_string"]:
            return None
        match scope["method"], scope["raw_path"].split(b"/"):
            case "PATCH", [b"", b"v1", b"stages", parameter, b"tasks", b"dequeue"]:
                return _Route(self._dequeue, WORK, parameter, takes_body=False)
            case "PUT", [b"", b"v1", b"tasks", parameter, b"status"]:
                return _Route(self._report, WORK, parameter)
            case "POST", [b"", b"v1", b"stages", parameter, b"tasks", b"claim"]:
                return _Route(self._claim, WORK, parameter)
            case "POST", [b"", b"v1", b"tasks", b"settle"]:
                return _Route(self._settle, WORK)
            case "POST", [b"", b"v1", b"workers", parameter, b"heartbeat"]:
                return _Route(self._heartbeat, WORK, parameter)
            case "POST", [b"", b"v1", b"stages", parameter, b"tasks"]:
                return _Route(self._add_tasks, PRODUCE_OR_WORK, parameter)
            case "POST", [b"", b"v1", b"jobs"]:
                return _Route(self._create_job, PRODUCE)
            case _:
                return None

    async def _receive(self, receive: Receive) -> list[Message]:
        """Return the body as one message, or what arrives until it is too large or the client disconnects."""
        body = bytearray()
        while True:
            message = await receive()
            disconnected = message["type"] == "http.disconnect"
            body += message.get("body", b"")
            more: bool = disconnected or message.get("more_body", False)
            if not more or disconnected or len(body) > self._max_size:
                received: Message = {"type": "http.request", "body": bytes(body), "more_body": more}
                return [received, message] if disconnected else [received]

    def _body(self, messages: Sequence[Message]) -> bytes:
        """Return the body. Raises ValueError if it is incomplete or too large, or may not be JSON."""
        if not messages:
            return b""
        body: bytes = messages[0]["body"]
        if messages[0]["more_body"] or len(body) > self._max_size:
            raise ValueError
        # pydantic parses and validates three times as fast in one step, but also accepts these as numbers.
        if b"NaN" in body or b"Infinity" in body:
            raise ValueError
        return body

    def _dequeue(self, request: _HotRequest) -> Coroutine[Any, Any, Response]:
        stage_type = _STAGE_TYPE.validate_python(request.parameter)
        return dequeue_response(self._engine.queue, stage_type, client_of(request.scope))

    def _report(self, request: _HotRequest) -> Coroutine[Any, Any, Response]:
        task_id = _ID.validate_python(request.parameter)
        body = TaskStatusBody.model_validate_json(request.body)
        return report_response(self._engine.queue, task_id, body)

    def _claim(self, request: _HotRequest) -> Coroutine[Any, Any, Response]:
        stage_type = _STAGE_TYPE.validate_python(request.parameter)
        body = ClaimBody.model_validate_json(request.body)
        return claim_response(self._engine.queue, stage_type, body, request.scope, minimal=request.headers.minimal)

    def _settle(self, request: _HotRequest) -> Coroutine[Any, Any, Response]:
        settlement = read_completions(request.body) or SettleBody.model_validate_json(request.body).request()
        return settle_response(self._engine.queue, settlement, minimal=request.headers.minimal)

    def _heartbeat(self, request: _HotRequest) -> Coroutine[Any, Any, Response]:
        worker_id = _WORKER_ID.validate_python(request.parameter)
        body = HeartbeatBody.model_validate_json(request.body)
        return heartbeat_response(self._engine.workers, body.request(worker_id))

    def _add_tasks(self, request: _HotRequest) -> Coroutine[Any, Any, Response]:
        stage_id = _ID.validate_python(request.parameter)
        bodies = _TASKS.validate_json(request.body)
        tasks = new_tasks(bodies, request_trace(Request(request.scope)), keyed=request.headers.key is not None)
        return add_tasks_response(
            self._engine.tasks, stage_id, tasks, request.headers.key, minimal=request.headers.minimal
        )

    def _create_job(self, request: _HotRequest) -> Coroutine[Any, Any, Response]:
        body = JobBody.model_validate_json(request.body)
        job = body.request(request_trace(Request(request.scope)), keyed=request.headers.key is not None)
        return create_job_response(self._engine.jobs, job, request.headers.key)


def _headers(scope: Scope, *, takes_body: bool) -> _Headers | None:
    """Return what the headers say. None: the framework serves the request."""
    has_type = minimal = False
    key: str | None = None
    for name, value in scope["headers"]:
        if name == b"content-type":
            if value != _JSON:
                return None
            has_type = True
        elif name == b"prefer":
            if value != _MINIMAL:
                return None
            minimal = True
        elif name == _IDEMPOTENCY_KEY:
            if key is not None or not is_idempotency_key(value.decode("latin-1")):
                return None
            key = value.decode("latin-1")
    return _Headers(minimal, key) if has_type or not takes_body else None


def _replay(messages: list[Message], receive: Receive) -> Receive:
    """Return a function that returns these messages, then the next ones."""
    replayed = iter(messages)

    async def receive_again() -> Message:
        return next(replayed, None) or await receive()

    return receive_again
