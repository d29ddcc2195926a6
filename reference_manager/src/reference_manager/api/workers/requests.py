"""Request bodies of heartbeats and drain orders."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import ConfigDict, Field, Strict, StrictBool, StringConstraints
from pydantic.config import JsonDict

from reference_manager.api.common.fields import YEAR, Body, BodyContext, Checkpoint, Id, LeaseId, Seconds, Text
from reference_manager.domain.commands import Heartbeat, RunningTask
from reference_manager.domain.payloads import JsonText, encode, encode_optional

_HEARTBEAT: JsonDict = {
    "stageTypes": ["thumbnail"],
    "running": [
        {"taskId": "019a2f5e-7c1b-7d3a-9e4f-5b6c7d8e9f00", "leaseId": 17, "progress": {"fraction": 0.5}},
    ],
}


class ProgressBody(Body):
    """The progress of a task."""

    fraction: Annotated[float, Strict(), Field(ge=0, le=1)]
    message: Annotated[Text, StringConstraints(max_length=500)] = ""
    eta_seconds: Annotated[Seconds | None, Field(ge=0, le=YEAR, description="The estimated remaining time.")] = None


class RunningBody(Body):
    """A task that the worker is running."""

    task_id: Id
    lease_id: LeaseId
    progress: ProgressBody | None = None
    checkpoint: Checkpoint = None


class HeartbeatBody(Body):
    """A heartbeat of a worker."""

    model_config = ConfigDict(json_schema_extra={"examples": [_HEARTBEAT]})

    stage_types: Annotated[list[Annotated[Text, StringConstraints(min_length=1, max_length=50)]], Field(max_length=100)]
    host: Annotated[Text, StringConstraints(max_length=255)] | None = None
    version: Annotated[Text, StringConstraints(max_length=100)] | None = None
    running: Annotated[Sequence[RunningBody], Field(max_length=10_000)] = ()
    draining: StrictBool = False

    def convert(self, context: BodyContext) -> Heartbeat:  # noqa: D102 - as in the base class
        return self.request(context.path["workerId"])

    def request(self, worker_id: str) -> Heartbeat:
        """Convert the body to a command of the engine."""
        running = [
            RunningTask(
                task.task_id,
                task.lease_id,
                _progress(task.progress) if task.progress else None,
                encode_optional(task.checkpoint),
            )
            for task in self.running
        ]
        return Heartbeat(worker_id, self.stage_types, self.host, self.version, self.draining, running)


class DrainBody(Body):
    """A drain order for a worker, or its withdrawal."""

    drain: StrictBool


def _progress(progress: ProgressBody) -> JsonText:
    return encode(progress.model_dump(by_alias=True))
