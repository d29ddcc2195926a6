"""Work that ends when the client that asked for it disconnects."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from starlette.types import Scope

Answer = TypeVar("Answer")

CLIENT_STATE = "client"
"""The key in the state of an ASGI scope that holds the client. ASGI itself would take a task to watch the connection,
which costs a tenth of a short claim."""


class Client:
    """The client of a connection, which sends one request after another.

    Args:
        keep_reading: Called when the client starts to wait. Only a connection that is read notices a disconnect.
    """

    def __init__(self, keep_reading: Callable[[], None] = lambda: None) -> None:
        self._keep_reading = keep_reading
        self._is_gone = False
        self._work: asyncio.Future[Any] | None = None
        self._undo: Callable[[], object] | None = None
        """Undoes the work whose result has not been sent yet."""

    def is_gone(self) -> bool:
        """Return whether the client has disconnected."""
        return self._is_gone

    def is_waiting(self) -> bool:
        """Return whether the client waits for the result of its work."""
        return self._work is not None

    def disconnect(self) -> None:
        """Cancel the work of the client, or undo it if its result has not been sent yet."""
        self._is_gone = True
        if self._work:
            self._work.cancel()
        if self._undo:
            self._undo()
            self._undo = None

    def sent(self) -> None:
        """Keep the work of the client, because its response has been sent."""
        self._undo = None

    async def wait_for(self, work: asyncio.Future[Answer], undo: Callable[[Answer], object]) -> Answer | None:
        """Return the result of a future, or None if the client disconnects first.

        Args:
            work: The future. It is cancelled if the client disconnects.
            undo: Called with the result if the client disconnects before it has been sent.
        """
        if self._is_gone:
            work.cancel()
        self._work = work
        self._keep_reading()
        try:
            answer = await work
        except asyncio.CancelledError:
            # False if the work has ended already.
            if not work.cancel() and not work.cancelled() and not work.exception():
                undo(work.result())
            if self._is_gone:
                return None
            raise
        finally:
            self._work = None
        if self._is_gone:
            undo(answer)
            return None
        self._undo = partial(undo, answer)
        return answer


def client_of(scope: Scope) -> Client:
    """Return the client that sent a request. In memory, there is no connection, so the client stays."""
    return scope.get("state", {}).get(CLIENT_STATE) or Client()
