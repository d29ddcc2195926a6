"""Adds tasks to later stages of the job, each once, however often the task that adds them is attempted."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from functools import cache, partial
from hashlib import blake2b
from typing import Any, Final
from uuid import UUID

from pydantic.errors import PydanticUserError

from jobnik_sdk.errors import ConfigurationError, IdempotencyKeyReusedError, JobnikError
from jobnik_sdk.execution.access import Access
from jobnik_sdk.model.definitions import AnyStageType
from jobnik_sdk.observability.logging import RuntimeLogger

MAX_KNOWN_STAGES: Final = 1_000
"""The maximum number of stages that are remembered, so that they are not looked up again for each task."""

_SEPARATORS: Final = re.compile(rb"[\[\]{},]")

_log: Final = RuntimeLogger(__name__)

_known_stages: Final[dict[tuple[UUID, str, int], UUID]] = {}
"""The id of the first stage of a job that has a type and comes after an order."""


class Additions:
    """Adds tasks for one attempt.

    Args:
        access: The connection to the manager.
        job_id: The job of the attempt.
        order: The order of the stage of the attempt; only stages after it get tasks.
        task_id: The task of the attempt.
    """

    def __init__(self, access: Access, job_id: UUID, order: int, task_id: UUID) -> None:
        self._access = access
        self._job_id = job_id
        self._order = order
        self._task_id = task_id
        self._counts = Counter[str]()

    async def add(self, stage_type: AnyStageType, tasks: Iterable[Any]) -> None:
        """Add tasks to the next stage of this type; see `TaskContext.add_tasks`."""
        # Imported on first use, so that a process whose handler does not need the HTTP client never loads it.
        from jobnik_sdk.producer.creations import create_tasks_once  # noqa: PLC0415

        stage_id = await self._later_stage(stage_type)
        has_sets = _has_sets(stage_type)
        try:
            key = partial(self._key, has_sets=has_sets)
            count = await create_tasks_once(self._access.client, stage_id, stage_type, tasks, key)
        except IdempotencyKeyReusedError:
            # Another attempt has added these tasks, with the values of a set in another order.
            if not has_sets:
                raise
            return
        if count == 0:
            await self._warn_of_empty_stage(stage_type, stage_id)

    async def _warn_of_empty_stage(self, stage_type: AnyStageType, stage_id: UUID) -> None:
        with suppress(JobnikError):  # nothing depends on the warning
            if (await self._access.producer.get_summary(stage_id)).total == 0:
                _log.warning(
                    "stage still empty",
                    empty_stage_id=str(stage_id),
                    empty_stage_type=stage_type.name,
                    advice="a stage without tasks is never completed; if no other task adds any, add at least one",
                )

    def _key(self, content: bytes, *, has_sets: bool) -> str:
        """Return the idempotency key of an addition.

        Another attempt that adds the same gets the same key, in whatever order it makes its additions. An attempt that
        adds the same twice gets two keys.
        """
        if has_sets:
            content = b"".join(sorted(_SEPARATORS.split(content)))
        digest = blake2b(content, digest_size=16).hexdigest()
        self._counts[digest] += 1
        return f"{self._task_id}/{digest}/{self._counts[digest]}"

    async def _later_stage(self, stage_type: AnyStageType) -> UUID:
        place = (self._job_id, stage_type.name, self._order)
        if place not in _known_stages:
            if len(_known_stages) >= MAX_KNOWN_STAGES:
                _known_stages.clear()
            _known_stages[place] = await self._find_later_stage(stage_type)
        return _known_stages[place]

    async def _find_later_stage(self, stage_type: AnyStageType) -> UUID:
        async for stage in self._access.producer.list_stages(self._job_id, stage_type):
            if stage.order > self._order:
                return stage.id
        raise ConfigurationError(
            f"The job {self._job_id} has no stage of type {stage_type.name!r} after this one: create it with the job."
        )


@cache
def _has_sets(stage_type: AnyStageType) -> bool:
    """Return whether the tasks of this type may contain sets, which each process writes in an order of its own."""
    try:
        schemas = [model.model_json_schema() for model in (stage_type.task, stage_type.task_metadata)]
    except PydanticUserError:  # a type without a schema
        return True
    return '"uniqueItems": true' in json.dumps(schemas)
