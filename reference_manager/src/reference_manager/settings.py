"""The manager's settings: flags of ``jobnik-manager serve``, or environment variables, mostly ``JOBNIK_MANAGER_…``."""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import AfterValidator, ByteSize, Field, SecretStr, TypeAdapter
from pydantic_settings import BaseSettings, SettingsConfigDict

from reference_manager.access.secrets import is_secret

PREFIX = "JOBNIK_MANAGER_"
_LABEL = r"[^\s.:/@\[\]]{1,63}"
_PORT = r"(:([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
_HOST = re.compile(rf"({_LABEL}(\.{_LABEL})*\.?|%2F[^\s:/@]+|\[[0-9A-Fa-f:.]+(%[^\s\[\]]+)?\]){_PORT}")
"""A host by its name, its address or, for PostgreSQL, the folder of its socket; with or without a port."""

MAX_BODY_LIMIT = 64 * 1024 * 1024
"""Bytes. The manager passes a payload on in one step, which takes a few tens of milliseconds for one of this size."""

FORMER_NAMES = {"database_patience": "database_timeout", "shutdown_patience": "shutdown_timeout"}
"""Settings that were renamed. Their former flags and variables are accepted until version 1.0."""


def _address(host: str) -> str:
    if not host or not set(host).isdisjoint("/@ "):
        raise ValueError("must be an address or a name, such as 127.0.0.1, not a URL")
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host  # in brackets as in a URL


def _postgres_url(url: SecretStr | None) -> SecretStr | None:
    """Check a URL, which may list several hosts. Messages do not quote it, because it may contain a password."""
    if url is None:
        return None
    if not url.get_secret_value().startswith(("postgresql://", "postgres://")):
        raise ValueError("must begin with postgresql://")
    try:
        account_and_hosts = urlsplit(url.get_secret_value()).netloc
    except ValueError:
        raise ValueError("is not a valid URL") from None
    hosts = account_and_hosts.rpartition("@")[2]
    if hosts and not all(map(_HOST.fullmatch, hosts.split(","))):
        raise ValueError("has an invalid host or port; percent-encode special characters in the password (/ is %2F)")
    return url


def _archive_url(url: str | None) -> str | None:
    if url is None:
        return None
    parts = urlsplit(url)
    is_folder = parts.scheme == "file" and not parts.netloc and parts.path.startswith("/")
    is_bucket = parts.scheme == "s3" and re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", parts.netloc)
    if not (is_folder or is_bucket) or parts.query or parts.fragment:
        raise ValueError("must be file:///folder or s3://bucket/prefix")
    return url


def _token(token: SecretStr | None) -> SecretStr | None:
    if token is None:
        return None
    secret = token.get_secret_value().strip()  # a Kubernetes Secret may end with a line break
    if not is_secret(secret):
        raise ValueError("is not a token; jobnik-manager token generate makes one")
    return SecretStr(secret)


def _http_url(url: str | None) -> str | None:
    if url and not is_http_url(url):
        raise ValueError("must be a URL that begins with http:// or https://")
    return url


