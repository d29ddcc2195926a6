"""Faults of the networks in front of the managers, and between them and PostgreSQL."""

import asyncio
from random import Random

from tests.chaos.cluster import Cluster, eventually
from tests.chaos.faults.repairs import Repair, in_background
from tests.chaos.servers import Networks
from tools.proxy import Cut, RequestFault

OUTAGE, LONG_OUTAGE = 2.5, 30.0
"""Seconds of a network outage: longer than a lease, and longer than any client's timeout."""
FAULT_RATE = 0.3
"""Share of requests with a fault."""
_FAULTS = [fault for fault in RequestFault if fault is not RequestFault.DRIPPING]
"""Faults that also clients without a limit for the duration of a request survive."""
DELAYS = 0.05, 0.5
"""Seconds by which an answer of a slow PostgreSQL is late: the minimum and the maximum."""
SLOW_TIME = 4.0
"""Seconds for which PostgreSQL is slow."""


async def cut_network(cluster: Cluster, *, length: float = OUTAGE) -> Repair:
    """Cut the network in front of a manager, which refuses connections or loses data."""
    proxy = cluster.random.choice(cluster.proxies)
    proxy.cut(cluster.random.choice(list(Cut)))

    async def restore() -> None:
        await asyncio.sleep(length)
        proxy.mend()

    return in_background(restore())


async def cut_network_for_long(cluster: Cluster) -> Repair:
    """Cut the network in front of a manager for half a minute."""
    return await cut_network(cluster, length=LONG_OUTAGE)


async def drop_answers(cluster: Cluster) -> Repair:
    """Inject every request fault on every proxy."""
    before = {proxy: proxy.fault_counts.copy() for proxy in cluster.proxies}
    for proxy in cluster.proxies:
        random = Random(cluster.random.random())  # noqa: S311 - each proxy runs in its own thread
        proxy.choose = lambda _request, random=random: random.choice(_FAULTS) if random.random() < FAULT_RATE else None

    async def repair() -> None:
        async def enough() -> bool:
            return all(proxy.fault_counts[kind] > before[proxy][kind] for proxy in cluster.proxies for kind in _FAULTS)

        await eventually("every request fault happens", enough)
        for proxy in cluster.proxies:
            proxy.choose = lambda _request: None

    return repair


async def silence_connection(cluster: Cluster) -> Repair:
    """Silence one connection of a manager to PostgreSQL, which stays open."""
    networks = cluster.random.choice(cluster.networks)
    networks.to_primary.silence_one(cluster.random.choice)
    return in_background(_wait_until_replaced(networks))


async def silence_database(cluster: Cluster) -> Repair:
    """Silence all connections of a manager to PostgreSQL, which stay open."""
    networks = cluster.random.choice(cluster.networks)
    for network in networks.all:
        network.silence()

    async def mend() -> None:
        await asyncio.sleep(OUTAGE)
        for network in networks.all:
            network.mend()
        await _wait_until_replaced(networks)

    return in_background(mend())


async def slow_database(cluster: Cluster) -> Repair:
    """Delay all answers of PostgreSQL."""
    networks = [network for networks in cluster.networks for network in networks.all]
    for network in networks:
        random = Random(cluster.random.random())  # noqa: S311 - each network runs in its own thread
        network.choose_delay = lambda random=random: random.uniform(*DELAYS)

    async def recover() -> None:
        await asyncio.sleep(SLOW_TIME)
        for network in networks:
            network.choose_delay = lambda: 0.0

    return in_background(recover())


async def _wait_until_replaced(networks: Networks) -> None:
    """Wait until a manager has closed its silent connections."""

    async def are_closed() -> bool:
        return not any(network.has_silent_connections for network in networks.all)

    await eventually("the manager replaces silent connections", are_closed)
