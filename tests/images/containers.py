"""Programs of an image that run as in a cluster."""

import json
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import httpx2
from reference_manager.embedded.process import end_with_parent

from tests.images.buildah import Image
from tests.support.plain_http import NO_CERTIFICATES

OWN_USER = "10001:0"
ANY_USER = "1000660000:0"
"""A user as OpenShift assigns it: an id that no image knows, and the group 0."""

LIMIT = 30.0
"""Time limit in seconds for a start, a log line or an exit."""

# The program of ENTRYPOINT runs as PID 1 in its own mount and PID namespaces, which end with it. Only /tmp is writable,
# and the program has no capabilities. It ends with the test process, even if that is killed.
_UNSHARE = ("unshare", "--mount", "--pid", "--fork", "sh", "-ec")
_SCRIPT = """
root=$1 tmp=$2 uid=$3 gid=$4; shift 4
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind "$tmp" "$root/tmp"
exec chroot "$root" setpriv --reuid "$uid" --regid "$gid" --clear-groups --bounding-set=-all --inh-caps=-all \
  --no-new-privs --pdeathsig KILL env -i "$@"
"""


class Container:
    """The ENTRYPOINT of an image with these arguments instead of CMD, running until the end of the `with` block.

    Args:
        image: The image with the files and the configuration.
        arguments: The arguments of ENTRYPOINT.
        tmp: The folder to mount at /tmp, which is made writable for all users.
        user: The numeric user and group.
        environment: Environment variables in addition to the image's.
    """

    def __init__(self, image: Image, *arguments: str, tmp: Path, user: str = OWN_USER, **environment: str) -> None:
        tmp.chmod(0o1777)
        variables = [*image.config.env, *(f"{name}={value}" for name, value in environment.items())]
        program = [*image.config.entrypoint, *arguments]
        parameters = [str(image.root), str(tmp), *user.split(":")]
        self._command: Sequence[str] = [*_UNSHARE, _SCRIPT, "sh", *parameters, *variables, *program]
        self._lines: deque[str] = deque()
        self._more = threading.Condition()

    def __enter__(self) -> Self:
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=end_with_parent(signal.SIGKILL),  # noqa: PLW1509 - the container ends when the tests are killed
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def line(self, event: str) -> dict[str, Any]:
        """Wait for an event in the log, and return its fields."""
        with self._more:
            found = self._more.wait_for(lambda: self._find(event), LIMIT)
        assert found, f"no event {event!r} in the log:\n{self.log}"
        return found

    @property
    def log(self) -> str:
        """The output so far."""
        return "".join(self._lines)

    def wait_for_status(self, url: str, status: int) -> float:
        """Poll a URL until it returns this status, and return the seconds since the start."""
        response: object = None
        while time.monotonic() < self.started + LIMIT:
            response = self._request(url)
            if response == status:
                return time.monotonic() - self.started
            time.sleep(0.005)
        raise AssertionError(f"{url} returns {response}:\n{self.log}")

    def terminate(self) -> None:
        """Send SIGTERM to PID 1 of the container alone."""
        os.kill(self._first, signal.SIGTERM)

    @property
    def first_command(self) -> Sequence[str]:
        """The command line of PID 1 of the container."""
        return Path(f"/proc/{self._first}/cmdline").read_text().split("\0")

    @property
    def _first(self) -> int:
        pid = self._process.pid
        (first,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(first)

    def end(self) -> int:
        """Wait until the program ends, and return its exit code."""
        code = self._process.wait(LIMIT)
        self._reader.join()
        return code

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                with self._more:
                    self._lines.append(line)
                    self._more.notify_all()

    def _find(self, event: str) -> dict[str, Any]:
        for line in self._lines:
            if line.startswith("{") and (fields := json.loads(line))["event"] == event:
                return fields
        return {}

    @staticmethod
    def _request(url: str) -> object:
        try:
            return httpx2.get(url, verify=NO_CERTIFICATES).status_code
        except httpx2.TransportError as error:
            return error
