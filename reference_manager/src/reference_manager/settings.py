"""The manager's settings: flags of ``jobnik-manager serve``, or environment variables, mostly ``JOBNIK_MANAGER_…``."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ByteSize, Field, SecretStr, TypeAdapter
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "JOBNIK_MANAGER_"


def _postgres_url(url: SecretStr | None) -> SecretStr | None:
    if url and not url.get_secret_value().startswith(("postgresql://", "postgres://")):
        raise ValueError("must begin with postgresql://")
    return url


def _http_url(url: str | None) -> str | None:
    if url and not url.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return url


def flag(name: str) -> str:
    """The flag of a setting."""
    return f"--{name.replace('_', '-')}"


def variable(name: str) -> str:
    """The environment variable of a setting."""
    own = Settings.model_fields[name].validation_alias
    return str(own) if own else f"{PREFIX}{name.upper()}"


def setting(name: str) -> str:
    """The name of a setting, from that or from its variable."""
    return next((known for known in Settings.model_fields if name in (known, variable(known))), name)


def shown(default: object) -> str:
    """A default as somebody would type it; nothing for one that is not set."""
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


class Settings(BaseSettings):
    """Where the manager listens, where its data is, and what it bears."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", validate_by_name=True)

    host: Annotated[str, Field(description="The address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="The port to listen on; 0 takes a free one.")] = 8080
    database_url: Annotated[
        SecretStr | None,
        AfterValidator(_postgres_url),
        Field(description="Your PostgreSQL, 15 or later, as postgresql://…; without it the embedded one is used."),
    ] = None
    data_dir: Annotated[
        Path | None,
        Field(
            description="Where the embedded PostgreSQL keeps its data; by default in your folder of application data."
        ),
    ] = None
    database_connections: Annotated[
        int, Field(ge=2, le=1000, description="The most connections to PostgreSQL; half are kept for workers.")
    ] = 10
    database_patience: Annotated[
        timedelta,
        Field(
            gt=timedelta(),
            description="How long a request waits for a connection before it is told to come again, as PT5S.",
        ),
    ] = timedelta(seconds=5)
    body_limit: Annotated[ByteSize, Field(gt=0, description="The largest request body, such as 512KiB.")] = ByteSize(
        1024 * 1024
    )
    shutdown_patience: Annotated[
        timedelta,
        Field(ge=timedelta(), description="How long requests under way may take once a stop is asked for, as PT10S."),
    ] = timedelta(seconds=10)
    task_stale_after: Annotated[
        timedelta,
        Field(
            gt=timedelta(),
            description="How long a task claimed without a lease may take before the attempt counts as failed.",
        ),
    ] = timedelta(minutes=30)
    part_a_only: Annotated[
        bool,
        Field(description="Whether to serve part A of the protocol alone, as managers do that know no other."),
    ] = False
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], Field(description="The least that is worth a log line.")
    ] = "INFO"
    # These two are named by the protocol.
    tracing_enabled: Annotated[
        bool | None,
        Field(
            validation_alias="TELEMETRY_TRACING_ENABLED",
            description="Whether to send traces; by default if there is an endpoint. "
            "true without one sends them to http://localhost:4318/v1/traces.",
        ),
    ] = None
    tracing_url: Annotated[
        str | None,
        AfterValidator(_http_url),
        Field(
            validation_alias="TELEMETRY_TRACING_URL",
            description="The endpoint of traces, for OTLP over HTTP, as http://collector:4318/v1/traces; "
            "by default what the standard OTEL_EXPORTER_OTLP_… variables say.",
        ),
    ] = None
