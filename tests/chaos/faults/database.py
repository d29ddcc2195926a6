"""Faults of PostgreSQL."""

import os
import signal
from contextlib import suppress

from tests.chaos.cluster import Cluster, eventually, sql
from tests.chaos.servers import on_server


async def kill_postgres(cluster: Cluster) -> None:
    """Kill PostgreSQL with SIGKILL and restart it."""
    cluster.servers.kill()
    cluster.servers.restart()


async def kill_backend(cluster: Cluster) -> None:
    """Kill a PostgreSQL backend with SIGKILL, which makes PostgreSQL end all backends and recover."""
    for backend in (await cluster.ask(sql.backends))[:1]:
        with suppress(ProcessLookupError):
            os.kill(backend, signal.SIGKILL)


async def end_backend(cluster: Cluster) -> None:
    """End a manager's database connection."""
    for backend in (await cluster.ask(sql.backends))[:1]:
        await cluster.ask(sql.end_backend, pid=backend)


async def promote_standby(cluster: Cluster) -> None:
    """Kill the primary PostgreSQL with SIGKILL and promote a synchronous standby."""
    servers = cluster.servers
    servers.start_standby()
    await cluster.ask(sql.use_standby)
    await cluster.ask(sql.reload)

    async def is_synchronous() -> bool:
        return await cluster.ask(sql.synchronous_standbys) == 1

    await eventually("the standby is synchronous", is_synchronous)
    await cluster.ask(sql.checkpoint)
    await cluster.wait_for_progress()
    servers.kill()
    await on_server(servers.promote_standby(), sql.promote)
