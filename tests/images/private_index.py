"""A package index as a company has one: behind a password, with packages of its own and a way to all others."""

import base64
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

USER = "builder"
PASSWORD = "only-for-the-build"  # noqa: S105 - the index is gone when the tests are over


class _Index(SimpleHTTPRequestHandler):
    """Lists the folder of a package that is here, and leads to the index behind for any other."""

    def __init__(self, *arguments: Any, behind: str, **options: Any) -> None:  # noqa: ANN401 - whatever the server passes
        self._behind = behind
        super().__init__(*arguments, **options)

    def do_GET(self) -> None:
        allowed = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers["Authorization"] != f"Basic {allowed}":
            self.send_error(HTTPStatus.UNAUTHORIZED)
        elif Path(self.translate_path(self.path)).exists():
            super().do_GET()
        else:
            self.send_response(HTTPStatus.FOUND)
            self.send_header("Location", self._behind + self.path)
            self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as its base calls it
        """Say nothing."""


@contextmanager
def private_index(packages: Path, behind: str) -> Generator[str]:
    """Serve `packages`, which has a folder for each package; give the address of the index.

    `behind` is the address of another index, which has all others.
    """
    handler = partial(_Index, directory=packages, behind=behind)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
