"""Finds out who sent a request, before anything else looks at it."""

import re
from collections.abc import Iterable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from reference_manager.access.errors import UnauthenticatedError
from reference_manager.access.principals import ANONYMOUS, Principal
from reference_manager.access.secrets import LENGTH, digest, is_secret
from reference_manager.api.common.access import PRINCIPAL, Gate, record_refusal
from reference_manager.api.common.errors import DATABASE_UNAVAILABLE, RETRY_AFTER, error_response, problem
from reference_manager.engine.errors import DatabaseError

_BEARER: Final = b"bearer "
_SECRET: Final = re.compile(rb"(?i:bearer) +([!-~]+)")

_MISSING: Final = "This request needs a token: send the header Authorization: Bearer jobnik_…"
_REPEATED: Final = "The request has more than one Authorization header"
_MALFORMED: Final = "This is not a token of Jobnik: it was cut off, or it belongs to another system"
_UNKNOWN: Final = "The token is unknown, or it was revoked"
_EXPIRED: Final = "The token has expired"


class Authenticator:
    """ASGI middleware: requests need a valid token, unless no token was ever created or the path needs none.

    Nothing else is revealed without a token: the response is the same for every path and method. The body is not read.

    Args:
        app: The application behind.
        gate: The tokens, and the record of refusals.
        open_paths: Paths that need no token.
        open_folders: Beginnings of such paths.
    """

    def __init__(self, app: ASGIApp, gate: Gate, open_paths: Iterable[str], open_folders: Iterable[str]) -> None:
        self._app = app
        self._registry = gate.registry
        self._audit = gate.audit
        self._open_paths = frozenset(path.encode() for path in open_paths)
        self._open_folders = tuple(path.encode() for path in open_folders)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        registry = self._registry
        principal = self._known(scope) if registry.closed else registry.everyone
        if principal is None:
            try:
                principal = ANONYMOUS if self._is_open(scope["raw_path"]) else await self._authenticate(scope)
            except UnauthenticatedError as error:
                record_refusal(self._audit, scope, error)
                await error_response(error)(scope, receive, send)
                return
            except DatabaseError:  # the registry has logged it: strangers must not fill the log
                await problem(DATABASE_UNAVAILABLE, RETRY_AFTER)(scope, receive, send)
                return
        scope[PRINCIPAL] = principal
        await self._app(scope, receive, send)

    def _known(self, scope: Scope) -> Principal | None:
        """Return the sender of an ordinary request with a known token."""
        given: bytes | None = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                if given is not None:
                    return None
                given = value
        if given is None or given[:7].lower() != _BEARER or len(given) != LENGTH + 7:
            return None
        return self._registry.find(digest(given[7:]))

    def _is_open(self, path: bytes) -> bool:
        return path in self._open_paths or (
            path.startswith(self._open_folders) and b".." not in path and b"%" not in path
        )

    async def _authenticate(self, scope: Scope) -> Principal:
        """Return the sender of a request whose token is not known yet, or in an unusual header.

        Raises:
            UnauthenticatedError: The request has no valid token.
            DatabaseError: The token is unknown, and the database is away.
        """
        # The parser leaves spaces at the end of a value.
        headers = [value.strip(b" \t") for name, value in scope["headers"] if name == b"authorization"]
        if len(headers) > 1:
            raise UnauthenticatedError(_REPEATED, "invalid_request")
        if not headers or headers[0][:7].lower() != _BEARER:
            raise UnauthenticatedError(_MISSING, None)
        found = _SECRET.fullmatch(headers[0])
        if found is None or not is_secret(found[1].decode("latin-1")):
            raise UnauthenticatedError(_MALFORMED, "invalid_token")
        hashed = digest(found[1])
        principal = self._registry.find(hashed)
        if principal is None and not self._registry.is_known(hashed):
            principal = await self._registry.find_unknown(hashed)
        if principal is None:
            raise UnauthenticatedError(_EXPIRED if self._registry.is_known(hashed) else _UNKNOWN, "invalid_token")
        return principal
