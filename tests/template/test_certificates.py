"""A manager whose certificate an authority of one's own has signed: what the chart sets is all that it takes."""

import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import trustme
from jobnik_sdk import JobnikClient, UnreachableError

from tests.template.charts import FETCHING, Chart, pods_in

pytestmark = pytest.mark.timeout(FETCHING)


@dataclass(frozen=True)
class Site:
    """What answers by https."""

    url: str
    certificates: Path
    """Of its authority."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Give a site that answers, at /liveness as a manager does."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)  # pyright: ignore[reportUnknownMemberType] PyOpenSSL may miss
    certificates = tmp_path / "ca.crt"
    authority.cert_pem.write_to_path(str(certificates))
    (tmp_path / "liveness").touch()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path)) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield Site(f"https://127.0.0.1:{server.server_port}", certificates)
        server.shutdown()


@pytest.fixture
def pods(worker_chart: Chart) -> dict[str, Any]:
    """Give the containers of a worker that was told of its authority, by their name."""
    rendered = worker_chart.render({"ca": {"secret": "authority", "key": "root.pem"}})
    return {pod["containers"][0]["name"]: pod for pod in pods_in(rendered)}


def test_every_pod_has_the_certificates(pods: dict[str, Any]) -> None:
    """The worker and the pod of helm's test find the secret's certificates where their setting points."""
    assert set(pods) == {"worker", "manager"}
    for pod in pods.values():
        (container,) = pod["containers"]
        (setting,) = container["env"]
        mounted = {mount["name"]: Path(mount["mountPath"]) for mount in container["volumeMounts"]}
        (volume,) = (volume for volume in pod["volumes"] if "secret" in volume)
        (item,) = volume["secret"]["items"]
        assert (volume["secret"]["secretName"], item["key"]) == ("authority", "root.pem")
        assert setting == {"name": "SSL_CERT_FILE", "value": str(mounted[volume["name"]] / item["path"])}


async def test_the_worker_trusts_them(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """By that setting the SDK reaches a manager that it would not trust without it."""
    async with JobnikClient(site.url) as client:
        with pytest.raises(UnreachableError, match="CERTIFICATE_VERIFY_FAILED"):
            await client.request("GET", "/liveness", retry=False)

    monkeypatch.setenv("SSL_CERT_FILE", str(site.certificates))
    async with JobnikClient(site.url) as client:
        assert (await client.request("GET", "/liveness")).is_success


def test_the_test_of_helm_trusts_them(site: Site, pods: dict[str, Any]) -> None:
    """So does what the pod of helm's test runs."""
    (container,) = pods["manager"]["containers"]
    command = [sys.executable, *container["command"][1:], *container["args"]]
    run = partial(subprocess.run, command, capture_output=True, text=True, check=False)

    refused = run(env={"JOBNIK_BASE_URL": site.url})
    trusted = run(env={"JOBNIK_BASE_URL": site.url, "SSL_CERT_FILE": str(site.certificates)})

    assert "CERTIFICATE_VERIFY_FAILED" in refused.stderr
    assert trusted.stdout == f"{site.url}/liveness 200\n"
