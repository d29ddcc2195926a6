"""A manager with a certificate from a private authority: the chart's settings are enough to trust it."""

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

from tests.template.charts import DOWNLOAD_TIMEOUT, Chart, pods_in

pytestmark = pytest.mark.timeout(DOWNLOAD_TIMEOUT)


@dataclass(frozen=True)
class Site:
    """An HTTPS server."""

    url: str
    certificates: Path
    """The certificate file of its authority."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Start an HTTPS server that serves /liveness, as a manager does."""
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
    """Return the pods of a release with a private authority, by the name of their container."""
    rendered = worker_chart.render({"ca": {"secret": "authority", "key": "root.pem"}})
    return {pod["containers"][0]["name"]: pod for pod in pods_in(rendered)}


def test_every_pod_mounts_the_certificates(pods: dict[str, Any]) -> None:
    """SSL_CERT_FILE points to the secret's certificates in the worker and in the pod of `helm test`."""
    assert set(pods) == {"worker", "manager"}
    for pod in pods.values():
        (container,) = pod["containers"]
        (setting,) = container["env"]
        mounted = {mount["name"]: Path(mount["mountPath"]) for mount in container["volumeMounts"]}
        (volume,) = (volume for volume in pod["volumes"] if "secret" in volume)
        (item,) = volume["secret"]["items"]
        assert (volume["secret"]["secretName"], item["key"]) == ("authority", "root.pem")
        assert setting == {"name": "SSL_CERT_FILE", "value": str(mounted[volume["name"]] / item["path"])}


async def test_the_sdk_trusts_the_certificates(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """With SSL_CERT_FILE the SDK reaches a manager that it does not trust otherwise."""
    async with JobnikClient(site.url) as client:
        with pytest.raises(UnreachableError, match="CERTIFICATE_VERIFY_FAILED"):
            await client.request("GET", "/liveness", retry=False)

    monkeypatch.setenv("SSL_CERT_FILE", str(site.certificates))
    async with JobnikClient(site.url) as client:
        assert (await client.request("GET", "/liveness")).is_success


def test_helm_test_trusts_the_certificates(site: Site, pods: dict[str, Any]) -> None:
    """With SSL_CERT_FILE the program of `helm test` reaches a manager that it does not trust otherwise."""
    (container,) = pods["manager"]["containers"]
    command = [sys.executable, *container["command"][1:], *container["args"]]
    run = partial(subprocess.run, command, capture_output=True, text=True, check=False)

    refused = run(env={"JOBNIK_BASE_URL": site.url})
    trusted = run(env={"JOBNIK_BASE_URL": site.url, "SSL_CERT_FILE": str(site.certificates)})

    assert "CERTIFICATE_VERIFY_FAILED" in refused.stderr
    assert trusted.stdout == f"{site.url}/liveness 200\n"
