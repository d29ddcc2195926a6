"""Creates, lists, rotates and revokes tokens. Used by the command line and by the API."""

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Final, NamedTuple
from uuid import UUID

from reference_manager.access.errors import TokenNameTakenError, TokenNotFoundError
from reference_manager.access.principals import Scope
from reference_manager.access.secrets import digest, generate_secret
from reference_manager.store.pool import Database, sql

MAX_NAME: Final = 100
"""Characters."""
NAME: Final = rf"[!-~]([ -~]{{0,{MAX_NAME - 2}}}[!-~])?"
MAX_LIMITS: Final = 100
"""Stage types or job names of one token."""
MAX_LIMITED_NAME: Final = 50
"""Characters of a stage type or a job name, as in the protocol."""
MAX_LIFETIME: Final = timedelta(days=3650)
MAX_OVERLAP: Final = timedelta(days=30)


class NewToken(NamedTuple):
    """A token to create."""

    name: str
    scopes: frozenset[Scope]
    stage_types: Sequence[str] | None = None
    """The stage types that a worker is limited to."""
    job_names: Sequence[str] | None = None
    """The job names that a producer is limited to."""
    lifetime: timedelta | None = None
    """How long the token is valid. None: until it is revoked."""

    def check(self) -> None:
        """Check that the parts fit together.

        Raises:
            ValueError: They do not; the message says why.
        """
        if not re.fullmatch(NAME, self.name):
            raise ValueError(
                f"the name must have 1 to {MAX_NAME} printable ASCII characters, without spaces around them"
            )
        for kind, names, scope in (
            ("stage types", self.stage_types, Scope.WORKER),
            ("job names", self.job_names, Scope.PRODUCER),
        ):
            if names is None:
                continue
            if not 1 <= len(names) <= MAX_LIMITS or not all(1 <= len(name) <= MAX_LIMITED_NAME for name in names):
                raise ValueError(f"{kind} must be 1 to {MAX_LIMITS} names of 1 to {MAX_LIMITED_NAME} characters")
            if Scope.ADMIN in self.scopes:
                raise ValueError("a token with the scope admin cannot be limited")
            if scope not in self.scopes:
                raise ValueError(f"{kind} limit the scope {scope}, which this token does not have")


class Issued(NamedTuple):
    """A token and its secret, which is shown only once."""

    secret: str
    token: str
    """The token as JSON, without the secret."""


class TokenPage(NamedTuple):
    """A part of the list of tokens."""

    tokens: list[str]
    """As JSON."""
    last: UUID | None
    """The id of the last one if more tokens follow."""


class Tokens:
    """The tokens in the database.

    Args:
        database: A migrated database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, new: NewToken, created_by: str) -> Issued:
        """Create a token.

        Args:
            new: The token.
            created_by: Who creates it: the name of another token, or how.

        Raises:
            TokenNameTakenError: Another token has the name.
        """
        secret = generate_secret()
        async with self._database.connection() as connection:
            token = await sql.token_create(
                connection,
                name=new.name,
                scopes=sorted(new.scopes),
                stage_types=new.stage_types,
                job_names=new.job_names,
                lifetime=new.lifetime,
                creator=created_by,
                digest=digest(secret.encode()),
            )
        if token is None:
            raise TokenNameTakenError(new.name)
        return Issued(secret, token)

    async def ensure_admin(self, secret: str, created_by: str) -> str:
        """Create an admin token for a given secret, unless there is or was one. Return the token as JSON."""
        hashed = digest(secret.encode())
        async with self._database.connection() as connection:
            return await sql.token_ensure(
                connection,
                name=f"admin-{hashed.hex()[:8]}",
                scopes=[Scope.ADMIN],
                creator=created_by,
                digest=hashed,
            )

    async def get(self, token_id: UUID) -> str:
        """Return a token as JSON. Raises TokenNotFoundError."""
        async with self._database.connection() as connection:
            return _found(await sql.token_get(connection, id=token_id))

    async def find(self, name_or_id: str) -> UUID:
        """Return the id of a token, given its id or the name of one that is not revoked. Raises TokenNotFoundError."""
        async with self._database.connection() as connection:
            found: UUID | None = await sql.token_find(connection, name=name_or_id)
        if found is not None:
            return found
        try:
            return UUID(name_or_id)
        except ValueError:
            raise TokenNotFoundError from None

    async def list(self, after: UUID | None, limit: int, *, descending: bool = False) -> TokenPage:
        """Return a page of the tokens, including revoked ones, oldest first."""
        async with self._database.connection() as connection:
            rows = [
                row async for row in sql.token_list(connection, after_id=after, descending=descending, limit=limit + 1)
            ]
        tokens: list[str] = [row["body"] for row in rows[:limit]]
        return TokenPage(tokens, rows[limit - 1]["id"] if len(rows) > limit else None)

    async def rotate(self, token_id: UUID, overlap: timedelta) -> Issued:
        """Give a token another secret. A token with an expiry gets its whole lifetime again.

        Args:
            token_id: The token.
            overlap: How long the previous secret stays valid.

        Raises:
            TokenNotFoundError: The token is unknown or revoked.
        """
        secret = generate_secret()
        async with self._database.connection() as connection:
            token = await sql.token_rotate(connection, id=token_id, overlap=overlap, digest=digest(secret.encode()))
        return Issued(secret, _found(token))

    async def revoke(self, token_id: UUID) -> str:
        """Revoke a token at once. Idempotent. Returns the token as JSON. Raises TokenNotFoundError."""
        async with self._database.connection() as connection:
            return _found(await sql.token_revoke(connection, id=token_id))


def _found(token: str | None) -> str:
    if token is None:
        raise TokenNotFoundError
    return token
