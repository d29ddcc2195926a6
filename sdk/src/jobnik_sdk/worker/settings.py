"""The settings of a worker's process, under the names of Jobnik's public guide; subclasses add their own."""

import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import pydantic_settings
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, DotEnvSettingsSource, SettingsConfigDict

from jobnik_sdk.errors import SettingsError
from jobnik_sdk.http.addresses import check_base_url, check_url
from jobnik_sdk.http.tokens import check_token
from jobnik_sdk.observability.secrets import mask_secrets

__all__ = [
    "WorkerSettings",
]

LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
    BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
]


def _check_traces_url(url: str) -> str:
    if not check_url(url):
        raise ValueError("it must be a URL such as http://127.0.0.1:4318/v1/traces.")
    return url


def _check_token(token: SecretStr) -> SecretStr:
    # A variable that comes from a Kubernetes Secret may end with a line break.
    return SecretStr(check_token("it", token.get_secret_value().strip()))


_MIN_SIMILARITY: Final = 0.75
"""How similar two names must be, from 0 to 1, for one to count as a misspelling of the other."""
_MAX_CONCURRENCY: Final = 100_000
_YEAR_SECONDS: Final = 365 * 24 * 60 * 60
_MAX_FLUSH: Final = timedelta(seconds=3)
"""The maximum time that is reserved for the last spans at the end of a drain."""


