"""The stores of the contenders, all on this machine with durable settings."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import asyncpg

from benchmarks.contenders import Store
from benchmarks.redis import redis_server


@dataclass(frozen=True)
class Stores:
    """A PostgreSQL and a manager on it. Each use of Redis starts a new server."""

    postgres_url: str
    manager_url: str

    @asynccontextmanager
    async def opened(self, store: Store, name: str) -> AsyncGenerator[str]:
        """Yield the address of an empty store. The manager's store is shared and contains earlier, finished jobs."""
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
        """Vacuum, analyze and checkpoint, as PostgreSQL does by itself some time after inserts."""
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
