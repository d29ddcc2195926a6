"""Runs handlers that are coroutine functions, on the event loop."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from datetime import timedelta
from types import FrameType
from typing import Any

from pydantic import BaseModel
from typing_extensions import override

from jobnik_sdk.execution import outcomes
from jobnik_sdk.execution.handler import AnyHandler
from jobnik_sdk.execution.runner import Runner, RunningAttempt


class CoroutineRunner(Runner):
    """Runs each attempt in its own asyncio task. An abandoned attempt may outlive `run`."""

    def __init__(self, handler: AnyHandler, cancellation_timeout: timedelta) -> None:
        super().__init__(handler, cancellation_timeout)
        self._function: Callable[..., Awaitable[Any]] = handler.function
        self._tasks: dict[RunningAttempt, asyncio.Task[None]] = {}

    @override
    def _start(self, attempt: RunningAttempt, data: BaseModel) -> None:
        self._tasks[attempt] = attempt.loop.create_task(self._call_handler(attempt, data), context=attempt.variables)

    async def _call_handler(self, attempt: RunningAttempt, data: BaseModel) -> None:
        try:
            value = await self._function(data, attempt.context)
        except (KeyboardInterrupt, GeneratorExit):  # they stop the process or the event loop, not the handler
            raise
        except BaseException as error:  # noqa: BLE001 a handler may raise anything
            outcome = outcomes.for_exception(error, attempt.context)
        else:
            outcome = outcomes.for_result(value, self._handler.stage_type.result)
        del self._tasks[attempt]
        self._finish(attempt, outcome)

    @override
    def _interrupt(self, attempt: RunningAttempt) -> None:
        self._tasks[attempt].cancel(attempt.context.cancellation.reason)

    @override
    def _stack(self, attempt: RunningAttempt) -> str:
        frames: list[tuple[FrameType, int]] = []
        # A task only has its outermost frame. The inner ones follow from what each coroutine awaits.
        coroutine: Any = self._tasks[attempt].get_coro()
        while coroutine is not None:
            frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
            if frame is not None:
                frames.append((frame, frame.f_lineno))
            coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
        return "".join(traceback.StackSummary.extract(iter(frames)).format())
