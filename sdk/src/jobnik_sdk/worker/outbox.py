"""Reports on their way to the manager, in natural batches: while one request is under way the next one gathers.

A report stays here until the manager has decided: it is accepted, or refused for good. Trouble on the way is waited out
for as long as it takes, so that a task which is done never becomes one that failed because nobody could be told.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

import structlog

from jobnik_sdk.errors import AnswerError, InvalidRequestError, PayloadTooLargeError, UnreachableError
from jobnik_sdk.handlers.endings import Failed
from jobnik_sdk.retries import INITIAL_DELAY, backoff, pause
from jobnik_sdk.worker.desk import Settlement, Verdict

BATCH: Final = 500
"""The most reports in one request, as the protocol allows."""
LONGEST_PAUSE: Final = timedelta(seconds=5)
"""Between two tries: slots wait for what is not reported, so work goes on soon after the manager is back."""
INVALID: Final = "VALIDATION_ERROR"
"""The manager's word for a report that it will never take."""

Decided = Callable[[Verdict], None]

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


class Outbox:
    """Takes reports, and delivers them.

    Args:
        send: Says some to the manager, and returns a verdict for each; it raises where they were not delivered.
    """

    def __init__(self, send: Callable[[Sequence[Settlement]], Awaitable[Sequence[Verdict]]]) -> None:
        self._send = send
        self._waiting: deque[tuple[Settlement, Decided]] = deque()
        self._runner: asyncio.Task[None] | None = None

    def put(self, settlement: Settlement, decided: Decided) -> None:
        """Take a report; `decided` is called with what the manager says of it."""
        self._waiting.append((settlement, decided))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            verdicts = await self._deliver([settlement for settlement, _ in batch])
            for (_, decided), verdict in zip(batch, verdicts, strict=True):
                decided(verdict)
        self._runner = None

    async def _deliver(self, settlements: Sequence[Settlement]) -> Sequence[Verdict]:
        """Say it until the manager decides."""
        delays = backoff(INITIAL_DELAY, LONGEST_PAUSE)
        while True:
            try:
                verdicts = await self._send(settlements)
            except (InvalidRequestError, PayloadTooLargeError) as error:
                return await self._deliver_apart(settlements, error)
            except (AnswerError, UnreachableError) as error:
                trouble = error
            except Exception as error:  # noqa: BLE001 whatever it is, the reports must not be lost
                _log.exception("reports cannot be delivered: a fault in this program")
                trouble = UnreachableError(str(error))
            else:
                if not any(verdict.code == INVALID for verdict in verdicts):
                    return verdicts
                return [
                    await self._deliver_refused(settlement, verdict.code, verdict.message)
                    if verdict.code == INVALID
                    else verdict
                    for settlement, verdict in zip(settlements, verdicts, strict=True)
                ]
            _log.warning("reports not delivered yet", reports=len(settlements), reason=str(trouble))
            await pause(trouble, "POST", next(delays))

    async def _deliver_apart(self, settlements: Sequence[Settlement], error: AnswerError) -> Sequence[Verdict]:
        """Something in it is what no manager takes, or all of it is too much: the others must not go along with it."""
        if len(settlements) > 1:
            middle = len(settlements) // 2
            return [*await self._deliver(settlements[:middle]), *await self._deliver(settlements[middle:])]
        return [await self._deliver_refused(settlements[0], type(error).__name__, str(error))]

    async def _deliver_refused(self, settlement: Settlement, code: str, why: str) -> Verdict:
        """What a task gave cannot be said, now or ever: so the attempt has failed, and that can."""
        if isinstance(settlement.ending, Failed):
            return Verdict(accepted=False, code=code, message=why)
        failed = Failed(code, f"The manager does not take the result: {why}", stack="", retryable=False)
        (verdict,) = await self._deliver([replace(settlement, ending=failed)])
        return verdict
