"""The manager's address, and the proxies and certificates that the environment sets for it."""

import os
import re
import ssl
from dataclasses import dataclass, field
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Final, Self
from urllib.request import getproxies

import httpx2

from jobnik_sdk.errors import ConfigurationError
from jobnik_sdk.observability.secrets import mask_url

_MAX_PORT: Final = 65_535
_MAX_HOST: Final = 253
_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_CERTIFICATES: Final = "SSL_CERT_FILE"
_KEY_LOG: Final = "SSLKEYLOGFILE"


ADDRESS_VARIABLE: Final = "JOBNIK_BASE_URL"
"""The environment variable with the address of the manager."""


def address_in_environment() -> str:
    """Return the manager's address from the environment.

    Raises:
        ConfigurationError: the variable is not set.
    """
    address = os.environ.get(ADDRESS_VARIABLE)
    if not address:
        raise ConfigurationError(
            f"{ADDRESS_VARIABLE} is not set: set it to the manager's address, such as http://127.0.0.1:8080, or pass "
            "the address."
        )
    return address


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a manager.

    Attributes:
        url: The URL without the user's name and password, so that it can be logged.
        auth: The user's name and password; None: the URL has none.
        uses_proxy: Whether the proxies of the environment apply; they do not apply to this machine.
    """

    url: str
    auth: tuple[str, str] | None = field(repr=False)
    uses_proxy: bool

    @classmethod
    def parse(cls, base_url: str) -> Self:
        """Return the address for a URL.

        Raises:
            ConfigurationError: see `check_base_url`.
        """
        url = httpx2.URL(check_base_url(base_url))
        if not url.userinfo:
            return cls(base_url, None, not _is_local(url.host))
        public = url.copy_with(username=None, password=None)
        return cls(str(public), (url.username, url.password), not _is_local(url.host))

    @property
    def is_direct(self) -> bool:
        """Whether the environment has no proxy at present that may apply."""
        return not self.uses_proxy or not getproxies().keys() & {"http", "https", "all"}

    def check_proxies(self) -> None:
        """Check the proxies of the environment, if they apply.

        Raises:
            ConfigurationError: one is invalid; the message names the variable.
        """
        if not self.uses_proxy or "*" in re.split(r"[\s,]+", _variable("NO_PROXY")[1]):
            return
        for name, proxy in map(_variable, _PROXIES):
            if proxy:
                _check_proxy(name, proxy)

    def ssl_context(self) -> ssl.SSLContext:
        """Return the certificates to trust: for https those of the operating system, for http none.

        Loading them takes about 0.1 s and some megabytes, so it happens once per client, and never for http.

        Raises:
            ConfigurationError: a file that the environment names cannot be used.
        """
        if httpx2.URL(self.url).scheme != "https":
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            return httpx2.create_ssl_context()
        except (OSError, ValueError) as error:
            is_key_log = isinstance(error, OSError) and error.filename == os.environ.get(_KEY_LOG, "")
            name = _KEY_LOG if is_key_log else _CERTIFICATES
            reason = f"{error.strerror or error}" if isinstance(error, OSError) else str(error)
            raise ConfigurationError(f"{name}: TLS cannot use this file: {reason}.") from None


def check_base_url(base_url: str) -> str:
    """Return a manager's URL unchanged.

    Raises:
        ConfigurationError: it is not an http or https URL, has an invalid host, an invalid port, a query or a fragment,
            or ends with /v1. The message does not contain the password.
    """
    shown = mask_url(base_url)
    try:
        url = httpx2.URL(base_url)
    except (httpx2.InvalidURL, ValueError) as error:
        reason = f": {error}" if shown == base_url else ""  # the error may quote the password
        raise ConfigurationError(f"The manager's address {shown!r} is not a valid URL{reason}.") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigurationError(
            f"The manager's address must be a URL such as http://127.0.0.1:8080, but it is {shown!r}."
        )
    if problem := _problem(url):
        raise ConfigurationError(f"The manager's address {shown!r} {problem}.")
    if url.path.rstrip("/").endswith("/v1"):
        raise ConfigurationError(
            f"The manager's address must not end with /v1, which the SDK adds, but it is {shown!r}."
        )
    return base_url


def check_url(url: str) -> bool:
    """Return whether this is a valid http or https URL of any service."""
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError):
        return False
    return parsed.scheme in {"http", "https"} and bool(parsed.host) and not _problem(parsed.copy_with(query=None))


def _problem(url: httpx2.URL) -> str:
    if url.port is not None and not 0 < url.port <= _MAX_PORT:
        return f"has an invalid port: it must be 1 to {_MAX_PORT}"
    host = url.raw_host.decode("ascii", "replace").removesuffix(".")
    labels = [] if ":" in host else host.split(".")  # an IPv6 address has none
    if len(host) > _MAX_HOST or not all(re.fullmatch(r"[^\s%@]{1,63}", label) for label in labels):
        return "has an invalid host"
    if url.query or url.fragment:
        return "must not have a query or a fragment"
    return ""


def _is_local(host: str) -> bool:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return f".{host.lower().removesuffix('.')}".endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def _variable(name: str) -> tuple[str, str]:
    """Return the name and the value of a variable that may be in lower case, which then takes precedence."""
    for spelling in (name.lower(), name):
        if value := os.environ.get(spelling):
            return spelling, value
    return name, ""


def _check_proxy(name: str, proxy: str) -> None:
    try:
        url = httpx2.Proxy(proxy if "://" in proxy else f"http://{proxy}").url
    except (httpx2.InvalidURL, ValueError):
        raise ConfigurationError(f"{name}: it is not the URL of a proxy, such as http://proxy:3128.") from None
    if not url.host or _problem(url):
        raise ConfigurationError(f"{name}: it is not the URL of a proxy, such as http://proxy:3128.")
    if url.scheme.startswith("socks") and find_spec("socksio") is None:
        raise ConfigurationError(
            f"{name}: a SOCKS proxy requires the package socksio. Install it, or set NO_PROXY to the manager's host."
        )
