"""The stores of the contenders, all on this machine with durable settings."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import asyncpg

from benchmarks.contenders import Store
from benchmarks.redis import redis_server
from tools.manager import ManagerProcess


@dataclass(frozen=True)
class Stores:
    """A PostgreSQL. Each use of a store begins with a new database, or with a new server of Redis."""

    postgres_url: str

    @asynccontextmanager
    async def opened(self, store: Store, name: str) -> AsyncGenerator[str]:
        """Yield the address of an empty store: of a manager, a database, or a server of Redis."""
        match store:
            case Store.MANAGER:
                async with self._database(name) as url:
                    with ManagerProcess("--database-url", url) as manager:
                        yield manager.url
            case Store.REDIS:
                with redis_server() as url:
                    yield url
            case Store.POSTGRES:
                async with self._database(name) as url:
                    yield url

    def database_url(self, name: str) -> str:
        """Return the URL of the database of a store."""
        return urlsplit(self.postgres_url)._replace(path=f"/store_{name}").geturl()

    async def tidy(self, store: Store, name: str) -> None:
        """Vacuum, analyze and checkpoint, as PostgreSQL does by itself some time after inserts."""
        if store is not Store.REDIS:
            await _execute(self.database_url(name), "VACUUM ANALYZE", "CHECKPOINT")

    @asynccontextmanager
    async def _database(self, name: str) -> AsyncGenerator[str]:
        await _execute(self.postgres_url, f'CREATE DATABASE "store_{name}"')
        yield self.database_url(name)
        await _execute(self.postgres_url, f'DROP DATABASE "store_{name}" WITH (FORCE)')


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
