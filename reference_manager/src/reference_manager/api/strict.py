"""Routes that take nothing they do not understand: unknown query parameters, other media types, loose JSON."""

import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response


class StrictRequest(Request):
    """A request whose JSON is JSON (no NaN, no lone surrogates, at most 200 levels deep) and whose body has a limit."""

    async def stream(self) -> AsyncGenerator[bytes]:
        """The body as it comes in, up to the limit in the application's state."""
        limit: int = self.app.state.body_limit
        size = 0
        async for chunk in super().stream():
            size += len(chunk)
            if size > limit:
                raise HTTPException(413, f"The body must not be larger than {limit} bytes")
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

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The usual handler behind the checks."""
        handle = super().get_route_handler()
        dependants = (self.dependant, *self.dependant.dependencies)
        known = {field.alias for dependant in dependants for field in dependant.query_params}

        async def check(request: Request) -> Response:
            unknown = next((name for name in request.query_params if name not in known), None)
            if unknown is not None:
                raise RequestValidationError([{"type": "extra", "loc": ("query", unknown), "msg": "Unknown parameter"}])
            if self.body_field and not is_json(request.headers.get("content-type", "")):
                raise HTTPException(415, "The body must be JSON, with the header Content-Type: application/json")
            return await handle(StrictRequest(request.scope, request.receive))

        return check


def is_json(content_type: str) -> bool:
    """Whether a Content-Type header means JSON."""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))
