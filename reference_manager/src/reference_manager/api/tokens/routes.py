"""Routes of access tokens, for operators."""

from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json

from reference_manager.access.tokens import Issued, Tokens
from reference_manager.api.common.access import ADMINISTER, principal_of
from reference_manager.api.common.errors import TOKEN_NAME_TAKEN, TOKEN_NOT_FOUND, WITH_A_BODY
from reference_manager.api.common.fields import Id
from reference_manager.api.common.pagination import PageQuery, list_response, openapi_list_responses
from reference_manager.api.common.responses import json_response, openapi_responses
from reference_manager.api.common.strict import StrictRoute
from reference_manager.api.tokens.requests import RotationBody, TokenBody
from reference_manager.api.tokens.responses import IssuedToken, Token
from reference_manager.domain.commands import PageRequest, StageKey
from reference_manager.engine.records.pages import Entry, Listing, Page

_UNCACHED = {"Cache-Control": "no-store"}
"""For responses with a secret."""


def tokens_router(tokens: Tokens) -> APIRouter:
    """Build the routes of tokens."""
    router = APIRouter(prefix="/v1", tags=["access"], route_class=StrictRoute)

    @router.post(
        "/tokens", status_code=201, responses=openapi_responses({201: IssuedToken}, TOKEN_NAME_TAKEN, *WITH_A_BODY)
    )
    @ADMINISTER
    async def create_token(body: TokenBody, request: Request) -> Response:
        """Create a token. The response is the only one that contains its secret. The first one closes the manager."""
        return _issued(await tokens.create(body.request(), principal_of(request.scope).name or "API"), 201)

    @router.get("/tokens", responses=openapi_list_responses(Token))
    @ADMINISTER
    async def list_tokens(page: PageQuery) -> Response:
        """List the tokens, including revoked ones, oldest first."""

        async def read(request: PageRequest[StageKey]) -> Page[StageKey]:
            after = request.after.job_id if request.after else None
            found = await tokens.list(after, request.limit, descending=request.descending)
            return Page([Entry(token) for token in found.tokens], StageKey(found.last, 0) if found.last else None)

        return await list_response(page, Listing(StageKey, read))

    @router.get("/tokens/{tokenId}", responses=openapi_responses({200: Token}, TOKEN_NOT_FOUND))
    @ADMINISTER
    async def get_token(tokenId: Id) -> Response:
        """Read a token."""
        return json_response(await tokens.get(tokenId))

    @router.post(
        "/tokens/{tokenId}/rotate", responses=openapi_responses({200: IssuedToken}, TOKEN_NOT_FOUND, *WITH_A_BODY)
    )
    @ADMINISTER
    async def rotate_token(tokenId: Id, body: RotationBody) -> Response:
        """Give a token another secret. The previous one stays valid for a while."""
        return _issued(await tokens.rotate(tokenId, timedelta(seconds=body.overlap_seconds)), 200)

    @router.post("/tokens/{tokenId}/revoke", responses=openapi_responses({200: Token}, TOKEN_NOT_FOUND))
    @ADMINISTER
    async def revoke_token(tokenId: Id) -> Response:
        """Revoke a token at once. Idempotent."""
        return json_response(await tokens.revoke(tokenId))

    return router


def _issued(issued: Issued, status: int) -> Response:
    secret: Any = to_json(issued.secret).decode()
    return json_response(f'{issued.token[:-1]},"token":{secret}}}', status, _UNCACHED)
