"""The tokens in memory, so that no request waits for the database.

They are read at the start, after each notification of a change, and when a poll of their version finds a change,
because a notification may be lost. While the database is away, the tokens that were read last stay valid.

Whether a token has expired depends on the clock of the database, which all managers share. Between two polls, its time
is extrapolated with the monotonic clock. A manager's own clock may therefore jump.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from hmac import compare_digest
from time import monotonic
from typing import Any, Final

import structlog

from reference_manager.access.principals import Principal, Scope
from reference_manager.store.errors import DatabaseError, DatabaseUnavailableError
from reference_manager.store.pool import Database, sql

log = structlog.stdlib.get_logger(__name__)

CHANNEL: Final = "jobnik_tokens"
POLL_INTERVAL: Final = 3.0
"""Seconds between two polls: how long a revoked token may still be accepted if the notification is lost."""
UNKNOWN_INTERVAL: Final = 1.0
"""Seconds between two polls for the sake of unknown tokens."""
UNKNOWN_TIMEOUT: Final = 5.0
"""Seconds that the request with an unknown token waits for the poll."""
USE_INTERVAL: Final = 60.0
"""Seconds between two records of which tokens were used."""


class Registry:
    """All tokens that are not revoked.

    Args:
        database: A migrated database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.closed = False
        """Whether requests need a token."""
        self.everyone = Principal("", frozenset({Scope.ADMIN}))
        """The sender of any request while the manager is not closed."""
        self._principals: dict[bytes, Principal] = {}
        self._version: int = -1
        self._clock_offset = 0.0
        """The time of the database minus that of the monotonic clock, in seconds."""
        self._failed = False
        """Whether the last poll failed."""
        self._waiting: list[asyncio.Future[None]] = []
        self._asked = asyncio.Event()
        self._notified = asyncio.Event()

    def find(self, digest: bytes) -> Principal | None:
        """Return the sender with this digest, if the token is known and has not expired."""
        principal = self._principals.get(digest)
        if principal is None or not compare_digest(principal.digest, digest) or self._is_expired(principal):
            return None
        principal.used = True
        return principal

    async def find_unknown(self, digest: bytes) -> Principal | None:
        """Do the same as ``find``, after the next poll: another manager may just have created the token.

        Raises:
            DatabaseUnavailableError: The poll failed or took too long.
        """
        polled = asyncio.get_running_loop().create_future()
        self._waiting.append(polled)
        self._asked.set()
        try:
            async with asyncio.timeout(UNKNOWN_TIMEOUT):
                await polled
        except TimeoutError:
            raise DatabaseUnavailableError("the tokens were not read in time") from None
        if self._failed:
            raise DatabaseUnavailableError("an unknown token cannot be checked")
        return self.find(digest)

    def is_known(self, digest: bytes) -> bool:
        """Return whether a token is known. It may have expired."""
        return digest in self._principals

    def has_admin(self) -> bool:
        """Return whether there is a valid token with the scope admin."""
        return any(
            Scope.ADMIN in principal.scopes and not self._is_expired(principal)
            for principal in self._principals.values()
        )

    def notify(self, *_notification: object) -> None:
        """Read the tokens soon, because one has changed."""
        self._notified.set()
        self._asked.set()

    async def load(self) -> None:
        """Read the tokens, if they have changed.

        Raises:
            DatabaseError: The database failed.
        """
        async with self._database.connection(for_workers=True) as connection:
            state = await sql.token_state(connection)
            version: int = state["version"]
            self._clock_offset = state["moment"] - monotonic()
            if version != self._version:
                self._replace([row async for row in sql.token_load(connection)])
                self._version, self.closed = version, state["closed"]
        self.everyone.ended = self.closed
        for principal in self._principals.values():
            principal.ended = self._is_expired(principal)

    async def run(self, progress: Callable[[], None]) -> None:
        """Keep the tokens up to date until cancelled."""
        recorded_at = monotonic()
        while True:
            started = monotonic()
            waiting, self._waiting = self._waiting, []
            try:
                await self.load()
                self._failed = False
            except DatabaseError as error:
                if not self._failed:
                    log.warning("tokens not read; the manager uses the last known ones", error=str(error))
                self._failed = True
            finally:
                for polled in waiting:
                    if not polled.done():
                        polled.set_result(None)
            if not self._failed and started - recorded_at > USE_INTERVAL:
                recorded_at = started
                with suppress(DatabaseError):  # only this minute is missing
                    await self._record_use()
            progress()
            await self._pause(started)

    async def _pause(self, started: float) -> None:
        """Wait for a notification, for an unknown token, or until the next poll."""
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_INTERVAL):
                await self._asked.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, started + UNKNOWN_INTERVAL - monotonic())):
                await self._notified.wait()
        self._asked.clear()
        self._notified.clear()

    def _replace(self, rows: list[Any]) -> None:
        """Replace the tokens. A token that stays keeps its object, because a waiting claim refers to it."""
        previous, self._principals = self._principals, _principals(rows)
        for digest, old in previous.items():
            if new := self._principals.get(digest):
                old.expires_at = new.expires_at  # a rotation changes nothing else
                self._principals[digest] = old
            else:
                old.ended = True

    async def _record_use(self) -> None:
        used = [principal for principal in self._principals.values() if principal.used]
        for principal in used:
            principal.used = False
        if ids := list({principal.token_id for principal in used}):
            async with self._database.connection() as connection:
                await sql.token_touch(connection, ids=ids)

    def _is_expired(self, principal: Principal) -> bool:
        return principal.expires_at is not None and monotonic() + self._clock_offset >= principal.expires_at


def _principals(rows: list[Any]) -> dict[bytes, Principal]:
    principals: dict[bytes, Principal] = {}
    for row in rows:
        for digest, expires_at in (
            (row["digest"], row["expires_at"]),
            (row["previous_digest"], row["previous_expires_at"]),
        ):
            if digest is not None:
                principals[digest] = Principal(
                    row["name"],
                    frozenset(scope for scope in Scope if scope in row["scopes"]),
                    None if row["stage_types"] is None else frozenset(row["stage_types"]),
                    None if row["job_names"] is None else frozenset(row["job_names"]),
                    row["id"],
                    digest,
                    expires_at,
                )
    return principals
