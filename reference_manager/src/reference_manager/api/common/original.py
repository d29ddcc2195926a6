"""Messages as the original manager (0.2.1) words them, for a manager that serves only part A."""

from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError

from reference_manager.api.common.errors import ErrorResponse, describe_error
from reference_manager.engine.errors import EngineError

SAME_PRIORITY_REASON = "PRIORITY_CANNOT_BE_UPDATED_TO_SAME_VALUE"
"""The header ``Reason`` of a priority that has not changed."""


def describe_as_original(error: Exception) -> ErrorResponse:
    """Return the response of the original manager to an error, as far as it is known."""
    described = describe_error(error)
    if isinstance(error, EngineError):
        return described._replace(message=described.code)
    if isinstance(error, RequestValidationError):
        # If there are several mistakes, the original reports a missing property first.
        mistakes = sorted(error.errors(), key=lambda mistake: mistake["type"] != "missing")
        return described._replace(message=_message(mistakes[0]) or described.message)
    return described


def _message(invalid: Mapping[str, Any]) -> str | None:
    match invalid["type"], [str(part) for part in invalid["loc"]]:
        case "unknown_parameter", ["query", name]:
            return f"Unknown query parameter '{name}'"
        case "missing", [*path, name] if path:
            return f"request/{'/'.join(path)} must have required property '{name}'"
        case _, ["path", name] if name.endswith("Id"):
            return f'request/params/{name} must match format "uuid"'
        case _:
            return None
