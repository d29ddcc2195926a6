"""The application in docs/how-to/write-a-flask-view.md answers as the page says."""

import re
import sys
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from uuid import uuid4

import pytest
from flask.testing import FlaskClient
from jobnik_sdk import SyncProducer

from tools.ports import free_port

_PAGES: Final = Path(__file__).parents[2] / "docs" / "how-to"
_BLOCK: Final = re.compile(r"^```python\n([^`]+)^```$", re.MULTILINE)
_UPLOAD: Final = {"title": "Summer", "pictures": ["beach.jpg"]}


@pytest.fixture
def page(jobnik_manager: str, monkeypatch: pytest.MonkeyPatch) -> Generator[dict[str, Any]]:
    """The names in the application, which imports the first program of the other page."""
    first, view = (
        _BLOCK.findall((_PAGES / name).read_text())[0] for name in ("create-jobs.md", "write-a-flask-view.md")
    )
    program = ModuleType("create_gallery")
    exec(first, vars(program))  # noqa: S102 our own code
    monkeypatch.setitem(sys.modules, program.__name__, program)
    names: dict[str, Any] = {"__name__": "web"}
    exec(view.replace("http://127.0.0.1:8080", jobnik_manager), names)  # noqa: S102 our own code
    yield names
    names["producer"].close()


@pytest.fixture
def web(page: dict[str, Any]) -> FlaskClient:
    """A client of the application."""
    client: FlaskClient = page["app"].test_client()
    return client


def _post(web: FlaskClient, upload: object, key: str | None = None) -> Any:  # noqa: ANN401 the answer of the application
    return web.post("/galleries", json=upload, headers={"Idempotency-Key": key or str(uuid4())})


@pytest.mark.timeout(60)  # the first test starts a manager
def test_created_gallery_can_be_polled(web: FlaskClient) -> None:
    """A repeated request gets the same job."""
    first, second = (_post(web, _UPLOAD, "upload 4711") for _ in range(2))
    assert (first.status_code, first.json) == (202, second.json)
    progress = web.get(f"/galleries/{first.json['id']}")
    assert progress.json == {"status": "PENDING", "done": 0.0, "secondsLeft": None}


@pytest.mark.timeout(60)  # the first test starts a manager
def test_wrong_requests_are_refused(web: FlaskClient) -> None:
    """Each with the status of its kind, and a message."""
    invalid = _post(web, {"title": "Summer", "pictures": "beach.jpg"})
    assert (invalid.status_code, "pictures" in invalid.text) == (400, True)
    assert _post(web, _UPLOAD, "a key with a \t").status_code == 400
    assert web.post("/galleries", json=_UPLOAD).status_code == 400
    assert web.get(f"/galleries/{uuid4()}").status_code == 404
    key = str(uuid4())
    assert [_post(web, {**_UPLOAD, "title": title}, key).status_code for title in ("A", "B")] == [202, 409]


@pytest.mark.timeout(60)  # the first test starts a manager
def test_outages_are_temporary_errors(page: dict[str, Any], web: FlaskClient) -> None:
    """The client learns that it may repeat the request."""
    page["producer"].close()
    page["producer"] = SyncProducer(f"http://127.0.0.1:{free_port()}", timeout=timedelta(seconds=0.2))
    answer = _post(web, _UPLOAD)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
