"""Handlers that are coroutine functions, on the event loop."""

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
from jobnik_sdk.execution.runner import Attempt, Runner


class CoroutineRunner(Runner):
    """Runs each attempt in an asyncio task of its own, which outlives `run` if the handler ignores its cancellation."""

    def __init__(self, handler: AnyHandler, grace: timedelta) -> None:
        super().__init__(handler, grace)
        self._function: Callable[..., Awaitable[Any]] = handler.function
        self._tasks: dict[Attempt, asyncio.Task[None]] = {}

    @override
    def _start(self, attempt: Attempt, data: BaseModel) -> None:
        self._tasks[attempt] = attempt.loop.create_task(self._work(attempt, data), context=attempt.around)

    async def _work(self, attempt: Attempt, data: BaseModel) -> None:
        try:
            value = await self._function(data, attempt.context)
        except (KeyboardInterrupt, GeneratorExit):  # not the handler's: the whole process or event loop is to end
            raise
        except BaseException as error:  # noqa: BLE001 a handler may raise anything
            outcome = outcomes.of_error(error, attempt.context)
        else:
            outcome = outcomes.of_value(value, self._handler.stage_type.result)
        del self._tasks[attempt]
        self._end(attempt, outcome)

    @override
    def _interrupt(self, attempt: Attempt) -> None:
        self._tasks[attempt].cancel(attempt.context.cancellation.reason)

    @override
    def _stack(self, attempt: Attempt) -> str:
        frames: list[tuple[FrameType, int]] = []
        # A task knows its outermost frame alone; the others are where each coroutine awaits the next.
        waiting: Any = self._tasks[attempt].get_coro()
        while waiting is not None:
            frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
            if frame is not None:
                frames.append((frame, frame.f_lineno))
            waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
        return "".join(traceback.StackSummary.extract(iter(frames)).format())
