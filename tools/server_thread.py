"""An asyncio server in a thread of its own."""

import asyncio
import threading
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, Self

_START_TIMEOUT: Final = 30.0
"""Seconds."""


class ServerThread(ABC):
    """Listens until the end of the ``with`` block, and keeps running while the caller blocks."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        """Set at the end of the ``with`` block."""
        self._started = threading.Event()
        """Set when the server listens or has failed."""
        self._error: Exception | None = None
        """Why it does not listen."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._started.wait(_START_TIMEOUT) or self._error:
            raise RuntimeError(f"{type(self).__name__} did not start.") from self._error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self.stopped.set)
        self._thread.join()

    @abstractmethod
    def listen(self) -> AbstractAsyncContextManager[None]:
        """Listen until the end of the ``async with`` block."""

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._listen_until_stopped())

    async def _listen_until_stopped(self) -> None:
        try:
            async with self.listen():
                self._started.set()
                await self.stopped.wait()
        except Exception as error:
            if self._started.is_set():
                raise
            self._error = error
            self._started.set()
