"""What tests know of the manager that they run against."""

from dataclasses import dataclass

import httpx2


@dataclass(frozen=True)
class Manager:
    """A manager: where it is, how it is reached (None: by the network), and whether it has part B of the protocol."""

    url: str
    transport: httpx2.AsyncBaseTransport | None
    part_b: bool
