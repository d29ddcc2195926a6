"""One log line for each refused request, as long as they are few: a scanner must not fill the disk."""

from collections.abc import Callable
from time import monotonic
from typing import Final

import structlog
from prometheus_client import Counter

from reference_manager.access.secrets import mask_tokens

log = structlog.stdlib.get_logger(__name__)

BURST: Final = 100
"""Lines that may be written at once."""
LINES_PER_SECOND: Final = 1.0
"""Lines that may be written in the long run, about 30 MB per day."""
LONGEST_PATH: Final = 200
"""Characters of a path in a line."""


class Audit:
    """Writes the lines.

    Args:
        refusals: Counts all refusals, by status.
        clock: Seconds, for tests.
    """

    def __init__(self, refusals: Counter, clock: Callable[[], float] = monotonic) -> None:
        self._refusals = refusals
        self._clock = clock
        self._allowance = float(BURST)
        self._allowed_at = clock()
        self._skipped = 0

    def refused(self, status: int, reason: str, *, method: str, path: str, client: str, token: str) -> None:  # noqa: PLR0913 - the fields of a line
        """Record a refusal.

        Args:
            status: 400, 401 or 403.
            reason: What was wrong, without secrets.
            method: The method of the request.
            path: The path of the request.
            client: The address of the client.
            token: The name of the token; empty if it is unknown.
        """
        self._refusals.labels(str(status)).inc()
        now = self._clock()
        self._allowance = min(float(BURST), self._allowance + (now - self._allowed_at) * LINES_PER_SECOND)
        self._allowed_at = now
        if self._allowance < 1:
            self._skipped += 1
            return
        self._allowance -= 1
        skipped, self._skipped = self._skipped, 0
        more = {"lines_skipped": skipped} if skipped else {}
        path = mask_tokens(path)[:LONGEST_PATH]
        method = method[:LONGEST_PATH]
        log.warning(
            "request refused",
            status=status,
            reason=reason,
            method=method,
            path=path,
            client=client,
            token=token,
            **more,
        )
