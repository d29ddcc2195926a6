"""What a worker's environment sets, under the names of Jobnik's public guide; a worker adds its own fields."""

import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from difflib import get_close_matches
from typing import Annotated, Any, Final, Literal

import pydantic_settings
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, DotEnvSettingsSource, SettingsConfigDict

from jobnik_sdk.errors import SettingsError
from jobnik_sdk.http.client import checked_address

__all__ = [
    "WorkerSettings",
]

LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
    BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
]


def _checked_url(url: str) -> str:
    if not re.match(r"https?://[^/\s]", url):
        raise ValueError("it is like http://127.0.0.1:4318/v1/traces.")
    return url


_ALIKE: Final = 0.75
"""How much of two names is the same, 0 to 1, where one may be a slip of the pen for the other."""
_MAX_FLUSH: Final = timedelta(seconds=3)
"""The longest that the end of a drain leaves to the last spans."""


class WorkerSettings(BaseSettings):
    """The settings of a worker's process: each field is the environment variable of its name in capitals.

    What the environment does not have is looked for in the file `.env` of the working directory. An empty variable
    counts as one that is not set.

    A worker's own settings are further fields in a subclass. One without a default is said as `Field(default=...)`:
    so type checkers know that it need not be passed.

    Raises:
        SettingsError: a variable is missing or wrong; the message names each such one.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        use_attribute_docstrings=True,
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",  # a .env has variables of others, too
    )

    jobnik_base_url: Annotated[str, AfterValidator(checked_address)] = Field(default=...)
    """The manager's address, such as http://127.0.0.1:8080. It has no default."""

    worker_concurrency: int = Field(default=1, ge=1)
    """How many tasks are worked on at the same time."""

    worker_retry_initial_delay_ms: int = Field(default=1_000, gt=0)
    """The longest first wait in milliseconds: after trouble, or on an empty queue if the manager cannot wait."""

    worker_retry_max_delay_ms: int = Field(default=60_000, gt=0)
    """The longest of these waits, in milliseconds: they double each time, and a random part of each is waited."""

    worker_drain_seconds: float = Field(default=25, gt=0)
    """How long a stop may take, in seconds: for tasks to finish or to be handed back, and for the last spans."""

    log_level: LogLevel = "INFO"
    """The least important lines that are written, in either case."""

    probe_host: str = "0.0.0.0"  # noqa: S104 the kubelet and Prometheus come from other machines
    """The address to serve probes and metrics on; 127.0.0.1 keeps others out."""

    probe_port: int = Field(default=8080, ge=0, le=65535)
    """The port to serve probes and metrics on; 0 takes a free one and logs it."""

    telemetry_tracing_enabled: bool | None = None
    """Whether to send traces; where nothing is said, they are sent if there is an endpoint."""

    telemetry_tracing_url: Annotated[str, AfterValidator(_checked_url)] | None = None
    """Where to send traces by OTLP over HTTP: the whole URL, such as http://127.0.0.1:4318/v1/traces."""

    def __init__(self, **values: Any) -> None:  # noqa: ANN401 pydantic checks them
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError("\n".join(self._complaints(error))) from None
        except pydantic_settings.SettingsError as error:
            name = re.search(r'field "(\w+)"', str(error))
            raise SettingsError(f"{name[1].upper() if name else error}: it is not JSON.") from None

    @property
    def poll_initial_delay(self) -> timedelta:
        """`worker_retry_initial_delay_ms` as `Worker` takes it."""
        return timedelta(milliseconds=self.worker_retry_initial_delay_ms)

    @property
    def poll_max_delay(self) -> timedelta:
        """`worker_retry_max_delay_ms` as `Worker` takes it."""
        return timedelta(milliseconds=self.worker_retry_max_delay_ms)

    @property
    def drain_timeout(self) -> timedelta:
        """What `worker_drain_seconds` leaves to the tasks, as `Worker` takes it."""
        return timedelta(seconds=self.worker_drain_seconds) - self.flush_timeout

    @property
    def flush_timeout(self) -> timedelta:
        """What `worker_drain_seconds` leaves to the last spans: a tenth of it, 3 s at most."""
        return min(timedelta(seconds=self.worker_drain_seconds) / 10, _MAX_FLUSH)

    @classmethod
    def _complaints(cls, error: ValidationError) -> Iterator[str]:
        slips = {meant: variable for variable, meant in misspelled(cls).items()}
        # The values stay out of it, since some may be secret.
        for fault in error.errors(include_url=False, include_context=False, include_input=False):
            name = "_".join(str(part) for part in fault["loc"])
            field = cls.model_fields.get(name)
            if field is not None and fault["type"] == "missing":
                but = f", but {slips[name.upper()]} is" if name.upper() in slips else ""
                yield f"{name.upper()} is not set{but}: {field.description or 'it has no default.'}"
            else:
                yield f"{name.upper()}: {fault['msg'].removeprefix('Value error, ')}"


def misspelled(settings: type[WorkerSettings]) -> Mapping[str, str]:
    """Return the variables that are set and are no settings, but nearly: each with the one that it may be meant for.

    The environment has much of others in it: there only those count that begin with the same word as a setting.
    """
    names = {name.upper() for name in settings.model_fields}
    ours = {_first_word(name) for name in names}
    there, written = environment(settings), _env_file(settings)
    missing = names - {variable.upper() for variable in there}
    found: dict[str, str] = {}
    for variable in sorted(variable for variable in there if variable.upper() not in names):
        suspect = variable in written or _first_word(variable.upper()) in ours
        if suspect and (nearest := get_close_matches(variable.upper(), missing, 1, _ALIKE)):
            found[variable] = nearest[0]
    return found


def _first_word(name: str) -> str:
    return name.partition("_")[0]


def environment(settings: type[WorkerSettings]) -> Mapping[str, str]:
    """Return the environment, with what only the file `.env` says."""
    return {**_env_file(settings), **os.environ}


def _env_file(settings: type[WorkerSettings]) -> Mapping[str, str]:
    said = DotEnvSettingsSource(settings, case_sensitive=True).env_vars
    return {name: value for name, value in said.items() if value}
