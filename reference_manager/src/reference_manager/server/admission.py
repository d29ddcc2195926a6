"""Responses on the connections above the limit, and the end of requests that are cancelled."""

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reference_manager.api.common.disconnects import client_of
from reference_manager.api.common.errors import MANAGER_BUSY, RETRY_AFTER, problem
from reference_manager.store.lock_waits import client_is_gone

SURPLUS_STATE = "surplus"
"""The key in the state of an ASGI scope that marks a connection above the limit."""
PROBES = frozenset({"/liveness", "/readiness", "/metrics"})


class Admission:
    """ASGI middleware: connections above the limit serve the probes, refuse everything else, and then close.

    A request is cancelled only when the manager stops, and its connection is closed by then. It ends without an
    exception, which uvicorn would log with its traceback.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if not scope["state"].get(SURPLUS_STATE):
            client_is_gone.set(client_of(scope).is_gone)
            with suppress(asyncio.CancelledError):
                await self._app(scope, receive, send)
            return

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        app = self._app if scope["path"] in PROBES else problem(MANAGER_BUSY, RETRY_AFTER)
        await app(scope, receive, closing)
