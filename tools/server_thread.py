"""An asyncio server in a thread of its own."""

import asyncio
import threading
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self


class ServerThread(ABC):
    """Listens until the end of the ``with`` block, and keeps running while the caller blocks."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        """Set at the end of the ``with`` block."""
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
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
        async with self.listen():
            self._ready.set()
            await self.stopped.wait()
