"""Asks a server of `fork_server` to run a program. As a program itself, it runs another one in its own place.

Usage: python -I -S fork_client.py ADDRESS MODULE [ARGUMENT ...]
"""

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence


def request(  # noqa: PLR0913 - all that makes up a process
    address: str,
    module: str,
    arguments: Sequence[str],
    *,
    folder: str,
    environment: Mapping[str, str],
    descriptors: tuple[int, int, int],
) -> socket.socket:
    """Ask a server to run a module as a program.

    Args:
        address: The address of the server.
        module: The name of the module.
        arguments: The arguments of the program.
        folder: Its current folder.
        environment: All its environment variables.
        descriptors: The file descriptors of its standard input, output and error.

    Returns:
        A socket that sends two numbers: the process id and, when the process has ended, its exit code.
    """
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.connect(f"\0{address}")
    message = json.dumps([module, list(arguments), folder, dict(environment)])
    socket.send_fds(server, [message.encode()], descriptors)
    return server


def receive_number(status: socket.socket) -> int:
    """Wait for the next number."""
    return int(status.recv(32))


def main() -> int:
    """Run the program of the command line, and return its exit code, which for a signal is that of a shell."""
    address, module, *arguments = sys.argv[1:]
    folder = os.getcwd()  # noqa: PTH109 - pathlib takes longer to import than this program runs
    with request(address, module, arguments, folder=folder, environment=os.environ, descriptors=(0, 1, 2)) as status:
        receive_number(status)
        code = receive_number(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
