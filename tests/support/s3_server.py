"""A real server with the S3 API: SeaweedFS, from a package."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2

from tests.support.plain_http import NO_CERTIFICATES

BUCKET = "archive"
KEY, SECRET = "a-key", "a-secret"
IDENTITIES = {
    "identities": [
        {
            "name": "tests",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
    ]
}
START_LIMIT = 60.0
"""Seconds."""


@contextmanager
def s3_server(folder: Path) -> Generator[Mapping[str, str]]:
    """Run a server with an empty bucket, and yield the environment variables for its clients."""
    ports = free_ports(8)
    identities = folder / "s3.json"
    identities.write_text(json.dumps(IDENTITIES))
    (folder / "data").mkdir()
    arguments = {
        "dir": folder / "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "s3": "true",
        "s3.config": identities,
        "master.port": ports[0],
        "master.port.grpc": ports[1],
        "volume.port": ports[2],
        "volume.port.grpc": ports[3],
        "filer.port": ports[4],
        "filer.port.grpc": ports[5],
        "s3.port": ports[6],
        "s3.port.grpc": ports[7],
        "master.volumeSizeLimitMB": 64,
    }
    log = (folder / "weed.log").open("wb")
    process = subprocess.Popen(  # noqa: S603 - a program of a package
        [Path(sys.executable).parent / "weed", "server", *(f"-{name}={value}" for name, value in arguments.items())],
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=folder,
    )
    try:
        endpoint = f"http://127.0.0.1:{ports[6]}"
        _create_bucket(f"http://127.0.0.1:{ports[4]}/buckets/{BUCKET}/")
        yield {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }
    finally:
        process.terminate()
        process.wait()
        log.close()


def _create_bucket(folder_of_filer: str) -> None:
    """Create a bucket, which is a folder of the server's file system, as soon as the server accepts it."""
    give_up = time.monotonic() + START_LIMIT
    while True:
        try:
            response = httpx2.post(folder_of_filer, timeout=5, verify=NO_CERTIFICATES)
        except httpx2.TransportError:
            response = None
        if response is not None and response.is_success:
            return
        if time.monotonic() > give_up:
            raise TimeoutError("the S3 server does not start")
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Return ports that are free now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
