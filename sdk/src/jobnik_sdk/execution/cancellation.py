"""Cancellation of an attempt: requested once, from any thread, and passed on to callbacks."""

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from jobnik_sdk.errors import Cancelled


class Cancellation:
    """Whether an attempt is cancelled, and why: "job aborted", "timeout", "lease lost" or "drain".

    A coroutine is cancelled by asyncio, and a plain function is interrupted by `Cancelled` at its next line of Python.
    Check `requested` only where neither helps: between long calls into a library, for example.
    """

    # No lock: `Cancelled` can be raised at any line in the thread of a handler and could leave a lock locked. Appending
    # to a list and popping from it are atomic.
    __slots__ = ("_callbacks", "_raise_tokens", "_reasons", "_thread")

    def __init__(self) -> None:
        self._reasons: list[str] = []
        self._raise_tokens = [None]
        self._thread: int | None = None
        self._callbacks: list[Callable[[], None]] = []

    @property
    def requested(self) -> bool:
        """Whether the attempt is cancelled."""
        return bool(self._reasons)

    @property
    def reason(self) -> str | None:
        """Why the attempt is cancelled; None if it is not."""
        return self._reasons[0] if self._reasons else None

    def request(self, reason: str) -> None:
        """Cancel the attempt, from any thread. If it is already cancelled, the first reason is kept."""
        self._reasons.append(reason)
        self._run_callbacks()

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Sleep for `timeout` (None: without limit) or until the attempt is cancelled; return whether it is cancelled.

        In plain functions, use it instead of `time.sleep`, which a cancellation does not interrupt.
        """
        requested = threading.Event()
        self.on_request(requested.set)
        try:
            return requested.wait(None if timeout is None else timeout.total_seconds())
        finally:
            self.remove_callback(requested.set)

    def raise_if_requested(self) -> None:
        """Raise `Cancelled` if the attempt is cancelled."""
        if self._reasons:
            self.raise_if_due()
            raise Cancelled(self._reasons[0])

    def bind_thread(self) -> None:
        """Record that the handler runs in the current thread."""
        self._thread = threading.get_ident()

    def claim_raise(self) -> bool:
        """Return whether the caller must raise `Cancelled` in the handler's thread: True for the first caller only.

        `Cancelled` is raised there once, so that it does not interrupt the handler's clean-up.
        """
        try:
            self._raise_tokens.pop()
        except IndexError:
            return False
        return True

    def raise_if_due(self) -> None:
        """Raise `Cancelled` if the attempt is cancelled, but only once in the handler's thread."""
        if self._reasons and (self._thread not in {None, threading.get_ident()} or self.claim_raise()):
            raise Cancelled(self._reasons[0])

    def on_request(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, in the thread that cancels the attempt; at once if the attempt is already cancelled."""
        self._callbacks.append(callback)
        if self._reasons:
            self._run_callbacks()

    def remove_callback(self, callback: Callable[[], None]) -> None:
        """Remove a callback that was added with `on_request`, if it has not been called yet."""
        try:  # noqa: SIM105 cheaper than `suppress`, and this runs for every attempt
            self._callbacks.remove(callback)
        except ValueError:  # it has been called
            pass

    def _run_callbacks(self) -> None:
        with suppress(IndexError):
            while True:
                self._callbacks.pop()()
