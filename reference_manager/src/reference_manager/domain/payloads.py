"""Payloads: JSON that the manager stores and returns, but does not interpret.

Commands carry payloads as JSON text. A large request is parsed in another process, and texts are what it can return
without delaying other requests.
"""

from typing import TypeAlias

from pydantic_core import to_json

JsonText: TypeAlias = str
"""JSON as text, as the database stores it."""


def encode(payload: object) -> JsonText:
    """Encode a payload as JSON text."""
    return to_json(payload).decode()


def encode_optional(payload: object) -> JsonText | None:
    """Encode a payload as JSON text. None stays None, for a payload that was not given."""
    return None if payload is None else encode(payload)
