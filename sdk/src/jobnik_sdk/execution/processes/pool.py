"""Runs handlers that are plain functions in processes: if one dies, no other attempt is affected."""

import asyncio
import pickle
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Final

from pydantic import BaseModel
from typing_extensions import override

from jobnik_sdk.execution import outcomes
from jobnik_sdk.execution.handler import AnyHandler
from jobnik_sdk.execution.lifespans import CLOSE_TIMEOUT
from jobnik_sdk.execution.outcomes import Failed, Outcome
from jobnik_sdk.execution.processes.child import Setup
from jobnik_sdk.execution.processes.fork_client import ForkServer
from jobnik_sdk.execution.processes.messages import AttemptEnded, Interrupted, Message, StartFailed, StateUpdate
from jobnik_sdk.execution.processes.process import HandlerProcess
from jobnik_sdk.execution.processes.start_conditions import StartConditions
from jobnik_sdk.execution.progress import ProgressUpdate
from jobnik_sdk.execution.runner import Runner, RunningAttempt
from jobnik_sdk.observability import metrics
from jobnik_sdk.observability.logging import RuntimeLogger, configured_level

_DEATH_ADVICE: Final = (
    "after SIGKILL, check whether the system was out of memory: lower the handler's concurrency, or set memory_limit"
)
_KILL_TIMEOUT: Final = timedelta(seconds=1)
"""How long to wait for processes that have been killed: one that is blocked in the kernel may take forever."""
_log: Final = RuntimeLogger(__name__)


