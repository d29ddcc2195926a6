"""Buildah, which builds images and mounts what is in them without a container engine, on a storage of its own."""

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
    """What an image says about how it is run."""

    model_config = ConfigDict(alias_generator=to_pascal)

    user: str
    env: list[str]
    entrypoint: list[str]
    cmd: list[str] | None = None
    exposed_ports: dict[str, object]
    labels: dict[str, str]


@dataclass(frozen=True)
class Image:
    """An image whose files lie at `root`, for as long as its Buildah is open."""

    name: str
    root: Path
    config: Config
    layers: list[str]
    """The hash of what is in each, from the lowest."""
    said: str
    """All that is recorded about it, its history included."""


class Buildah:
    """Builds images and opens them, in a `with` block, at whose end nothing is mounted any more.

    Args:
        storage: Where images are kept, for the next time too.
        state: An empty folder, for what is mounted and what runs.
    """

    def __init__(self, storage: Path, state: Path) -> None:
        temporary = storage / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        self._command = ["buildah", "--root", str(storage / "images"), "--runroot", str(state)]
        # In a chroot of its own a build needs no rights that a container lacks; caches of builds lie in TMPDIR.
        self._environment = os.environ | {"BUILDAH_ISOLATION": "chroot", "TMPDIR": str(temporary)}

    def __enter__(self) -> Self:
        self._clean_up()  # after a run that was killed
        return self

    def __exit__(self, *_: object) -> None:
        self._clean_up()

    def has(self, name: str) -> bool:
        """Whether there is such an image."""
        images: list[dict[str, list[str] | None]] = json.loads(self._run("images", "--json") or "[]")
        return any(name in (image["names"] or ()) for image in images)

    def build(self, name: str, context: Path, *options: str | Path, secrets: Mapping[str, Path] | None = None) -> None:
        """Build an image as `docker build --tag NAME CONTEXT` does, from images that are here already."""
        given = [f"--secret=id={secret},src={file}" for secret, file in (secrets or {}).items()]
        self._run("build", "--pull-never", "--format=docker", "--layers", f"--tag={name}", *given, *options, context)

    def make(self, name: str, fill: Callable[[Path], None]) -> None:
        """Make an image of what `fill` puts into the folder that it is given."""
        container = self._run("from", "scratch")
        fill(Path(self._run("mount", container)))
        self._run("commit", "--rm", "--format=docker", container, name)

    def mount(self, name: str) -> Path:
        """Give the folder where what is in an image lies."""
        return Path(self._run("mount", self._run("from", "--pull-never", name)))

    def open(self, name: str) -> Image:
        """Mount an image, and read what it says."""
        said = self._run("inspect", "--type=image", name)
        docker = json.loads(said)["Docker"]
        config = Config.model_validate(docker["config"])
        return Image(name, self.mount(name), config, docker["rootfs"]["diff_ids"], said)

    def _clean_up(self) -> None:
        self._run("umount", "--all")
        self._run("rm", "--all")
        self._run("rmi", "--prune")

    def _run(self, *arguments: str | Path) -> str:
        command: Sequence[str] = [*self._command, *map(str, arguments)]
        result = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}\n{result.stderr}"
        return result.stdout.strip()
