"""Handlers that are plain functions, in processes of their own: one that dies takes no other task along."""

import asyncio
import atexit
import ctypes
import multiprocessing
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess
from typing import Any, Final

import structlog
from pydantic import BaseModel
from typing_extensions import override

from jobnik_sdk.execution import outcomes
from jobnik_sdk.execution.handler import AnyHandler
from jobnik_sdk.execution.outcomes import Failed, Outcome
from jobnik_sdk.execution.processes import child
from jobnik_sdk.execution.processes.messages import Ended, Inbox, Interrupted, Message, Noted, Ready, Unloadable, framed
from jobnik_sdk.execution.progress import Checkpoint, Progress
from jobnik_sdk.execution.runner import Attempt, Runner
from jobnik_sdk.observability.logging import configured_level

_PIECE: Final = 262_144
_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


class ProcessRunner(Runner):
    """Runs each attempt in a process; processes are spawned when first needed and used again."""

    _begins_at_once = False  # a process that has yet to start takes no time of its task's

    def __init__(self, handler: AnyHandler, grace: timedelta) -> None:
        super().__init__(handler, grace)
        self._setup = child.Setup(
            pickle.dumps((handler.function, handler.stage_type.result)),
            configured_level(),
            handler.recycle_after,
            handler.memory_limit,
        )
        self._idle: list[_Process] = []
        self._processes: set[_Process] = set()
        self._at_work: dict[Attempt, _Process] = {}
        atexit.register(self._kill_all)  # else the interpreter would wait for them, should nobody close this

    @override
    def _start(self, attempt: Attempt, data: BaseModel) -> None:
        self._give(attempt, pickle.dumps((data, attempt.context)))

    def _give(self, attempt: Attempt, order: bytes) -> None:
        process = self._take_idle() or self._spawn()
        self._at_work[attempt] = process
        process.give(attempt, order)

    @override
    def _interrupt(self, attempt: Attempt) -> None:
        process = self._at_work[attempt]
        if process.take_back():
            self._finish(process, outcomes.interrupted(attempt.context, ""))
        else:
            process.interrupt(attempt.context.cancellation.reason or "")

    @override
    def _stack(self, attempt: Attempt) -> str:
        return self._at_work[attempt].stack

    @override
    def _abandon(self, attempt: Attempt) -> None:
        self._at_work[attempt].kill()

    @override
    async def _give_back(self) -> None:
        for process in self._processes:
            process.let_end()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._grace):
                for process in list(self._processes):
                    await process.gone.wait()
        self._kill_all()
        for process in list(self._processes):
            await process.gone.wait()
        atexit.unregister(self._kill_all)

    def _take_idle(self) -> "_Process | None":
        while self._idle:
            process = self._idle.pop()
            if process.is_alive and not process.exiting:  # the loop may not have heard yet
                return process
        return None

    def _spawn(self) -> "_Process":
        process = _Process(f"jobnik {self._handler.stage_type.name}", self._setup, self._heard, self._lost)
        self._processes.add(process)
        return process

    def _heard(self, process: "_Process", message: Message) -> None:
        attempt = process.attempt
        match message:
            case Ended():
                if message.leaving is not None:
                    _log.info("process is replaced", pid=process.pid, reason=message.leaving)
                    process.let_end()
                    asyncio.get_running_loop().call_later(self._grace, process.kill)
                self._finish(process, message.outcome)
            case Unloadable():
                process.let_end()
                self._finish(process, message.failure)
            case Noted(number, Progress() as progress) if attempt is not None and number == process.number:
                attempt.context.notes.record_progress(progress)
            case Noted(number, Checkpoint() as checkpoint) if attempt is not None and number == process.number:
                attempt.context.notes.record_checkpoint(checkpoint)
            case Interrupted(number, stack) if number == process.number:
                process.stack = stack
            case _:  # about a task before
                pass

    def _finish(self, process: "_Process", outcome: Outcome) -> None:
        attempt, process.attempt = process.attempt, None
        if not process.exiting:
            self._idle.append(process)
        if attempt is not None:
            del self._at_work[attempt]
            self._end(attempt, outcome)

    def _lost(self, process: "_Process", how: str) -> None:
        self._processes.discard(process)
        if process in self._idle:
            self._idle.remove(process)
        attempt = process.attempt
        if not process.exiting and process.idle:
            _log.warning("idle process died", pid=process.pid, how=how)
        process.exiting = True
        if attempt is None:
            return
        if attempt.context.cancellation.requested:
            self._finish(process, outcomes.interrupted(attempt.context, process.stack))
        elif process.idle:
            self._give_to_another(attempt, process.order)
        else:
            where = "in the middle of the task" if process.ready else "before it could take the task"
            self._finish(process, Failed("ProcessDiedError", f"The handler's process died {where}: {how}.", ""))

    def _give_to_another(self, attempt: Attempt, order: bytes) -> None:
        del self._at_work[attempt]
        try:
            self._give(attempt, order)
        except OSError as error:  # there may be no more processes
            self._end(attempt, outcomes.of_error(error, attempt.context))

    def _kill_all(self) -> None:
        for process in self._processes:
            process.kill()


