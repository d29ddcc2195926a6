"""Routes that reject unknown query parameters, other media types and invalid JSON."""

import json
import pickle
import re
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar, get_args, get_origin
from urllib.parse import quote, unquote, unquote_to_bytes

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from reference_manager.access.errors import RefusedError
from reference_manager.api.common.access import check_access, declared_access, record_refusal
from reference_manager.api.common.bodies import LARGE, Bodies, Reservation
from reference_manager.api.common.disconnects import client_of
from reference_manager.api.common.errors import UNSUPPORTED_MEDIA_TYPE
from reference_manager.api.common.fields import BodyContext, metadata_text
from reference_manager.api.common.headers import is_keyed, request_trace
from reference_manager.api.common.parser_client import BodyFormat
from reference_manager.api.common.protocol import fields_of_part_b, is_of_part_b, refuse_fields
from reference_manager.domain.payloads import JsonText
from reference_manager.engine.engine import ask_before_waiting

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")
_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^";\s]*)', re.IGNORECASE)


class StrictRequest(Request):
    """A request with strict JSON (no NaN, no lone surrogates, at most 200 levels deep) and a limit for its body."""

    reservation: Reservation
    """Counts the bytes of the body."""
    command: Any = None
    """The command of a large body, which was parsed, validated and converted in another process."""
    placeholder: Any = None
    """The validated body from FastAPI's point of view, if there is a command."""

    async def stream(self) -> AsyncGenerator[bytes]:
        """Yield the body as it arrives, up to the limit of the application."""
        async for chunk in super().stream():
            self.reservation.add(len(chunk))
            yield chunk

    async def json(self) -> Any:  # noqa: ANN401 - overrides
        """Return the parsed body."""
        return parse_json(await self.body()) if self.command is None else self.placeholder


class StrictRoute(APIRoute):
    """A route that rejects input that FastAPI ignores."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match each segment of the path separately, so that ``%2F`` and ``%0A`` are part of a parameter."""
        raw: bytes = scope["raw_path"]
        if b"%" not in raw:
            return super().matches(scope)
        path = "/".join(quote(unquote_to_bytes(segment), safe="") for segment in raw.split(b"/"))
        match, found = super().matches({**scope, "path": path})
        if match is not Match.NONE:
            # Invalid UTF-8 becomes a lone surrogate, which every parameter rejects.
            found["path_params"] = {
                name: unquote(value, errors="surrogateescape") for name, value in found["path_params"].items()
            }
        return match, found

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the usual handler, preceded by the checks."""
        handle = super().get_route_handler()
        dependants = (self.dependant, *self.dependant.dependencies)
        parameters = [field for dependant in dependants for field in dependant.query_params]
        known = {field.alias for field in parameters}
        known_in_part_a = {field.alias for field in parameters if not is_of_part_b(field.field_info)}
        lists = {field.alias for field in parameters if _is_list(field.field_info.annotation)}
        body_type = self.body_field.field_info.annotation if self.body_field else None
        part_b_fields = fields_of_part_b(body_type)
        forms = {
            refused: pickle.dumps(BodyFormat(self.body_field.field_info, refused))
            for refused in (part_b_fields, frozenset[str]())
            if self.body_field
        }
        access = declared_access(self.endpoint)

        async def check(request: Request) -> Response:
            try:
                await check_access(request, access)
                return await check_input(request)
            except RefusedError as error:
                record_refusal(request.app.state.gate.audit, request.scope, error)
                raise

        async def check_input(request: Request) -> Response:
            part_a_only: bool = request.app.state.part_a_only
            _check_query(request, known_in_part_a if part_a_only else known, lists, part_a_only=part_a_only)
            strict = StrictRequest(request.scope, request.receive)
            if not self.body_field:
                return await handle(strict)
            if not _is_json(request.headers.get("content-type", "")):
                raise HTTPException(415, UNSUPPORTED_MEDIA_TYPE.message)
            refused = part_b_fields if part_a_only else frozenset[str]()
            bodies: Bodies = request.app.state.bodies
            with bodies.reserve() as strict.reservation:
                body = await _received(strict)
                if len(body) > LARGE:
                    async with bodies.turn() as give_up:
                        if client_of(request.scope).is_gone():
                            raise HTTPException(400, "The client disconnected before its turn")
                        ask_before_waiting(give_up)
                        context = BodyContext(
                            request.path_params, request_trace(request), part_a_only, is_keyed(request)
                        )
                        strict.command = await bodies.parse(body, forms[refused], context)
                        strict.placeholder = _placeholder(body_type, strict.command)
                        return await handle(strict)
                if refused:
                    with suppress(json.JSONDecodeError):  # the handler reports the error
                        refuse_fields(await strict.json(), refused)
                return await handle(strict)

        return check


async def _received(request: StrictRequest) -> bytes:
    try:
        return await request.body()
    except ClientDisconnect:
        raise HTTPException(400, "The client disconnected before its body had arrived") from None


def parse_json(body: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Parse a body. Raises JSONDecodeError, which is a ValueError."""
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise json.JSONDecodeError(str(error), "", 0) from error


def _placeholder(body_type: Any, command: object) -> object:  # noqa: ANN401 - a model, or a type of lists or objects
    """Return a valid body of this type, which FastAPI does not validate again: the command if it is one."""
    if isinstance(command, BaseModel):
        return command
    origin = get_origin(body_type)
    return origin() if origin else body_type.model_construct()


def _is_list(annotation: object) -> bool:
    """Return whether a parameter has a list of values, and so may be repeated."""
    return get_origin(annotation) is list or any(_is_list(one) for one in get_args(annotation))


def _check_query(request: Request, known: set[str], lists: set[str], *, part_a_only: bool) -> None:
    """Reject unknown and repeated parameters and invalid UTF-8, which FastAPI ignores or repairs.

    Args:
        request: The request.
        known: The parameters of the route.
        lists: The parameters that may have several values. With part A only, they have a single value.
        part_a_only: Whether the manager serves only part A.
    """
    seen = set[str]()
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise _invalid_parameter(name, "Unknown parameter", "unknown_parameter")
        if name in seen and (part_a_only or name not in lists):
            raise _invalid_parameter(name, "Given more than once")
        if part_a_only and name in lists and "," in value:
            raise _invalid_parameter(name, "Has more than one value")
        seen.add(name)
    try:
        unquote_to_bytes(request.scope["query_string"]).decode()
    except UnicodeDecodeError:
        raise RequestValidationError([{"type": "unicode", "loc": ("query",), "msg": "Not UTF-8"}]) from None


def _invalid_parameter(name: str, message: str, kind: str = "parameter") -> RequestValidationError:
    return RequestValidationError([{"type": kind, "loc": ("query", name), "msg": message}])


def _is_json(content_type: str) -> bool:
    """Return whether a Content-Type header means JSON in UTF-8, the only encoding of JSON."""
    media_type = content_type.partition(";")[0].strip().lower()
    charset = _CHARSET.search(content_type)
    if charset and charset[1].lower() not in {"utf-8", "utf8"}:
        return False
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))


def converted(
    request: Request, convert: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
) -> Result:
    """Return the command of a request: convert its body, unless another process has done so already."""
    if isinstance(request, StrictRequest) and request.command is not None:
        return request.command
    return convert(*arguments, **named)


def converted_metadata(request: Request, body: dict[str, Any]) -> JsonText:
    """Return the metadata of a request as JSON; see ``metadata_text``."""
    return converted(request, metadata_text, body, part_a_only=request.app.state.part_a_only)
