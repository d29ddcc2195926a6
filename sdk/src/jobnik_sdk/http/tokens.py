"""The token of a client: a text, or a file that is read again when it changes."""

import os
import re
from collections.abc import Generator
from pathlib import Path
from typing import Final, TypeAlias

import httpx2
from typing_extensions import override

from jobnik_sdk.errors import ConfigurationError
from jobnik_sdk.http.addresses import ADDRESS_VARIABLE

TOKEN_VARIABLE: Final = "JOBNIK_TOKEN"  # noqa: S105 the name of a variable
"""The environment variable with the token."""
TOKEN_FILE_VARIABLE: Final = "JOBNIK_TOKEN_FILE"  # noqa: S105 the name of a variable
"""The environment variable with the path of a file that contains the token."""

_TOKEN: Final = re.compile(r"[!-~]+")

GivenToken: TypeAlias = str | Path
"""A token, or the file that contains it."""


class TokenAuth(httpx2.Auth):
    """Sends a token with each request to one address, and to no other one.

    A file is read again when it has changed, also if a symbolic link to it has, which is how Kubernetes replaces
    mounted secrets. While it is missing or invalid, the last token stays in use.

    Args:
        url: The manager's address.
        given: The token, or its file.

    Raises:
        ConfigurationError: the token is invalid, or the file cannot be read.
    """

    def __init__(self, url: str, given: GivenToken) -> None:
        self.given: Final = given
        self._origin = _origin(httpx2.URL(url))
        self._version: object = None
        self._token = check_token("The token", given) if isinstance(given, str) else self._read(given)

    def __repr__(self) -> str:
        """Return the representation, without the token."""
        return f"{type(self).__name__}({self.given if isinstance(self.given, Path) else '***'})"

    @override
    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Add the token to a request."""
        if _origin(request.url) == self._origin:
            request.headers["Authorization"] = f"Bearer {self._current()}"
        yield request

    def _current(self) -> str:
        if isinstance(self.given, Path) and _version(self.given) != self._version:
            try:
                self._token = self._read(self.given)
            except ConfigurationError:
                self._version = None  # try again with the next request
        return self._token

    def _read(self, file: Path) -> str:
        version = _version(file)  # before the content: a change in between is then noticed
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise ConfigurationError(f"The token file {file} cannot be read: {reason}.") from None
        token = check_token(f"The token file {file}", text.strip())
        self._version = version
        return token


def check_given(token: object) -> None:
    """Check the type of the argument `token`. The message does not contain its value.

    Raises:
        TypeError: it is neither a text, nor a path, nor None.
    """
    if not isinstance(token, str | Path | None):
        raise TypeError(f"token must be a str or a Path, not {type(token).__name__}")


def check_token(what: str, token: str) -> str:
    """Return a token unchanged.

    Raises:
        ConfigurationError: it is empty or has characters that no token has; the message does not contain it.
    """
    if not _TOKEN.fullmatch(token):
        raise ConfigurationError(f"{what} must be one word of printable ASCII characters.")
    return token


def token_in_environment(url: str) -> GivenToken | None:
    """Return the token for a manager from the environment; None: there is none, or it is for another manager.

    Raises:
        ConfigurationError: both variables are set.
    """
    # A variable that comes from a Kubernetes Secret may end with a line break.
    token, file = (os.environ.get(name, "").strip() for name in (TOKEN_VARIABLE, TOKEN_FILE_VARIABLE))
    if not (token or file) or not _is_for(url):
        return None
    if token and file:
        raise ConfigurationError(f"{TOKEN_VARIABLE} and {TOKEN_FILE_VARIABLE} are both set: set only one of them.")
    return token or Path(file)


def _is_for(url: str) -> bool:
    """Return whether the environment names no other manager."""
    address = os.environ.get(ADDRESS_VARIABLE)
    try:
        return not address or _origin(httpx2.URL(address)) == _origin(httpx2.URL(url))
    except (httpx2.InvalidURL, ValueError):
        return False


def _origin(url: httpx2.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


def _version(file: Path) -> object:
    """Return what changes whenever the content of a file does; None if it is missing."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
