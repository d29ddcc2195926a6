"""Routes that take nothing they do not understand: unknown query parameters, other media types, loose JSON."""

import json
import re
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from typing import Any
from urllib.parse import quote, unquote, unquote_to_bytes

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from reference_manager.api.common.errors import UNSUPPORTED_MEDIA_TYPE, body_too_large
from reference_manager.api.common.protocol import fields_of_part_b, is_of_part_b, refuse_fields

_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^";\s]*)', re.IGNORECASE)


class StrictRequest(Request):
    """A request whose JSON is JSON (no NaN, no lone surrogates, at most 200 levels deep) and whose body has a limit."""

    async def stream(self) -> AsyncGenerator[bytes]:
        """The body as it comes in, up to the limit in the application's state."""
        limit: int = self.app.state.body_limit
        size = 0
        async for chunk in super().stream():
            size += len(chunk)
            if size > limit:
                raise HTTPException(413, body_too_large(limit).message)
            yield chunk

    async def json(self) -> Any:  # noqa: ANN401 - overrides
        """The body, parsed."""
        body = await self.body()
        try:
            return from_json(body, allow_inf_nan=False)
        except ValueError as error:
            raise json.JSONDecodeError(str(error), "", 0) from error


class StrictRoute(APIRoute):
    """A route that refuses what it would otherwise ignore."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match segment by segment, so that ``%2F`` belongs to a parameter and ``%0A`` to nothing else."""
        raw: bytes = scope["raw_path"]
        if b"%" not in raw:
            return super().matches(scope)
        path = "/".join(quote(unquote_to_bytes(segment), safe="") for segment in raw.split(b"/"))
        match, found = super().matches({**scope, "path": path})
        if match is not Match.NONE:
            # What is not UTF-8 becomes half a character, which no parameter takes.
            found["path_params"] = {
                name: unquote(value, errors="surrogateescape") for name, value in found["path_params"].items()
            }
        return match, found

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The usual handler behind the checks."""
        handle = super().get_route_handler()
        dependants = (self.dependant, *self.dependant.dependencies)
        parameters = [field for dependant in dependants for field in dependant.query_params]
        known = {field.alias for field in parameters}
        known_of_part_a = {field.alias for field in parameters if not is_of_part_b(field.field_info)}
        more_than_part_a = fields_of_part_b(self.body_field.field_info.annotation if self.body_field else None)

        async def check(request: Request) -> Response:
            part_a_only: bool = request.app.state.part_a_only
            _check_query(request, known_of_part_a if part_a_only else known)
            if self.body_field and not is_json(request.headers.get("content-type", "")):
                raise HTTPException(415, UNSUPPORTED_MEDIA_TYPE.message)
            strict = StrictRequest(request.scope, request.receive)
            if part_a_only and more_than_part_a:
                with suppress(json.JSONDecodeError):  # the handler says what is wrong
                    refuse_fields(await strict.json(), more_than_part_a)
            return await handle(strict)

        return check


def _check_query(request: Request, known: set[str]) -> None:
    """Refuse what the framework would skip, choose from or repair."""
    seen = set[str]()
    for name, _ in request.query_params.multi_items():
        if name not in known:
            raise _invalid_parameter(name, "Unknown parameter")
        if name in seen:
            raise _invalid_parameter(name, "Given twice")
        seen.add(name)
    try:
        unquote_to_bytes(request.scope["query_string"]).decode()
    except UnicodeDecodeError:
        raise RequestValidationError([{"type": "unicode", "loc": ("query",), "msg": "Not UTF-8"}]) from None


def _invalid_parameter(name: str, message: str) -> RequestValidationError:
    return RequestValidationError([{"type": "parameter", "loc": ("query", name), "msg": message}])


def is_json(content_type: str) -> bool:
    """Whether a Content-Type header means JSON in UTF-8, the only encoding that JSON has."""
    media_type = content_type.partition(";")[0].strip().lower()
    charset = _CHARSET.search(content_type)
    if charset and charset[1].lower() not in {"utf-8", "utf8"}:
        return False
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))
