"""Request headers: the trace context (W3C), the preference for a minimal response (RFC 7240), and idempotency keys."""

import re
from typing import Any

from fastapi.exceptions import RequestValidationError
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.requests import Request

from reference_manager.api.common.fields import MAX_TRACESTATE_LENGTH, TRACEPARENT
from reference_manager.api.common.protocol import PART_B
from reference_manager.domain.commands import NO_TRACE, Trace

MINIMAL = "return=minimal"
IDEMPOTENCY_KEY = "Idempotency-Key"
"""A header of the IETF draft "The Idempotency-Key HTTP Header Field"."""
_KEY = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?")
_PROPAGATOR = TraceContextTextMapPropagator()

_KEYED: dict[str, Any] = {
    "name": IDEMPOTENCY_KEY,
    "in": "header",
    "required": False,
    "schema": {"type": "string", "pattern": f"^{_KEY.pattern}$", **PART_B},
    "description": "Makes the request safe to repeat. A request with the key of an earlier one creates nothing and "
    "gets the same response; it waits while the earlier one is in progress. The body must be the same, apart from "
    "trace contexts. Keys are kept for 24 hours.",
}
_TRACED = [
    {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": description}
    for name, description in (
        ("traceparent", "The W3C trace context of the created entities; a malformed value is ignored."),
        (
            "tracestate",
            f"Belongs to traceparent; ignored if longer than {MAX_TRACESTATE_LENGTH} characters or not ASCII.",
        ),
    )
]
CREATION: dict[str, Any] = {"parameters": [_KEYED, *_TRACED]}
"""The ``openapi_extra`` of a route that calls ``request_trace`` and ``idempotency_key``. They are faster than FastAPI's
header parameters."""


def prefer_parameter(minimal: str) -> dict[str, Any]:
    """Describe the ``Prefer`` header of a route that calls ``prefers_minimal``.

    Args:
        minimal: What the minimal response contains.
    """
    return {
        "name": "Prefer",
        "in": "header",
        "required": False,
        "schema": {"type": "string", **PART_B},
        "description": f"With `{MINIMAL}`, the response contains {minimal}, and has the header `Preference-Applied`. "
        "Other preferences are ignored.",
    }


def prefers_minimal(request: Request) -> bool:
    """Return whether the client asks for a minimal response. Part A of the protocol has none."""
    if request.app.state.part_a_only:
        return False
    for preference in ",".join(request.headers.getlist("prefer")).split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "return":  # the first of several counts (RFC 7240, section 2)
            return value.strip().strip('"') == "minimal"
    return False


def idempotency_key(request: Request) -> str | None:
    """Return the idempotency key; None if there is none. Part A of the protocol has none.

    Raises:
        RequestValidationError: It is not valid, or there are several.
    """
    keys = request.headers.getlist(IDEMPOTENCY_KEY)
    if not keys or request.app.state.part_a_only:
        return None
    if len(keys) > 1 or not is_idempotency_key(keys[0]):
        message = "must be one key of 1 to 255 printable ASCII characters"
        raise RequestValidationError([{"type": "idempotency_key", "loc": ("header", IDEMPOTENCY_KEY), "msg": message}])
    return keys[0]


def is_keyed(request: Request) -> bool:
    """Return whether a request has an idempotency key, valid or not."""
    return IDEMPOTENCY_KEY in request.headers


def is_idempotency_key(key: str) -> bool:
    """Return whether an idempotency key is valid."""
    return _KEY.fullmatch(key) is not None


def request_trace(request: Request) -> Trace:
    """Return the trace context of the request's headers; the manager's own if there is none or it is malformed."""
    traceparent = request.headers.get("traceparent", "")
    if TRACEPARENT.fullmatch(traceparent) and traceparent != NO_TRACE.traceparent:
        return Trace(traceparent, _valid_tracestate(request.headers.get("tracestate", "")))
    return _current_trace()


def _valid_tracestate(header: str) -> str | None:
    return header if header.isascii() and 0 < len(header) <= MAX_TRACESTATE_LENGTH else None


def _current_trace() -> Trace:
    """Return the trace context of the manager's span for this request, or NO_TRACE if tracing is off."""
    headers: dict[str, str] = {}
    _PROPAGATOR.inject(headers)
    return Trace(headers["traceparent"], headers.get("tracestate")) if headers else NO_TRACE
