"""Programs that run out of an image as a cluster runs them."""

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

OWN_USER = "10001:0"
ANY_USER = "1000660000:0"
"""As OpenShift gives one: a number that no image knows, and the group 0."""

LIMIT = 30.0
"""Seconds for a start, a line or an end."""

# Mounts and processes of its own, which are gone when its PID 1 is: the program that ENTRYPOINT names. Nothing but /tmp
# can be written, and no right is left that root has. It ends with us, even if we are killed.
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
    """What an image's ENTRYPOINT starts, with these arguments instead of CMD, until the end of the `with` block.

    Args:
        image: Whose files it sees and whose settings it gets.
        arguments: What follows on ENTRYPOINT.
        tmp: A folder that is its /tmp, writable for everybody.
        user: Its user and group, as numbers.
        environment: More of it than the image's own.
    """

    def __init__(self, image: Image, *arguments: str, tmp: Path, user: str = OWN_USER, **environment: str) -> None:
        tmp.chmod(0o1777)
        variables = [*image.config.env, *(f"{name}={value}" for name, value in environment.items())]
        program = [*image.config.entrypoint, *arguments]
        places = [str(image.root), str(tmp), *user.split(":")]
        self._command: Sequence[str] = [*_UNSHARE, _SCRIPT, "sh", *places, *variables, *program]
        self._said: deque[str] = deque()
        self._more = threading.Condition()

    def __enter__(self) -> Self:
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=end_with_parent(signal.SIGKILL),  # noqa: PLW1509 - tests that are killed leave nothing behind
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def line(self, event: str) -> dict[str, Any]:
        """Wait for the line of its log that says this."""
        with self._more:
            found = self._more.wait_for(lambda: self._find(event), LIMIT)
        assert found, f"no line says {event!r}:\n{self.log}"
        return found

    @property
    def log(self) -> str:
        """All that it has said so far."""
        return "".join(self._said)

    def is_answered(self, url: str, status: int) -> float:
        """Wait until this status is answered there, asking as often as it takes; the seconds since the start."""
        answered: object = None
        while time.monotonic() < self.started + LIMIT:
            answered = self._ask(url)
            if answered == status:
                return time.monotonic() - self.started
            time.sleep(0.005)
        raise AssertionError(f"{url} answers {answered}:\n{self.log}")

    def terminate(self) -> None:
        """Send SIGTERM to its PID 1, and to nobody else."""
        pid = self._process.pid
        (first,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(first), signal.SIGTERM)

    def end(self) -> int:
        """Wait for its end; its exit code."""
        code = self._process.wait(LIMIT)
        self._reader.join()
        return code

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as said:
            for line in said:
                with self._more:
                    self._said.append(line)
                    self._more.notify_all()

    def _find(self, event: str) -> dict[str, Any]:
        for line in self._said:
            if line.startswith("{") and (fields := json.loads(line))["event"] == event:
                return fields
        return {}

    @staticmethod
    def _ask(url: str) -> object:
        try:
            return httpx2.get(url).status_code
        except httpx2.TransportError as error:
            return error
