"""Schemas of workers, for the OpenAPI document."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from reference_manager.api.common.schemas import Representation


class HeartbeatResponse(Representation):
    """The response to a heartbeat."""

    lost: Annotated[list[int], Field(description="Leases that the worker no longer holds; others may run the tasks.")]
    cancel: Annotated[list[int], Field(description="Leases of tasks whose job was aborted.")]
    drain: Annotated[bool, Field(description="Whether the worker must stop claiming, finish its tasks and stop.")]


class Worker(Representation):
    """A worker that sends heartbeats."""

    id: str
    stage_types: list[str]
    host: str | None
    version: str | None
    draining: bool
    drain_wanted: bool
    running: Annotated[int, Field(description="The number of running tasks in its last heartbeat.")]
    start_time: datetime
    seen_time: datetime
