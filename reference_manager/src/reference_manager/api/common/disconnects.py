"""Work that ends when the client that asked for it disconnects."""

import asyncio
from typing import Any, TypeVar

from starlette.types import Scope

Answer = TypeVar("Answer")

CLIENT_STATE = "client"
"""The key in the state of an ASGI scope that holds the client. ASGI itself would take a task to watch the connection,
which costs a tenth of a short claim."""


class Client:
    """The client of a connection, which sends one request after another."""

    def __init__(self) -> None:
        self._is_gone = False
        self._work: asyncio.Future[Any] | None = None

    def is_gone(self) -> bool:
        """Return whether the client has disconnected."""
        return self._is_gone

    def disconnect(self) -> None:
        """Cancel the work of the client."""
        self._is_gone = True
        if self._work:
            self._work.cancel()

    async def wait_for(self, work: asyncio.Future[Answer]) -> Answer | None:
        """Return the result of a future. If the client disconnects first, cancel the future and return None."""
        if self._is_gone:
            work.cancel()
        self._work = work
        try:
            return await work
        except asyncio.CancelledError:
            if self._is_gone:
                return None
            raise
        finally:
            self._work = None


def client_of(scope: Scope) -> Client:
    """Return the client that sent a request. In memory, there is no connection, so the client stays."""
    return scope.get("state", {}).get(CLIENT_STATE) or Client()
