"""The manager that a test runs against."""

from dataclasses import dataclass

import httpx2


@dataclass(frozen=True)
class Manager:
    """A manager.

    Args:
        url: Its address.
        transport: The transport to it; None for the network.
        part_b: Whether it has part B of the protocol.
        is_original: Whether it is the original manager, or its successor, where these differ from part A.
    """

    url: str
    transport: httpx2.AsyncBaseTransport | None
    part_b: bool
    is_original: bool = False
