"""Workers as clients get them, for the OpenAPI document."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from reference_manager.api.common.schemas import Representation


class HeartbeatAnswer(Representation):
    """What a worker has to know."""

    lost: Annotated[list[int], Field(description="Leases that are no longer its own: others may have the tasks.")]
    cancel: Annotated[list[int], Field(description="Leases of tasks whose job was aborted.")]
    drain: Annotated[bool, Field(description="Whether it is to claim no more, finish and stop.")]


class Worker(Representation):
    """A worker that sends heartbeats."""

    id: str
    stage_types: list[str]
    host: str | None
    version: str | None
    draining: bool
    drain_wanted: bool
    running: Annotated[int, Field(description="Tasks that it said it works on.")]
    start_time: datetime
    seen_time: datetime
