"""Where everything is."""

import errno
import hashlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobnik_sdk.errors import ConfigurationError

HOST: Final = "127.0.0.1"
HIGHEST_PORT: Final = 65_534
"""The manager's, since the probes take the next one."""
_DATA_DIR: Final = "JOBNIK_MANAGER_DATA_DIR"


@dataclass(frozen=True)
class Places:
    """A project, its package, and the port of its manager."""

    project: Path
    package: str
    port: int

    @property
    def manager(self) -> str:
        """The manager's address."""
        return f"http://{HOST}:{self.port}"

    @property
    def probe_port(self) -> int:
        """Where the worker serves probes and metrics."""
        return self.port + 1

    @property
    def seed(self) -> Path:
        """The program that creates a first job; a project need not have it."""
        return self.project / "seed.py"

    @property
    def data(self) -> Path:
        """The manager's data: in the project, out of git's sight, unless the manager's own variable names a folder.

        Root's lies elsewhere: PostgreSQL runs as another user then, who may pass neither /root nor many a mount.
        """
        if said := os.environ.get(_DATA_DIR):
            return Path(said)
        if os.geteuid() != 0:
            return self.project / ".dev" / "manager"
        digest = hashlib.sha256(bytes(self.project)).hexdigest()[:8]
        return Path("/var/lib/jobnik-dev") / f"{self.project.name}-{digest}"

    def check_ports(self) -> None:
        """Make sure that both ports are free.

        Raises:
            ConfigurationError: one is taken; the message says how to take others.
        """
        for port, what in ((self.port, "the manager"), (self.probe_port, "the worker's probes")):
            try:
                socket.create_server((HOST, port)).close()
            except OSError as error:
                reason = os.strerror(error.errno or errno.EADDRINUSE).lower()
                raise ConfigurationError(
                    f"Port {port}, for {what}, cannot be had: {reason}. "
                    f"End what listens there, or take other ports: make dev PORT={self._others}"
                ) from error

    @property
    def _others(self) -> int:
        return self.port + 10 if self.port + 10 <= HIGHEST_PORT else 8080
