"""Free ports, for programs that cannot choose one themselves."""

import socket
from contextlib import ExitStack


def two_free_ports() -> int:
    """Return a port such that it and the next one are free."""
    while True:
        with ExitStack() as held:
            port = held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            try:
                held.enter_context(socket.create_server(("127.0.0.1", port + 1)))
            except (OSError, OverflowError):
                continue
            return port
