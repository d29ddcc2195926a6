"""Request bodies of access tokens."""

from datetime import timedelta
from typing import Annotated, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from reference_manager.access.principals import Scope
from reference_manager.access.tokens import MAX_LIFETIME, MAX_LIMITS, MAX_OVERLAP, NAME, NewToken
from reference_manager.api.common.fields import Body, Seconds, StageTypeName


class TokenBody(Body):
    """A token to create."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "thumbnails", "scopes": ["worker"], "stageTypes": ["thumbnail"]}]}
    )

    name: Annotated[str, StringConstraints(pattern=f"^{NAME}$"), Field(description="Unique among the valid tokens.")]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(Scope))]
    stage_types: Annotated[
        Annotated[list[StageTypeName], Field(min_length=1, max_length=MAX_LIMITS)] | None,
        Field(description="Limits the scope worker to these stage types."),
    ] = None
    job_names: Annotated[
        Annotated[list[StageTypeName], Field(min_length=1, max_length=MAX_LIMITS)] | None,
        Field(description="Limits the scope producer to jobs with these names."),
    ] = None
    lifetime_seconds: Annotated[
        Seconds | None,
        Field(gt=0, le=MAX_LIFETIME.total_seconds(), description="Null: valid until it is revoked."),
    ] = None

    @model_validator(mode="after")
    def fit(self) -> Self:
        """Refuse parts that do not fit together."""
        self.request().check()
        return self

    def request(self) -> NewToken:
        """Convert the body to a command."""
        lifetime = None if self.lifetime_seconds is None else timedelta(seconds=self.lifetime_seconds)
        return NewToken(self.name, frozenset(self.scopes), self.stage_types, self.job_names, lifetime)


class RotationBody(Body):
    """A rotation of a token."""

    overlap_seconds: Annotated[
        Seconds,
        Field(ge=0, le=MAX_OVERLAP.total_seconds(), description="How long the previous secret stays valid."),
    ] = 3600.0
