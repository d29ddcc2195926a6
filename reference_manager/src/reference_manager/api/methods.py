"""HEAD and OPTIONS as HTTP has them, which the framework leaves to its users."""

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Methods:
    """ASGI middleware: HEAD is GET without the body, OPTIONS and 405 say what the path allows."""

    def __init__(self, app: ASGIApp, routes: list[BaseRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS" and (allowed := self._allowed(scope)):
            headers = [(b"allow", allowed)]
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
        elif scope["method"] == "HEAD":
            await self._app({**scope, "method": "GET"}, receive, _without_body(send))
        else:
            await self._app(scope, receive, self._with_allow(scope, send))

    def _allowed(self, scope: Scope) -> bytes:
        """The methods of every route with this path; nothing if there is no such path."""
        methods: set[str] = set()
        for route in self._routes:
            if route.matches(scope)[0] is not Match.NONE:
                methods |= getattr(route, "methods", None) or set()
        if "GET" in methods:
            methods.add("HEAD")
        return ", ".join(sorted(methods | {"OPTIONS"})).encode() if methods else b""

    def _with_allow(self, scope: Scope, send: Send) -> Send:
        async def completed(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 405:  # noqa: PLR2004 - method not allowed
                others = [(name, value) for name, value in message["headers"] if name != b"allow"]
                message = {**message, "headers": [*others, (b"allow", self._allowed(scope))]}
            await send(message)

        return completed


def _without_body(send: Send) -> Send:
    """The headers alone. The answer ends with its first piece, so that nobody goes on to write a long one."""
    ended = False

    async def headers_only(message: Message) -> None:
        nonlocal ended
        if message["type"] == "http.response.start":
            await send(message)
        elif not ended:
            ended = True
            await send({"type": "http.response.body", "body": b""})

    return headers_only
