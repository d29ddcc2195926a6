"""Schemas that responses share, for the OpenAPI document. PostgreSQL writes the JSON (store/routines/wire.sql)."""

from datetime import datetime
from typing import Annotated, Any, TypeAlias
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from reference_manager.api.common.fields import Traceparent
from reference_manager.api.common.protocol import PART_B

Count: TypeAlias = Annotated[int, Field(ge=0)]
Percentage: TypeAlias = Annotated[int, Field(ge=0, le=100)]


def left_out(schema: dict[str, Any]) -> None:
    """Remove the default from the schema of a field that is left out when it has no value."""
    schema.pop("default")


class Representation(BaseModel):
    """Part of a response: camelCase names."""

    model_config = ConfigDict(alias_generator=to_camel)


class Entity(Representation):
    """The fields that jobs, stages and tasks share."""

    id: UUID
    data: dict[str, Any]
    user_metadata: dict[str, Any]
    created_at: Annotated[datetime, Field(description="UTC, with milliseconds.")]
    updated_at: Annotated[datetime, Field(description="UTC, with milliseconds.")]
    creation_time: Annotated[datetime, Field(description="The same as createdAt, for older clients.")]
    update_time: Annotated[datetime, Field(description="The same as updatedAt, for older clients.")]
    traceparent: Traceparent
    tracestate: Annotated[str, Field(description="Left out when there is none.", json_schema_extra=left_out)] = ""


class Progress(Representation):
    """The progress of a stage or a job."""

    fraction: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Of a stage: its completed tasks, plus the reported fractions of those in progress, divided by "
            "the number of its tasks. Of a job: the mean of its stages, by weight.",
        ),
    ]
    eta_seconds: Annotated[
        float,
        Field(
            ge=0,
            description="The estimated remaining time, at the average speed since the start. Left out while the "
            "fraction is 0, while the job is paused, and unless the entity is in progress.",
            json_schema_extra=left_out,
        ),
    ] = 0


class NumberedPage(Representation):
    """A numbered page of a list."""

    model_config = ConfigDict(json_schema_extra=PART_B)

    total: Annotated[Count, Field(description="The number of matching entities, on all pages.")]


class Done(BaseModel):
    """Success without an entity."""

    code: str


class Problem(BaseModel):
    """An error."""

    message: str
    code: str
