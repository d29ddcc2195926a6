"""The pool hands a released connection to the next caller, and returns it to the driver's pool sooner or later."""

import asyncio
from datetime import timedelta
from typing import Any, cast

import asyncpg
import pytest
from reference_manager.store import reuse
from reference_manager.store.reuse import ReusingPool

LONG = timedelta(seconds=30)


class Connection:
    """A connection of the driver's pool."""

    closed = in_transaction = forgotten = False

    def is_closed(self) -> bool:
        """Return whether it is closed."""
        if self.forgotten:
            raise asyncpg.InterfaceError("connection has been released back to the pool")
        return self.closed

    def is_in_transaction(self) -> bool:
        """Return whether a transaction is open."""
        return self.in_transaction


class DriverPool:
    """The driver's pool, with at most one connection."""

    def __init__(self) -> None:
        self.free: asyncio.Queue[Connection] = asyncio.Queue()
        self.free.put_nowait(Connection())
        self.is_closed = False

    async def acquire(self) -> Connection:
        """Wait for the connection."""
        return await self.free.get()

    async def release(self, connection: Connection) -> None:
        """Release it; a closed one is replaced."""
        await asyncio.sleep(0)
        self.free.put_nowait(Connection() if connection.closed or connection.forgotten else connection)

    async def close(self) -> None:
        """Close the pool, which waits for the connection."""
        await self.free.get()
        self.is_closed = True

    def get_idle_size(self) -> int:
        """Return the number of idle connections."""
        return self.free.qsize()


@pytest.fixture
def driver() -> DriverPool:
    """The driver's pool."""
    return DriverPool()


@pytest.fixture
def pool(driver: DriverPool) -> ReusingPool:
    """The pool on top of it."""
    return ReusingPool(cast("Any", driver))


async def test_a_released_connection_is_at_hand(pool: ReusingPool, driver: DriverPool) -> None:
    """The driver's pool has none, but it counts as idle."""
    connection = await pool.acquire(LONG)
    assert pool.idle == 0
    await pool.release(connection)
    assert (driver.free.qsize(), pool.idle) == (0, 1)
    assert await pool.acquire(LONG) is connection


async def test_a_waiting_caller_gets_a_released_connection(pool: ReusingPool) -> None:
    """Otherwise, it would wait until the connection returns to the driver's pool."""
    connection = await pool.acquire(LONG)
    waiting = asyncio.create_task(pool.acquire(LONG))
    await asyncio.sleep(0)
    await pool.release(connection)
    assert await waiting is connection


@pytest.mark.parametrize("defect", ["closed", "in_transaction", "forgotten"])
@pytest.mark.parametrize("at_hand", [False, True])
async def test_an_unusable_connection_returns_to_the_driver(
    pool: ReusingPool, driver: DriverPool, defect: str, *, at_hand: bool
) -> None:
    """Whether it was used or at hand when PostgreSQL closed it."""
    connection = await pool.acquire(LONG)
    if at_hand:
        await pool.release(connection)
    setattr(connection, defect, True)
    if not at_hand:
        await pool.release(connection)
        assert driver.free.qsize() == 1
    expected = connection if defect == "in_transaction" else None
    assert (await pool.acquire(LONG) is connection) == (expected is connection)


async def test_connections_at_hand_return_to_the_driver(
    pool: ReusingPool, driver: DriverPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It closes those that are idle for too long."""
    monkeypatch.setattr(reuse, "RETURN_INTERVAL", timedelta(milliseconds=1))
    for _ in range(2):
        connection = await pool.acquire(LONG)
        await pool.release(connection)
        assert await driver.free.get() is connection
        driver.free.put_nowait(cast("Any", connection))


async def test_an_exhausted_pool_raises_a_timeout(pool: ReusingPool) -> None:
    """It says so to the caller."""
    await pool.acquire(LONG)
    with pytest.raises(TimeoutError):
        await pool.acquire(timedelta(milliseconds=1))


async def test_closing_returns_what_is_at_hand(pool: ReusingPool, driver: DriverPool) -> None:
    """The driver's pool would wait for it."""
    await pool.release(await pool.acquire(LONG))
    async with asyncio.timeout(30):
        await pool.close()
    assert driver.is_closed


async def test_closing_does_not_wait_for_the_return_of_a_connection(
    pool: ReusingPool, driver: DriverPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was in use when the pool began to close returns to the driver at once."""
    monkeypatch.setattr(reuse, "RETURN_INTERVAL", timedelta(hours=1))
    connection = await pool.acquire(LONG)
    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0)
    await pool.release(connection)
    async with asyncio.timeout(30):
        await closing
    assert driver.is_closed