class WorkerSettings(BaseSettings):
    """The settings of a worker's process; each field is set by the environment variable of its name in capitals.

    Values that the environment does not have are read from the file `.env` in the working directory. An empty variable
    counts as not set.

    Add your own settings as fields of a subclass. Declare a field without a default as `Field(default=...)`, so that
    type checkers know that it need not be passed.

    Raises:
        SettingsError: variables are missing or invalid; the message names each of them.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        use_attribute_docstrings=True,
        env_file=".env",
        env_file_encoding="utf-8-sig",  # with or without a byte order mark
        env_ignore_empty=True,
        extra="ignore",  # .env may hold variables of other programs
    )

    jobnik_base_url: Annotated[str, AfterValidator(check_base_url)] = Field(default=...)
    """The manager's address, such as http://127.0.0.1:8080. It has no default."""

    jobnik_token: Annotated[SecretStr, AfterValidator(_check_token)] | None = None
    """The token that the manager requires, unless it is open."""

    jobnik_token_file: Path | None = None
    """A file with the token instead, such as a mounted secret. It is read again when it changes."""

    worker_concurrency: int = Field(default=1, ge=1, le=_MAX_CONCURRENCY)
    """How many tasks run at the same time."""

    worker_retry_initial_delay_ms: int = Field(default=1_000, gt=0, le=_YEAR_SECONDS * 1000)
    """Upper limit in milliseconds of the first delay after a failed claim, or an empty one without long polling."""

    worker_retry_max_delay_ms: int = Field(default=60_000, gt=0, le=_YEAR_SECONDS * 1000)
    """Upper limit in milliseconds of all such delays; the limit doubles each time, and delays are random below it."""

    worker_drain_seconds: float = Field(default=25, gt=0, le=_YEAR_SECONDS, allow_inf_nan=False)
    """How long a stop may take, in seconds: for tasks to finish or to be released, and for the last spans."""

    log_level: LogLevel = "INFO"
    """The lowest level that is logged: DEBUG, INFO, WARNING, ERROR or CRITICAL, in upper or lower case."""

    probe_host: str = "0.0.0.0"  # noqa: S104 the kubelet and Prometheus connect from other machines
    """The address on which probes and metrics are served; 127.0.0.1 allows only local connections."""

    probe_port: int = Field(default=8080, ge=0, le=65535)
    """The port on which probes and metrics are served; 0 selects a free port, which is logged."""

    telemetry_tracing_enabled: bool | None = None
    """Whether to send traces. If it is not set, traces are sent if an endpoint is set."""

    telemetry_tracing_url: Annotated[str, AfterValidator(_check_traces_url)] | None = None
    """Where to send traces by OTLP over HTTP: the full URL, such as http://127.0.0.1:4318/v1/traces."""

    def __init__(self, **values: Any) -> None:  # noqa: ANN401 pydantic checks them
        _check_env_files(type(self))
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError("\n".join(self._problems(error))) from None
        except pydantic_settings.SettingsError as error:
            name = re.search(r'field "(\w+)"', str(error))
            raise SettingsError(f"{name[1].upper() if name else error}: it is not valid JSON.") from None

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Mask the passwords in URLs, for log lines and tracebacks."""
        for name, value in super().__repr_args__():
            yield name, mask_secrets(value) if isinstance(value, str) else value

    @property
    def poll_initial_delay(self) -> timedelta:
        """`worker_retry_initial_delay_ms` as a `timedelta`, for `Worker`."""
        return timedelta(milliseconds=self.worker_retry_initial_delay_ms)

    @property
    def poll_max_delay(self) -> timedelta:
        """`worker_retry_max_delay_ms` as a `timedelta`, for `Worker`."""
        return timedelta(milliseconds=self.worker_retry_max_delay_ms)

    @property
    def drain_timeout(self) -> timedelta:
        """The part of `worker_drain_seconds` that is left for the tasks, for `Worker`."""
        return timedelta(seconds=self.worker_drain_seconds) - self.flush_timeout

    @property
    def flush_timeout(self) -> timedelta:
        """The part of `worker_drain_seconds` that is reserved for the last spans: a tenth, at most 3 s."""
        return min(timedelta(seconds=self.worker_drain_seconds) / 10, _MAX_FLUSH)

    @classmethod
    def _problems(cls, error: ValidationError) -> Iterator[str]:
        misspellings = {setting: variable for variable, setting in misspelled(cls).items()}
        # The values are left out, because some are secret.
        for problem in error.errors(include_url=False, include_context=False, include_input=False):
            name = "_".join(str(part) for part in problem["loc"])
            field = cls.model_fields.get(name)
            if field is not None and problem["type"] == "missing":
                but = f", but {misspellings[name.upper()]} is" if name.upper() in misspellings else ""
                yield f"{name.upper()} is not set{but}: {field.description or 'it has no default.'}"
            else:
                yield f"{name.upper()}: {problem['msg'].removeprefix('Value error, ')}"


def misspelled(settings: type[WorkerSettings]) -> Mapping[str, str]:
    """Return the variables that are probably misspelled names of settings, each with the setting of the closest name.

    In the environment, which holds many unrelated variables, only those are considered whose name starts with the same
    word as a setting; in `.env`, all of them.
    """
    names = {name.upper() for name in settings.model_fields}
    first_words = {_first_word(name) for name in names}
    variables, in_file = environment(settings), _env_file(settings)
    unset = names - {variable.upper() for variable in variables}
    found: dict[str, str] = {}
    for variable in sorted(variable for variable in variables if variable.upper() not in names):
        considered = variable in in_file or _first_word(variable.upper()) in first_words
        if considered and (closest := get_close_matches(variable.upper(), unset, 1, _MIN_SIMILARITY)):
            found[variable] = closest[0]
    return found


def _first_word(name: str) -> str:
    return name.partition("_")[0]


def environment(settings: type[WorkerSettings]) -> Mapping[str, str]:
    """Return the variables of the environment, and those of `.env` that the environment does not have.

    Raises:
        SettingsError: a file cannot be read; the message names it.
    """
    _check_env_files(settings)
    return {**_env_file(settings), **os.environ}


def _env_file(settings: type[WorkerSettings]) -> Mapping[str, str]:
    variables = DotEnvSettingsSource(settings, case_sensitive=True).env_vars
    return {name: value for name, value in variables.items() if value}


def _check_env_files(settings: type[WorkerSettings]) -> None:
    """Check that the files with variables can be read and are text. A missing file is not an error.

    Raises:
        SettingsError: a file cannot be read, or is not text; the message names it.
    """
    files = settings.model_config.get("env_file") or ()
    encoding = settings.model_config.get("env_file_encoding") or "utf-8"
    for file in [files] if isinstance(files, str | Path) else files:
        path = Path(file).expanduser()
        try:
            text = path.read_text(encoding)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SettingsError(f"{path}: it cannot be read: {error.strerror}.") from None
        except ValueError:  # also UnicodeError
            raise SettingsError(f"{path}: it is not text in {encoding.upper().removesuffix('-SIG')}.") from None
        if "\0" in text:
            raise SettingsError(f"{path}: it contains a NUL character, which no variable can have.")


def given_token(settings: WorkerSettings) -> str | Path | None:
    """Return the token of the settings or its file, for `JobnikClient`.

    Raises:
        SettingsError: both are set.
    """
    if settings.jobnik_token is None:
        return settings.jobnik_token_file
    if settings.jobnik_token_file is not None:
        raise SettingsError("JOBNIK_TOKEN and JOBNIK_TOKEN_FILE are both set: set only one of them.")
    return settings.jobnik_token.get_secret_value()
