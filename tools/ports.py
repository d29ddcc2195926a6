"""Free ports, for programs that cannot choose one themselves."""

import random
import socket
from contextlib import ExitStack
from typing import Final

_FIRST: Final = 20_000
_LAST: Final = 31_999
"""Below the range from which Linux (32768) and macOS (49152) take ports, so that no connection takes one meanwhile."""

_MAX_TRIES: Final = 1000


def free_port(count: int = 1) -> int:
    """Return a port such that it and the ones after it are free.

    It is chosen at random, so that programs that start at the same time get different ones.

    Args:
        count: How many ports in a row.

    Raises:
        RuntimeError: no free ports were found.
    """
    for _ in range(_MAX_TRIES):
        first = random.randint(_FIRST, _LAST - count + 1)  # noqa: S311 - nothing secret
        with ExitStack() as held:
            try:
                for port in range(first, first + count):
                    # Without SO_REUSEADDR, so that this fails also on a port that is bound but not listened to.
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise RuntimeError(f"No {count} free ports in a row from {_FIRST} to {_LAST}")
