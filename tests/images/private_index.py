"""A private package index: it requires a password, serves its own packages, and redirects to another index."""

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
PASSWORD = "only-for-the-build"  # noqa: S105 - the index exists only during the tests


class _Index(SimpleHTTPRequestHandler):
    """Serves the folders of its own packages, and redirects all other requests to the index `behind`."""

    def __init__(self, *arguments: Any, behind: str, **options: Any) -> None:  # noqa: ANN401 - passed on to the base class
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

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        """Log nothing."""


@contextmanager
def private_index(packages: Path, behind: str) -> Generator[str]:
    """Serve an index and yield its URL.

    Args:
        packages: Folder with a subfolder for each package.
        behind: URL of the index that has all other packages.
    """
    handler = partial(_Index, directory=packages, behind=behind)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
