"""Buildah, which builds and mounts images without a container engine, with its own storage."""

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_pascal


class Config(BaseModel):
    """The configuration of an image."""

    model_config = ConfigDict(alias_generator=to_pascal)

    user: str
    env: list[str]
    entrypoint: list[str]
    cmd: list[str] | None = None
    exposed_ports: dict[str, object]
    labels: dict[str, str]


@dataclass(frozen=True)
class Image:
    """An image whose files are mounted at `root` while its Buildah is open."""

    name: str
    root: Path
    config: Config
    layers: list[str]
    """The hash of each layer, lowest first."""
    inspection: str
    """The output of `buildah inspect`, including the history."""


class Buildah:
    """Builds and opens images. Everything is unmounted at the end of the `with` block.

    Args:
        storage: Folder for images, which later runs reuse.
        state: Empty folder for mounts and containers.
    """

    def __init__(self, storage: Path, state: Path) -> None:
        temporary = storage / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        self._command = ["buildah", "--root", str(storage / "images"), "--runroot", str(state)]
        # With chroot isolation a build also works inside a container. The build caches are in TMPDIR.
        self._environment = os.environ | {"BUILDAH_ISOLATION": "chroot", "TMPDIR": str(temporary)}

    def __enter__(self) -> Self:
        self._clean_up()  # in case an earlier run was killed
        return self

    def __exit__(self, *_: object) -> None:
        self._clean_up()

    def has(self, name: str) -> bool:
        """Return whether an image exists."""
        images: list[dict[str, list[str] | None]] = json.loads(self._run("images", "--json") or "[]")
        return any(name in (image["names"] or ()) for image in images)

    def build(self, name: str, context: Path, *options: str | Path, secrets: Mapping[str, Path] | None = None) -> None:
        """Build an image as `docker build --tag NAME CONTEXT` does, without pulling base images."""
        given = [f"--secret=id={secret},src={file}" for secret, file in (secrets or {}).items()]
        self._run("build", "--pull-never", "--format=docker", "--layers", f"--tag={name}", *given, *options, context)

    def make(self, name: str, fill: Callable[[Path], None]) -> None:
        """Create an image from the files that `fill` writes to the folder it receives."""
        container = self._run("from", "scratch")
        fill(Path(self._run("mount", container)))
        self._run("commit", "--rm", "--format=docker", container, name)

    def mount(self, name: str) -> Path:
        """Mount an image and return the folder with its files."""
        return Path(self._run("mount", self._run("from", "--pull-never", name)))

    def open(self, name: str) -> Image:
        """Mount an image and read its configuration."""
        inspection = self._run("inspect", "--type=image", name)
        docker = json.loads(inspection)["Docker"]
        config = Config.model_validate(docker["config"])
        return Image(name, self.mount(name), config, docker["rootfs"]["diff_ids"], inspection)

    def _clean_up(self) -> None:
        self._run("umount", "--all")
        self._run("rm", "--all")
        self._run("rmi", "--prune")

    def _run(self, *arguments: str | Path) -> str:
        command: Sequence[str] = [*self._command, *map(str, arguments)]
        result = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}\n{result.stderr}"
        return result.stdout.strip()