class _Process:
    """A handler's process, seen from the event loop of its worker.

    `heard` is called with each message from it, `lost` once, when it has ended, with how.
    """

    def __init__(
        self,
        name: str,
        setup: child.Setup,
        heard: "Callable[[_Process, Message], None]",
        lost: "Callable[[_Process, str], None]",
    ) -> None:
        self.attempt: Attempt | None = None
        self.ready = False
        self.exiting = False
        self.gone = asyncio.Event()
        self.stack = ""
        self.order = b""
        self._heard = heard
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox()
        self._unsent = b""
        self.number = 0
        self._sent = True
        # Spawned, not forked: a fork would copy the event loop's threads and locks in whatever state they are.
        spawning = multiprocessing.get_context("spawn")
        # Memory that outlives it: it may have died before it took what was sent, which then is for another.
        self._begun = spawning.RawValue(ctypes.c_ulonglong, 0)
        self._stream, its_stream = socket.socketpair()
        its_control, self._control = spawning.Pipe(duplex=False)
        self._stream.settimeout(0)
        self._process = spawning.Process(
            target=child.main, args=(its_stream, its_control, self._begun, setup), name=name
        )
        with its_stream, its_control, _signals_held_back():
            self._process.start()
        self.pid = self._process.pid or 0
        # That it has ended shows here alone: its end of the stream may be held open by what it forked.
        self._life = _open_life(self._process)
        self._loop.add_reader(self._stream, self._read)
        self._loop.add_reader(self._life, self._end)

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return not self.gone.is_set() and self._process.is_alive()

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do, or has not taken it yet."""
        return self.ready and (self.attempt is None or self._begun.value < self.number)

    def give(self, attempt: Attempt, order: bytes) -> None:
        """Let it work on this next: at once, or as soon as it is ready."""
        self.attempt = attempt
        self.stack = ""
        self.order = order
        self._sent = False
        if self.ready:
            self._send()

    def take_back(self) -> bool:
        """Return whether it has not been sent its order yet; then it never will be."""
        unsent, self._sent = not self._sent, True
        return unsent

    def interrupt(self, reason: str) -> None:
        """Raise `Cancelled` in the handler."""
        with suppress(OSError):  # it has just died
            self._control.send((self.number, reason))

    def let_end(self) -> None:
        """Let it end by itself: there will be nothing more to do."""
        self.exiting = True
        with suppress(OSError):  # it has just died
            self._stream.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """End it, and what it has started, at once."""
        self.exiting = True
        if not self.gone.is_set():
            self._kill_group()

    def _send(self) -> None:
        self._sent = True
        self.number += 1
        if self.attempt is not None:
            self.attempt.begin()
        self._unsent = framed(self.order)
        self._write()

    def _write(self) -> None:
        try:
            sent = self._stream.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:  # it has just died, which is heard by reading
            sent = len(self._unsent)
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._loop.add_writer(self._stream, self._write)
        else:
            self._loop.remove_writer(self._stream)

    def _read(self) -> bool:
        """Hear what has arrived; return whether there may be more."""
        try:
            piece = self._stream.recv(_PIECE)
        except BlockingIOError:
            return False
        except OSError:  # it died before it read all that was sent
            piece = b""
        if not piece:
            self._loop.remove_reader(self._stream)
            self._kill_group()  # it has ended, or it only closed the stream: then it is of no use
            return False
        for message in self._inbox.take(piece):
            if isinstance(message, Ready):
                self._become_ready()
            else:
                self._heard(self, message)
        return True

    def _become_ready(self) -> None:
        self.ready = True
        if not self._sent:
            self._send()

    def _kill_group(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:  # it is so young that it has no group of its own yet
            self._process.kill()

    def _end(self) -> None:
        while self._read():  # its last words
            pass
        self._kill_group()  # what it has started, and left
        self._loop.remove_reader(self._life)
        self._loop.remove_reader(self._stream)
        self._loop.remove_writer(self._stream)
        os.close(self._life)
        self._process.join()
        how = _in_words(self._process.exitcode)
        self._process.close()
        self._stream.close()
        self._control.close()
        self.gone.set()
        self._lost(self, how)


def _open_life(process: SpawnProcess) -> int:
    """Return a file descriptor that is readable once a process has ended."""
    if sys.platform == "linux":
        return os.pidfd_open(process.pid or 0)
    # Elsewhere it is a pipe, which those that the process forks hold open as well.
    return os.dup(process.sentinel)


@contextmanager
def _signals_held_back() -> Generator[None]:
    """Start a process within a `with` block that no Ctrl-C ends before it is set up: it inherits what is held back."""
    resource_tracker.ensure_running()  # it would let them through again when it is started with the first process
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_words(exit_code: Any) -> str:  # noqa: ANN401 multiprocessing says int or None
    if isinstance(exit_code, int) and exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"
