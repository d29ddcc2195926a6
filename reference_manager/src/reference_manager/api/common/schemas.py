"""What clients get, for the OpenAPI document. PostgreSQL writes the answers themselves (store/routines/wire.sql)."""

from datetime import datetime
from typing import Annotated, Any, TypeAlias
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from reference_manager.api.common.fields import Traceparent

Count: TypeAlias = Annotated[int, Field(ge=0)]
Percentage: TypeAlias = Annotated[int, Field(ge=0, le=100)]


def left_out(schema: dict[str, Any]) -> None:
    """What is not there has no value; the default is Python's alone."""
    schema.pop("default")


class Representation(BaseModel):
    """What goes over the wire: names in camelCase."""

    model_config = ConfigDict(alias_generator=to_camel)


class Entity(Representation):
    """What jobs, stages and tasks have in common."""

    id: UUID
    data: dict[str, Any]
    user_metadata: dict[str, Any]
    created_at: Annotated[datetime, Field(description="UTC, with milliseconds.")]
    updated_at: Annotated[datetime, Field(description="UTC, with milliseconds.")]
    creation_time: Annotated[datetime, Field(description="createdAt as older clients spell it.")]
    update_time: Annotated[datetime, Field(description="updatedAt as older clients spell it.")]
    traceparent: Traceparent
    tracestate: Annotated[str, Field(description="Left out when there is none.", json_schema_extra=left_out)] = ""


class Progress(Representation):
    """How far a stage or a job is."""

    fraction: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Of a stage: its completed tasks, and of those in progress the fractions that their workers "
            "told, of all its tasks. Of a job: the mean of its stages by their weights.",
        ),
    ]
    eta_seconds: Annotated[
        float,
        Field(
            ge=0,
            description="How long it will still take, if it goes on as it did since its start. Left out while nothing "
            "is done, and where it does not go on.",
            json_schema_extra=left_out,
        ),
    ] = 0


class Done(BaseModel):
    """Success without an entity."""

    code: str


class Problem(BaseModel):
    """Why a request was refused."""

    message: str
    code: str
