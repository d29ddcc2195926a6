"""Payloads: JSON that the manager stores and returns, but does not interpret.

Commands carry payloads as JSON text. A large request is parsed in another process, and texts are what it can return
without delaying other requests.
"""

import json
from typing import TypeAlias, cast

from pydantic_core import to_json

JsonText: TypeAlias = str
"""JSON as text, as the database stores it."""


def encode(payload: object) -> JsonText:
    """Encode a payload as JSON text."""
    return to_json(payload).decode()


def encode_optional(payload: object) -> JsonText | None:
    """Encode a payload as JSON text. None stays None, for a payload that was not given."""
    return None if payload is None else encode(payload)


def canonical(value: object) -> JsonText:
    """Encode JSON, and times, with the members of objects in alphabetical order: equal values have equal texts."""
    return json.dumps(value, sort_keys=True, default=str)


def as_floats(value: object) -> object:
    """Return JSON whose numbers are all floats: a default may be 1 where a request has 1.0."""
    if isinstance(value, dict):
        return {name: as_floats(member) for name, member in cast("dict[str, object]", value).items()}
    return float(value) if isinstance(value, int) else value