def is_http_url(url: str) -> bool:
    """Return whether this is an http or https URL, with a valid host and port."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and _HOST.fullmatch(parts.netloc.rpartition("@")[2]) is not None


def flag(name: str) -> str:
    """Return the flag of a setting."""
    return f"--{name.replace('_', '-')}"


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    own = Settings.model_fields[name].validation_alias
    return str(own) if own else f"{PREFIX}{name.upper()}"


def setting(name: str) -> str:
    """Return the name of a setting, given its name or its variable."""
    return next((known for known in Settings.model_fields if name in (known, variable(known))), name)


def shown(default: object) -> str:
    """Format a default as a user would type it. An unset default is the empty string."""
    match default:
        case None:
            return ""
        case bool():
            return str(default).lower()
        case timedelta():
            return TypeAdapter(timedelta).dump_python(default, mode="json")
        case ByteSize():
            return default.human_readable().replace(".0", "")
        case _:
            return str(default)


class Renamed(NamedTuple):
    """A former flag or variable in use, the one that replaces it, and whether another one overrides its value."""

    former: str
    current: str
    overridden: bool = False


def replace_former_names(
    flags: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[dict[str, Any], Sequence[Renamed]]:
    """Translate the former names of renamed settings.

    A flag wins over a variable; of two flags or two variables, the current name wins.

    Args:
        flags: Values of the flags in use, by setting.
        environment: The process environment.

    Returns:
        The values for ``Settings``, and each former name in use.
    """
    values = dict(flags)
    variables = {name.upper(): value for name, value in environment.items()}
    renamed: list[Renamed] = []
    for former, current in FORMER_NAMES.items():
        former_variable, current_variable = f"{PREFIX}{former.upper()}", variable(current)
        if former in values:
            renamed.append(Renamed(flag(former), flag(current), overridden=current in values))
            values.setdefault(current, values.pop(former))
        if former_variable in variables:
            overridden = current in values or current_variable in variables
            renamed.append(Renamed(former_variable, current_variable, overridden))
            if not overridden:
                values[current] = variables[former_variable]
    return values, renamed


class Settings(BaseSettings):
    """Addresses, data location, limits and timeouts of a manager."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="forbid",
        validate_by_name=True,
        hide_input_in_errors=True,  # it may be a password or a token
    )

    host: Annotated[str, AfterValidator(_address), Field(description="The address to listen on; :: includes IPv4.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Field(ge=0, le=65535, description="The port to listen on; 0 picks a free port.")] = 8080
    database_url: Annotated[
        SecretStr | None,
        AfterValidator(_postgres_url),
        Field(description="The URL of your PostgreSQL (15 or later), postgresql://…; by default, an embedded one."),
    ] = None
    data_dir: Annotated[
        Path | None,
        Field(description="The data folder of the embedded PostgreSQL; by default, in your application data folder."),
    ] = None
    database_connections: Annotated[
        int,
        Field(
            ge=2, le=1000, description="The maximum number of connections to PostgreSQL; half are reserved for workers."
        ),
    ] = 10
    database_timeout: Annotated[
        timedelta,
        Field(
            gt=timedelta(),
            description="How long a request waits for a database connection before the response is 503, such as PT5S.",
        ),
    ] = timedelta(seconds=5)
    body_limit: Annotated[
        ByteSize,
        Field(
            gt=0, le=MAX_BODY_LIMIT, description="The maximum size of a request body, such as 512KiB; at most 64MiB."
        ),
    ] = ByteSize(1024 * 1024)
    connection_limit: Annotated[
        int,
        Field(
            ge=1,
            le=100_000,
            description="The maximum number of connections from clients. Further connections serve only the probes.",
        ),
    ] = 1000
    client_timeout: Annotated[
        timedelta,
        Field(
            gt=timedelta(),
            description="How long a client may send or accept nothing in the middle of a request, such as PT30S.",
        ),
    ] = timedelta(seconds=30)
    shutdown_timeout: Annotated[
        timedelta,
        Field(
            ge=timedelta(),
            description="How long requests in progress may take once a stop is requested, such as PT10S.",
        ),
    ] = timedelta(seconds=10)
    task_stale_after: Annotated[
        timedelta,
        Field(
            gt=timedelta(),
            description="How long a task claimed without a lease may take before its attempt counts as failed.",
        ),
    ] = timedelta(minutes=30)
    part_a_only: Annotated[
        bool,
        Field(description="Whether to serve only part A of the protocol, as the original manager (0.2.1) does."),
    ] = False
    archive_url: Annotated[
        str | None,
        AfterValidator(_archive_url),
        Field(
            description="Where jobs are archived before retention deletes them: file:///folder or s3://bucket/prefix."
        ),
    ] = None
    admin_token: Annotated[
        SecretStr | None,
        AfterValidator(_token),
        Field(description="An admin token to create at the first start, made by jobnik-manager token generate."),
    ] = None
    admin_token_file: Annotated[Path | None, Field(description="A file with that token, such as a mounted secret.")] = (
        None
    )
    insecure: Annotated[
        bool,
        Field(
            description="Whether to serve other machines although no token exists, so that anyone who reaches the port "
            "has full access."
        ),
    ] = False
    metrics_open: Annotated[bool, Field(description="Whether /metrics needs no token.")] = False
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], Field(description="The minimum level of log lines.")
    ] = "INFO"
    # The protocol names these two variables.
    tracing_enabled: Annotated[
        bool | None,
        Field(
            validation_alias="TELEMETRY_TRACING_ENABLED",
            description="Whether to send traces; by default, only if an endpoint is set. "
            "true without an endpoint sends them to http://localhost:4318/v1/traces.",
        ),
    ] = None
    tracing_url: Annotated[
        str | None,
        AfterValidator(_http_url),
        Field(
            validation_alias="TELEMETRY_TRACING_URL",
            description="The OTLP over HTTP endpoint for traces, such as http://collector:4318/v1/traces; "
            "by default, the standard OTEL_EXPORTER_OTLP_… variables.",
        ),
    ] = None
