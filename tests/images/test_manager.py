"""The manager's image, running."""

from collections.abc import Callable
from http import HTTPStatus

import httpx2
import pytest

from tests.images.buildah import Image
from tests.images.containers import ANY_USER, OWN_USER, Container

pytestmark = [
    # The first test waits until the image is built.
    pytest.mark.timeout(600),
    pytest.mark.parametrize("image", ["manager_image"], indirect=True),
]

Run = Callable[..., Container]


def test_manager_migrates_the_database(image: Image, run: Run, database_url: str) -> None:
    """`migrate` updates the database and exits with 0."""
    assert run(image, "migrate", JOBNIK_MANAGER_DATABASE_URL=database_url).end() == 0


@pytest.mark.parametrize("user", [OWN_USER, ANY_USER])
def test_manager_serves_and_stops(
    image: Image, run: Run, database_url: str, user: str, record_property: Callable[[str, object], None]
) -> None:
    """As its own or any other user, the manager becomes ready, serves its probes, and exits with 0 after SIGTERM."""
    serve = ("serve", "--host", "127.0.0.1", "--port", "0")
    manager = run(image, *serve, user=user, JOBNIK_MANAGER_DATABASE_URL=database_url)

    url = manager.line("manager is ready")["url"]
    seconds = manager.wait_for_status(f"{url}/readiness", HTTPStatus.OK)

    assert [httpx2.get(url + path).status_code for path in ("/liveness", "/metrics")] == [HTTPStatus.OK] * 2
    manager.terminate()
    assert manager.end() == 0
    record_property("ready", f"{seconds:.1f} s")


def test_manager_requires_a_database_url(image: Image, run: Run) -> None:
    """Without a database URL the manager exits with 1 and explains how to set one."""
    manager = run(image, "serve")

    assert manager.end() == 1
    assert "set the URL of a database" in manager.log


def test_manager_serves_on_all_interfaces_by_default(image: Image) -> None:
    """Without arguments the image serves on all interfaces."""
    assert (image.config.entrypoint, image.config.cmd) == (["jobnik-manager"], ["serve", "--host", "0.0.0.0"])  # noqa: S104
