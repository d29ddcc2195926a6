"""The wish that an attempt ends before its time: said once, by anybody, and heard by all who asked to."""

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from jobnik_sdk.errors import Cancelled


class Cancellation:
    """Whether an attempt is to end early, and why: "job aborted", "timeout", "lease lost" or "drain".

    A coroutine is cancelled without asking here, and a plain function is interrupted by `Cancelled` as soon as it runs
    Python again. Ask here within long calls that do not: between two pieces of work in a library, say.
    """

    # No lock: `Cancelled` may be raised at any line in the thread of a handler, and could leave a lock taken. Appending
    # to a list and popping from it are whole.
    __slots__ = ("_callbacks", "_reasons", "_thread", "_unraised")

    def __init__(self) -> None:
        self._reasons: list[str] = []
        self._unraised = [None]
        self._thread: int | None = None
        self._callbacks: list[Callable[[], None]] = []

    @property
    def requested(self) -> bool:
        """Whether the attempt is to end."""
        return bool(self._reasons)

    @property
    def reason(self) -> str | None:
        """Why it is to end, None while it is not."""
        return self._reasons[0] if self._reasons else None

    def request(self, reason: str) -> None:
        """Ask the attempt to end, from any thread; the first reason counts."""
        self._reasons.append(reason)
        self._tell()

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Block until the attempt is to end, `timeout` at most (None: without limit); return whether it is.

        For plain functions: instead of a sleep that nothing interrupts.
        """
        asked = threading.Event()
        self.on_request(asked.set)
        try:
            return asked.wait(None if timeout is None else timeout.total_seconds())
        finally:
            self.forget(asked.set)

    def raise_if_requested(self) -> None:
        """Raise `Cancelled` if the attempt is to end."""
        if self._reasons:
            self.raise_if_due()
            raise Cancelled(self._reasons[0])

    def begin(self) -> None:
        """Say that the handler runs in the current thread."""
        self._thread = threading.get_ident()

    def claim(self) -> bool:
        """Return whether it is now the caller's to raise `Cancelled` in the handler's thread, which is done once.

        What the handler does then, to clean up, is not interrupted again.
        """
        try:
            self._unraised.pop()
        except IndexError:
            return False
        return True

    def raise_if_due(self) -> None:
        """Raise `Cancelled` if the attempt is to end, unless that was done already in the handler's thread."""
        if self._reasons and (self._thread not in {None, threading.get_ident()} or self.claim()):
            raise Cancelled(self._reasons[0])

    def on_request(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, in the thread that asks the attempt to end; at once if that was done already."""
        self._callbacks.append(callback)
        if self._reasons:
            self._tell()

    def forget(self, callback: Callable[[], None]) -> None:
        """Do not call `callback` any more."""
        with suppress(ValueError):  # it was called
            self._callbacks.remove(callback)

    def _tell(self) -> None:
        with suppress(IndexError):
            while True:
                self._callbacks.pop()()
