"""The manager's image at work."""

from collections.abc import Callable
from http import HTTPStatus

import httpx2
import pytest

from tests.images.buildah import Image
from tests.images.containers import ANY_USER, OWN_USER, Container

pytestmark = [
    # Whichever test comes first waits for the image to be built.
    pytest.mark.timeout(600),
    pytest.mark.parametrize("image", ["manager_image"], indirect=True),
]

Run = Callable[..., Container]


def test_it_migrates(image: Image, run: Run, database_url: str) -> None:
    """`migrate` brings a database up to date and ends."""
    assert run(image, "migrate", JOBNIK_MANAGER_DATABASE_URL=database_url).end() == 0


@pytest.mark.parametrize("user", [OWN_USER, ANY_USER])
def test_it_serves_and_stops(
    image: Image, run: Run, database_url: str, user: str, record_property: Callable[[str, object], None]
) -> None:
    """As its own user or any other it becomes ready, answers its probes, and ends with 0 when it is asked to."""
    serve = ("serve", "--host", "127.0.0.1", "--port", "0")
    manager = run(image, *serve, user=user, JOBNIK_MANAGER_DATABASE_URL=database_url)

    url = manager.line("manager is ready")["url"]
    seconds = manager.is_answered(f"{url}/readiness", HTTPStatus.OK)

    assert [httpx2.get(url + path).status_code for path in ("/liveness", "/metrics")] == [HTTPStatus.OK] * 2
    manager.terminate()
    assert manager.end() == 0
    record_property("ready", f"{seconds:.1f} s")


def test_it_wants_a_database(image: Image, run: Run) -> None:
    """Without the URL of a database it ends, and says what to give it."""
    manager = run(image, "serve")

    assert manager.end() == 1
    assert "give the manager the URL of a database" in manager.log


def test_it_serves_in_a_container_by_itself(image: Image) -> None:
    """Without arguments it serves, and can be reached from outside."""
    assert (image.config.entrypoint, image.config.cmd) == (["jobnik-manager"], ["serve", "--host", "0.0.0.0"])  # noqa: S104
