"""Limits of a token to stage types and job names.

The names of jobs and the types of stages never change, so what was looked up once is kept. Only limited tokens cost
anything.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID

from reference_manager.access.errors import ForbiddenError
from reference_manager.access.principals import Principal, Scope
from reference_manager.store.pool import Database, sql

MAX_KNOWN: Final = 100_000
"""Entities whose owners are kept in memory, about 30 MB."""


class Owner(NamedTuple):
    """What an entity belongs to."""

    stage_type: str | None
    """None: a job has no stage type."""
    job_name: str | None
    """None: it was not looked up."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What a limited token may change. The scopes that the request does not need are left out."""

    stage_types: frozenset[str] = frozenset()
    job_names: frozenset[str] = frozenset()

    def allows(self, owner: Owner) -> bool:
        """Return whether the token may change an entity."""
        return owner.stage_type in self.stage_types or owner.job_name in self.job_names

    def describe(self) -> str:
        """Return the limit in words."""
        parts = [
            f"{kind} {', '.join(sorted(names))}"
            for kind, names in (("stage types", self.stage_types), ("job names", self.job_names))
            if names
        ]
        return " and ".join(parts)


def limit_of(principal: Principal, scopes: Iterable[Scope]) -> Limit | None:
    """Return the limit of a sender for a request that needs one of these scopes, at least one of which it has.

    None: not limited.
    """
    stage_types = job_names = frozenset[str]()
    for scope in principal.scopes.intersection(scopes):
        if scope is Scope.WORKER and principal.stage_types is not None:
            stage_types = principal.stage_types
        elif scope is Scope.PRODUCER and principal.job_names is not None:
            job_names = principal.job_names
        else:
            return None
    return Limit(stage_types, job_names) if stage_types or job_names else None


class Guard:
    """Checks what the sender of a request changes.

    Args:
        limit: The limit of its token.
        owners: Looks up what entities belong to.
    """

    def __init__(self, limit: Limit, owners: "Owners") -> None:
        self._limit = limit
        self._owners = owners

    def check(self, owners: Iterable[Owner]) -> None:
        """Check the owners of what is changed.

        Raises:
            ForbiddenError: The token is limited to others.
        """
        for owner in owners:
            if not self._limit.allows(owner):
                raise ForbiddenError(f"The token is limited to the {self._limit.describe()}", ())

    async def check_parameter(self, name: str, value: str) -> None:
        """Check the entity that a parameter of the path names. One that does not exist is left to the route.

        Raises:
            ForbiddenError: The token is limited to others.
        """
        match name:
            case "stageType":
                self.check([Owner(value, None)])
            case "workerId":
                self.check(await self._owners.of_worker(value))
            case _ if entity_id := _uuid(value):
                self.check(await self._of_entity(name, entity_id))
            case _:
                pass

    async def check_tasks(self, ids: Iterable[UUID]) -> None:
        """Check tasks that a worker reports or keeps.

        Raises:
            ForbiddenError: The token is limited to others.
        """
        self.check(await self._owners.of_tasks(list(set(ids)), with_jobs=bool(self._limit.job_names)))

    async def check_leases(self, worker_id: str) -> None:
        """Check all leases of a worker, which this reads from the database.

        Raises:
            ForbiddenError: The token is limited to others.
        """
        self.check(await self._owners.of_leases(worker_id))

    def note(self, stage_type: str, task_ids: Iterable[UUID]) -> None:
        """Remember what was claimed, so that its reports need no query."""
        self._owners.note(stage_type, task_ids)

    async def _of_entity(self, name: str, entity_id: UUID) -> Sequence[Owner]:
        match name:
            case "jobId":
                return await self._owners.of_jobs([entity_id])
            case "stageId":
                return await self._owners.of_stages([entity_id])
            case _:
                return await self._owners.of_tasks([entity_id], with_jobs=bool(self._limit.job_names))


class Owners:
    """Looks up what entities belong to.

    Args:
        database: A migrated database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[UUID, Owner] = {}

    def note(self, stage_type: str, task_ids: Iterable[UUID]) -> None:
        """Remember the stage type of tasks that a worker with a limited token has claimed."""
        for task_id in task_ids:
            self._remember(task_id, Owner(stage_type, None))

    async def of_jobs(self, ids: Sequence[UUID]) -> list[Owner]:
        """Return the owners of the jobs that exist."""
        return await self._look_up(sql.access_owners_of_jobs, ids)

    async def of_stages(self, ids: Sequence[UUID]) -> list[Owner]:
        """Return the owners of the stages that exist."""
        return await self._look_up(sql.access_owners_of_stages, ids)

    async def of_tasks(self, ids: Sequence[UUID], *, with_jobs: bool) -> list[Owner]:
        """Return the owners of the tasks that exist, with the names of their jobs if those matter."""
        return await self._look_up(sql.access_owners_of_tasks, ids, with_jobs=with_jobs)

    async def of_worker(self, worker_id: str) -> list[Owner]:
        """Return the stage types that a worker named in its heartbeat."""
        return await self._stage_types(sql.access_types_of_worker, worker_id)

    async def of_leases(self, worker_id: str) -> list[Owner]:
        """Return the stage types of the leases that a worker holds."""
        return await self._stage_types(sql.access_types_of_leases, worker_id)

    async def _stage_types(self, query: Callable[..., Any], worker_id: str) -> list[Owner]:
        async with self._database.connection(for_workers=True) as connection:
            return [Owner(row["stage_type"], None) async for row in query(connection, id=worker_id)]

    async def _look_up(self, query: Callable[..., Any], ids: Sequence[UUID], *, with_jobs: bool = True) -> list[Owner]:
        found = [
            owner
            for entity_id in ids
            if (owner := self._known.get(entity_id)) and not (with_jobs and owner.job_name is None)
        ]
        if len(found) == len(ids):
            return found
        async with self._database.connection(for_workers=True) as connection:
            rows = [row async for row in query(connection, ids=list(ids))]
        owners: list[Owner] = []
        for row in rows:
            owner = Owner(row["stage_type"], row["job_name"])
            self._remember(row["id"], owner)
            owners.append(owner)
        return owners

    def _remember(self, entity_id: UUID, owner: Owner) -> None:
        if len(self._known) >= MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[entity_id] = owner


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