class ProcessRunner(Runner):
    """Runs each attempt in a process. Processes are started on demand, and reused."""

    _starts_timeout_immediately = False  # the start of a process does not count towards the time limit

    def __init__(self, handler: AnyHandler, cancellation_timeout: timedelta) -> None:
        super().__init__(handler, cancellation_timeout)
        self._setup = Setup(
            f"jobnik {handler.stage_type.name}",
            pickle.dumps((handler.function, handler.stage_type.result, handler.lifespan)),
            0,
            configured_level(),
            handler.recycle_after,
            handler.memory_limit,
        )
        # Created before the first process ends, so that rates start from zero.
        self._ended = {
            reason: metrics.PROCESSES_ENDED.labels(metrics.stage_label(handler.stage_type.name), reason)
            for reason in ("replaced", "killed", "died")
        }
        self._idle: list[HandlerProcess] = []
        self._processes: set[HandlerProcess] = set()
        self._process_by_attempt: dict[RunningAttempt, HandlerProcess] = {}
        self._waiting: dict[RunningAttempt, bytes] = {}
        """The attempts that wait until a process has exited, with their pickled tasks."""
        self._fork_server: ForkServer | None = None

    @override
    async def open(self) -> None:
        await super().open()
        self._prepare()

    def _prepare(self) -> ForkServer:
        """Record under which conditions processes start; the first time counts."""
        if self._fork_server is None:
            self._fork_server = ForkServer.shared(StartConditions.current())
        return self._fork_server

    @override
    def _start(self, attempt: RunningAttempt, data: BaseModel) -> None:
        self._assign(attempt, pickle.dumps((data, attempt.context)))

    def _assign(self, attempt: RunningAttempt, task: bytes, *, forked: bool = True) -> None:
        process = self._take_idle()
        if process is None:
            index = self._free_index()
            if index is None:
                self._waiting[attempt] = task
                return
            process = self._spawn(index, forked=forked)
        self._process_by_attempt[attempt] = process
        process.assign(attempt, task)

    @override
    def _interrupt(self, attempt: RunningAttempt) -> None:
        if self._waiting.pop(attempt, None) is not None:
            self._finish(attempt, outcomes.for_cancellation(attempt.context, ""))
            return
        process = self._process_by_attempt[attempt]
        if process.withdraw():
            self._complete(process, outcomes.for_cancellation(attempt.context, ""))
        else:
            process.interrupt(attempt.context.cancellation.reason or "")

    @override
    def _stack(self, attempt: RunningAttempt) -> str:
        return self._process_by_attempt[attempt].stack

    @override
    def _kill(self, attempt: RunningAttempt) -> None:
        self._ended["killed"].inc()
        self._process_by_attempt[attempt].kill()

    @override
    async def _close(self) -> None:
        for process in self._processes:
            if process.ready:
                process.shut_down()
            else:
                process.kill()  # it has nothing to close yet, and its lifespan may take long to open
        if not await self._wait_for_exits(CLOSE_TIMEOUT) and self._handler.lifespan is not None:
            _log.warning("lifespan did not close in time, abandoned", stage_type=self._handler.stage_type.name)
        self._kill_all()
        await self._wait_for_exits(_KILL_TIMEOUT)
        if self._fork_server is not None:
            released, self._fork_server = self._fork_server, None  # the runner may be opened again
            await released.release()

    async def _wait_for_exits(self, limit: timedelta) -> bool:
        """Wait until all processes have exited; return False if they take longer than this."""
        try:
            async with asyncio.timeout(limit.total_seconds()):
                for process in list(self._processes):
                    await process.exited.wait()
        except TimeoutError:
            return False
        return True

    def _take_idle(self) -> HandlerProcess | None:
        while self._idle:
            process = self._idle.pop()
            if process.is_alive and not process.exiting:  # the event loop may not have noticed an exit yet
                return process
        return None

    def _free_index(self) -> int | None:
        """Return the lowest number that no process has; None if all are taken by processes that still have to exit.

        Only a lifespan makes it necessary to wait for their exit: what the old process holds, such as the memory of a
        GPU, is not free before.
        """
        waits = self._handler.lifespan is not None
        used = {process.index for process in self._processes if process.is_alive and (waits or not process.exiting)}
        free = next(index for index in count() if index not in used)
        return None if waits and free >= self._handler.concurrency else free

    def _spawn(self, index: int, *, forked: bool) -> HandlerProcess:
        process = HandlerProcess(
            replace(self._setup, index=index),
            self._prepare(),
            self._on_message,
            self._on_exit,
            forked=forked,
        )
        self._processes.add(process)
        return process

    def _on_message(self, process: HandlerProcess, message: Message) -> None:
        attempt = process.attempt
        match message:
            case AttemptEnded():
                if message.exit_reason is not None:
                    process.shut_down()
                    asyncio.get_running_loop().call_later(self._cancellation_seconds, process.kill)
                self._complete(process, message.outcome)
                if message.exit_reason is not None:
                    self._ended["replaced"].inc()
                    _log.info("handler process replaced", pid=process.pid, reason=message.exit_reason)
            case StartFailed():
                process.shut_down()
                self._complete(process, message.failure)
            case StateUpdate(number, update) if attempt is not None and number == process.task_number:
                if isinstance(update, ProgressUpdate):
                    attempt.context.state.record_progress(update)
                else:
                    attempt.context.state.record_checkpoint(update)
            case Interrupted(number, stack) if number == process.task_number:
                process.stack = stack
            case _:  # it concerns a previous task
                pass

    def _complete(self, process: HandlerProcess, outcome: Outcome) -> None:
        attempt, process.attempt = process.attempt, None
        if not process.exiting:
            self._idle.append(process)
        if attempt is not None:
            del self._process_by_attempt[attempt]
            self._finish(attempt, outcome)

    def _on_exit(self, process: HandlerProcess, exit_status: str) -> None:
        self._processes.discard(process)
        if process in self._idle:
            self._idle.remove(process)
        attempt, died, was_idle = process.attempt, not process.exiting and process.started, process.idle
        process.exiting = True
        if attempt is None:
            pass
        elif attempt.context.cancellation.requested:
            self._complete(process, outcomes.for_cancellation(attempt.context, process.stack))
        elif was_idle or not process.started:
            self._reassign(attempt, process.task, forked=process.started)
        else:
            when = "while it ran the task" if process.ready else "before it received the task"
            message = f"The process of the handler died {when}: {exit_status}."
            self._complete(process, Failed("ProcessDiedError", message, ""))
        if self._waiting:
            waiting = next(iter(self._waiting))
            self._assign_or_finish(waiting, self._waiting.pop(waiting))
        if died:
            self._ended["died"].inc()
            details = {"pid": process.pid, "exit_status": exit_status, "advice": _DEATH_ADVICE}
            if was_idle:
                _log.warning("idle handler process died", **details)
            else:
                _log.warning("handler process died", **details)

    def _reassign(self, attempt: RunningAttempt, task: bytes, *, forked: bool) -> None:
        del self._process_by_attempt[attempt]
        self._assign_or_finish(attempt, task, forked=forked)

    def _assign_or_finish(self, attempt: RunningAttempt, task: bytes, *, forked: bool = True) -> None:
        try:
            self._assign(attempt, task, forked=forked)
        except OSError as error:  # the system allows no more processes
            self._finish(attempt, outcomes.for_exception(error, attempt.context))

    def _kill_all(self) -> None:
        for process in self._processes:
            process.kill()
