"""The address that the manager listens on: IPv4, IPv6 or a name."""

import socket

BACKLOG = 4096
"""Connections that the kernel queues until the manager accepts them."""


def listen(host: str, port: int) -> socket.socket:
    """Return a listener. ``::`` includes IPv4; of a name with several addresses, IPv4 is preferred.

    Raises:
        OSError: The port is taken, or the address does not exist on this machine.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except ValueError as error:  # the text cannot be a host name
        raise OSError(0, str(error)) from None
    family, _, _, _, address = min(found, key=lambda info: info[0] is not socket.AF_INET)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            includes_ipv4 = str(address[0]) == "::" or str(address[0]).startswith("::ffff:")
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not includes_ipv4))
        listener.bind(address)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def url(host: str, port: int) -> str:
    """Return the URL of an address; an IPv6 address is in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
