"""Where contenders keep their tasks, all of it on this machine, with durable settings."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import asyncpg

from benchmarks.contenders import Store
from benchmarks.redis import redis_server


@dataclass(frozen=True)
class Stores:
    """A PostgreSQL and a manager on it; a Redis is started for each use."""

    postgres_url: str
    manager_url: str

    @asynccontextmanager
    async def opened(self, store: Store, name: str) -> AsyncGenerator[str]:
        """The address of an empty store of this name; the manager's has what was before, finished."""
        match store:
            case Store.MANAGER:
                yield self.manager_url
            case Store.REDIS:
                with redis_server() as url:
                    yield url
            case Store.POSTGRES:
                await _execute(self.postgres_url, f'CREATE DATABASE "{name}"')
                yield urlsplit(self.postgres_url)._replace(path=f"/{name}").geturl()
                await _execute(self.postgres_url, f'DROP DATABASE "{name}" WITH (FORCE)')

    async def tidy(self, store: Store, address: str) -> None:
        """Bring statistics and disk to where they would soon be after tasks were created, whoever keeps them."""
        if store is not Store.REDIS:
            url = self.postgres_url if store is Store.MANAGER else address
            await _execute(url, "VACUUM ANALYZE", "CHECKPOINT")


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
