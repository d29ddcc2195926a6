"""Attempts and changes of status as clients get them, for the OpenAPI document."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from reference_manager.api.common.schemas import Representation


class Attempt(Representation):
    """One attempt at a task."""

    number: Annotated[int, Field(ge=1)]
    lease_id: int
    worker_id: Annotated[str | None, Field(description="Null: a client without leases.")]
    start_time: datetime
    end_time: datetime | None
    outcome: Annotated[
        str | None,
        Field(
            description="COMPLETED, FAILED, RELEASED, SNOOZED: its worker's word. EXPIRED, TIMED_OUT: the manager's. "
            "ABORTED: with its job. Null: it runs."
        ),
    ]
    error: dict[str, Any] | None


class Change(Representation):
    """One change of status."""

    source: Annotated[str | None, Field(alias="from", description="Null: it was created.")]
    target: Annotated[str, Field(alias="to")]
    at: datetime
    by: Annotated[str, Field(description="client, manager, or the worker's id.")]
    reason: str
