"""HEAD, OPTIONS and 405 responses, which the framework does not provide."""

from collections.abc import Iterable

from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reference_manager.api.common.errors import METHOD_NOT_ALLOWED, problem


class Methods:
    """ASGI middleware: HEAD is GET without the body; OPTIONS and 405 responses list the allowed methods."""

    def __init__(self, app: ASGIApp, routes: list[APIRoute]) -> None:
        self._app = app
        self._routes = routes
        # A path without parameters takes precedence: /v1/tasks/settle is not a task with the id "settle".
        concrete = {route.path for route in routes if not route.param_convertors}
        self._concrete = {path: _methods(route for route in routes if route.path == path) for path in concrete}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS" and (allowed := self._allowed(scope)):
            headers = [(b"allow", _listed(allowed))]
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
        elif scope["method"] not in self._concrete.get(scope["path"], {scope["method"]}):
            await problem(METHOD_NOT_ALLOWED)(scope, receive, self._with_allow(scope, send))
        elif scope["method"] == "HEAD":
            await self._app({**scope, "method": "GET"}, receive, _without_body(send))
        else:
            await self._app(scope, receive, self._with_allow(scope, send))

    def _allowed(self, scope: Scope) -> set[str]:
        """Return the methods of a path; empty for an unknown path."""
        matching = (route for route in self._routes if route.matches(scope)[0] is not Match.NONE)
        return self._concrete.get(scope["path"]) or _methods(matching)

    def _with_allow(self, scope: Scope, send: Send) -> Send:
        async def completed(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 405:  # noqa: PLR2004 - method not allowed
                others = [(name, value) for name, value in message["headers"] if name != b"allow"]
                message = {**message, "headers": [*others, (b"allow", _listed(self._allowed(scope)))]}
            await send(message)

        return completed


def _methods(routes: Iterable[APIRoute]) -> set[str]:
    """Return the methods of these routes with HEAD and OPTIONS; empty without routes."""
    methods = {method for route in routes for method in route.methods or ()}
    return methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set()) if methods else methods


def _listed(methods: set[str]) -> bytes:
    return ", ".join(sorted(methods)).encode()


def _without_body(send: Send) -> Send:
    """Send only the headers, and end the response at the first chunk of the body."""
    ended = False

    async def headers_only(message: Message) -> None:
        nonlocal ended
        if message["type"] == "http.response.start":
            await send(message)
        elif not ended:
            ended = True
            await send({"type": "http.response.body", "body": b""})

    return headers_only
