"""Ports for programs that take no free one by themselves."""

import socket
from contextlib import ExitStack


def two_free_ports() -> int:
    """Find a port that is free, as the next one is."""
    while True:
        with ExitStack() as held:
            port = held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            try:
                held.enter_context(socket.create_server(("127.0.0.1", port + 1)))
            except (OSError, OverflowError):
                continue
            return port
