"""Errors of access.

AccessError
├── RefusedError              a request was refused
│   ├── UnauthenticatedError  it has no valid token
│   └── ForbiddenError        its token lacks a scope, or is limited to other entities
├── TokenNotFoundError        there is no such token
└── TokenNameTakenError       another token has the name
"""


class AccessError(Exception):
    """A request was refused, or a token could not be changed."""


class RefusedError(AccessError):
    """A request was refused because of who sent it."""


class UnauthenticatedError(RefusedError):
    """The request has no valid token.

    Args:
        message: What is wrong, without the token.
        error: The error code of RFC 6750; None if the request has no bearer token.
    """

    def __init__(self, message: str, error: str | None) -> None:
        super().__init__(message)
        self.error = error


class ForbiddenError(RefusedError):
    """The token may not do this.

    Args:
        message: Which scope is missing, or which limit was exceeded.
        scopes: The scopes, each of which would be sufficient.
    """

    def __init__(self, message: str, scopes: tuple[str, ...]) -> None:
        super().__init__(message)
        self.scopes = scopes


class TokenNotFoundError(AccessError):
    """There is no such token."""

    def __init__(self) -> None:
        super().__init__("There is no such token")


class TokenNameTakenError(AccessError):
    """Another token that is not revoked has the name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Another token has the name {name!r}: choose another name, or revoke or rotate that token")
