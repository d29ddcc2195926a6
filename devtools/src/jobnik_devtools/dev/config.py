"""The paths, ports and addresses of one `make dev`."""

import errno
import hashlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobnik_sdk.errors import ConfigurationError

HOST: Final = "127.0.0.1"
MAX_PORT: Final = 65_534
"""The highest port for the manager, since the worker's probes use the next one."""
_DATA_DIR: Final = "JOBNIK_MANAGER_DATA_DIR"


@dataclass(frozen=True)
class DevConfig:
    """The configuration of one `make dev`.

    Args:
        project: The folder of the project.
        package: The package of the worker.
        port: The port of the manager.
    """

    project: Path
    package: str
    port: int

    @property
    def manager(self) -> str:
        """The address of the manager."""
        return f"http://{HOST}:{self.port}"

    @property
    def probe_port(self) -> int:
        """The port of the worker's probes and metrics."""
        return self.port + 1

    @property
    def seed(self) -> Path:
        """The program that creates the first job. A project need not have it."""
        return self.project / "seed.py"

    @property
    def data(self) -> Path:
        """The folder of the manager's data: `.dev/manager` in the project, or JOBNIK_MANAGER_DATA_DIR if it is set.

        For root it is below /var/lib/jobnik-dev: PostgreSQL then runs as another user, who has no access to /root and
        to many mounted folders.
        """
        if folder := os.environ.get(_DATA_DIR):
            return Path(folder)
        if os.geteuid() != 0:
            return self.project / ".dev" / "manager"
        digest = hashlib.sha256(bytes(self.project)).hexdigest()[:8]
        return Path("/var/lib/jobnik-dev") / f"{self.project.name}-{digest}"

    def check_ports(self) -> None:
        """Check that both ports are free.

        Raises:
            ConfigurationError: a port is in use or not allowed; the message says how to choose other ports.
        """
        for port, user in ((self.port, "the manager"), (self.probe_port, "the worker's probes")):
            try:
                socket.create_server((HOST, port)).close()
            except OSError as error:
                reason = os.strerror(error.errno or errno.EADDRINUSE).lower()
                raise ConfigurationError(
                    f"Port {port} for {user} is not available: {reason}. "
                    f"Stop the program that uses it, or choose other ports: make dev PORT={self._other_port}"
                ) from error

    @property
    def _other_port(self) -> int:
        return self.port + 10 if self.port + 10 <= MAX_PORT else 8080
