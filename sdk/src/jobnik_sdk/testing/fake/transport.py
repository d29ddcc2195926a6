"""The connection between clients and the fake manager: both kinds of httpx2 transport, without a network."""

import asyncio
import re
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import unquote

import httpx2
from pydantic_core import to_json
from typing_extensions import override

from jobnik_sdk.testing.fake.endpoints import Route
from jobnik_sdk.testing.fake.job_endpoints import JobEndpoints, StageEndpoints, TaskEndpoints
from jobnik_sdk.testing.fake.original import as_original, original_message
from jobnik_sdk.testing.fake.requests import Answer, NotYet, Request
from jobnik_sdk.testing.fake.state import RefusedRequestError, State
from jobnik_sdk.testing.fake.worker_endpoints import WorkerEndpoints

_PARAMETER: Final = re.compile(r"{(\w+)}")


class FakeTransport(httpx2.AsyncBaseTransport, httpx2.BaseTransport):
    """Answers requests from any thread and any event loop."""

    def __init__(self, state: State, *, part_a_only: bool) -> None:
        self._state = state
        self._lock = threading.Lock()
        self._wakers: set[Callable[[], None]] = set()
        self._part_a_only = part_a_only
        self._worker_endpoints = WorkerEndpoints(state, part_a_only=part_a_only)
        groups = (
            self._worker_endpoints,
            *(kind(state, part_a_only=part_a_only) for kind in (JobEndpoints, StageEndpoints, TaskEndpoints)),
        )
        routes = [route for group in groups for route in group.routes() if not (route.part_b and part_a_only)]
        # Paths without parameters are tried first, because /v1/tasks/settle is not a task with the id "settle".
        self._routes = [(_pattern(route.path), route) for route in sorted(routes, key=lambda route: "{" in route.path)]

    @override
    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        arrived_at, changed = self._arrival(), threading.Event()
        while not isinstance(answer := self._answer(request, arrived_at, changed.set), httpx2.Response):
            changed.wait(answer)
            changed.clear()
        return answer

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        await asyncio.sleep(0)  # lets other coroutines run, as a request over a network would
        arrived_at, loop, changed = self._arrival(), asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(changed.set)

        try:
            while not isinstance(answer := self._answer(request, arrived_at, wake), httpx2.Response):
                with suppress(TimeoutError):
                    async with asyncio.timeout(answer):
                        await changed.wait()
                changed.clear()
        finally:
            with self._lock:
                self._wakers.discard(wake)
        return answer

    @property
    def waiting(self) -> int:
        """The number of requests that are waiting for a change."""
        with self._lock:
            return len(self._wakers)

    def advance(self, by: timedelta) -> None:
        """Move the clock ahead, and apply everything that becomes due."""
        with self._lock:
            self._state.clock.advance(by)
            self._worker_endpoints.catch_up()
            self._wake()

    @contextmanager
    def locked(self) -> Generator[State]:
        """Yield the current state. No request is served within the block."""
        with self._lock:
            self._worker_endpoints.catch_up()
            yield self._state

    def _arrival(self) -> datetime:
        with self._lock:
            return self._state.tick()

    def _answer(
        self, request: httpx2.Request, arrived_at: datetime, wake: Callable[[], None]
    ) -> httpx2.Response | float:
        """Return the answer, or the number of seconds after which to try again unless `wake` is called earlier."""
        with self._lock:
            self._wakers.discard(wake)
            self._worker_endpoints.catch_up()
            try:
                answer = self._serve(request, arrived_at)
            except RefusedRequestError as refusal:
                message = original_message(refusal) if self._part_a_only else str(refusal)
                answer = Answer(refusal.status, {"message": message, "code": refusal.code})
            if isinstance(answer, NotYet):
                self._wakers.add(wake)
                moments = [moment for moment in (answer.until, self._state.next_moment()) if moment is not None]
                return max(0.0, (min(moments) - self._state.now).total_seconds())
            if request.method != "GET":
                self._wake()
        if answer.body is None:
            return httpx2.Response(answer.status, headers=dict(answer.headers))
        headers = {**answer.headers, "Content-Type": "application/json"}
        body = as_original(answer.body) if self._part_a_only else answer.body
        return httpx2.Response(answer.status, headers=headers, content=to_json(body, inf_nan_mode="null"))

    def _serve(self, request: httpx2.Request, arrived_at: datetime) -> Answer | NotYet:
        path = request.url.raw_path.partition(b"?")[0].decode("ascii")
        other_methods: list[Route] = []
        for pattern, route in self._routes:
            found = pattern.fullmatch(path)
            if found is None or (other_methods and "{" in route.path and "{" not in other_methods[0].path):
                continue
            if route.method == request.method:
                parameters = {name: unquote(value) for name, value in found.groupdict().items()}
                return route.serve(Request(request, arrived_at, parameters, self._part_a_only))
            other_methods.append(route)
        if not other_methods:
            raise RefusedRequestError(404, "NOT_FOUND", "Not Found")
        raise RefusedRequestError(405, "METHOD_NOT_ALLOWED", "Method Not Allowed")

    def _wake(self) -> None:
        for wake in self._wakers:
            with suppress(RuntimeError):  # its event loop is closed
                wake()


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(_PARAMETER.sub(r"(?P<\1>[^/]+)", path))
