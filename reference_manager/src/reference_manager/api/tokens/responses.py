"""Schemas of access tokens, for the OpenAPI document."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from reference_manager.access.principals import Scope
from reference_manager.access.secrets import PATTERN
from reference_manager.api.common.schemas import Representation


class Token(Representation):
    """A token, without its secret."""

    id: UUID
    name: str
    scopes: list[Scope]
    stage_types: Annotated[list[str] | None, Field(description="Null: not limited.")]
    job_names: Annotated[list[str] | None, Field(description="Null: not limited.")]
    created_by: Annotated[str, Field(description="The name of the token that created it, or how it was created.")]
    created_at: datetime
    expires_at: datetime | None
    rotated_at: datetime | None
    previous_expires_at: Annotated[datetime | None, Field(description="Until when the previous secret is valid.")]
    revoked_at: datetime | None
    last_used_at: Annotated[datetime | None, Field(description="Accurate to a minute or two.")]


class IssuedToken(Token):
    """A token with its secret, which no other response contains."""

    token: Annotated[str, Field(pattern=f"^{PATTERN}$")]
