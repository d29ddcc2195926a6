"""Schemas of attempts and status changes, for the OpenAPI document."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from reference_manager.api.common.schemas import Representation


class Attempt(Representation):
    """One attempt of a task."""

    number: Annotated[int, Field(ge=1)]
    lease_id: int
    worker_id: Annotated[str | None, Field(description="Null for a client without leases.")]
    start_time: datetime
    end_time: datetime | None
    outcome: Annotated[
        str | None,
        Field(
            description="COMPLETED, FAILED, RELEASED, SNOOZED: reported by the worker. EXPIRED, TIMED_OUT: ended by "
            "the manager. ABORTED: ended with its job. Null: in progress."
        ),
    ]
    error: dict[str, Any] | None


class Change(Representation):
    """One status change."""

    source: Annotated[str | None, Field(alias="from", description="Null for the creation.")]
    target: Annotated[str, Field(alias="to")]
    at: datetime
    by: Annotated[str, Field(description="`client`, `manager`, or the id of the worker.")]
    reason: str
