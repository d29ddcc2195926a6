"""What a worker's environment sets, under the names of Jobnik's public guide; a worker adds its own fields."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any, Literal

import pydantic_settings
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from jobnik_sdk.client import checked_address
from jobnik_sdk.errors import SettingsError

LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
    BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
]


class WorkerSettings(BaseSettings):
    """The settings of a worker's process: each field is the environment variable of its name in capitals.

    A worker's own settings are further fields in a subclass. One without a default is said as `Field(default=...)`:
    so type checkers know that it need not be passed.

    Raises:
        SettingsError: a variable is missing or wrong; the message names each such one.
    """

    model_config = SettingsConfigDict(frozen=True, use_attribute_docstrings=True)

    jobnik_base_url: Annotated[str, AfterValidator(checked_address)] = Field(default=...)
    """The manager's address, such as http://127.0.0.1:8080. It has no default."""

    worker_concurrency: int = Field(default=1, ge=1)
    """How many tasks are worked on at the same time."""

    worker_retry_initial_delay_ms: int = Field(default=1_000, gt=0)
    """The longest first wait on an empty queue, in milliseconds."""

    worker_retry_max_delay_ms: int = Field(default=60_000, gt=0)
    """The longest wait on an empty queue, in milliseconds."""

    log_level: LogLevel = "INFO"
    """The least important lines that are written, in either case."""

    probe_host: str = "0.0.0.0"  # noqa: S104 the kubelet and Prometheus come from other machines
    """The address to serve probes and metrics on; 127.0.0.1 keeps others out."""

    probe_port: int = Field(default=8080, ge=0, le=65535)
    """The port to serve probes and metrics on; 0 takes a free one and logs it."""

    def __init__(self, **values: Any) -> None:  # noqa: ANN401 pydantic checks them
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError("\n".join(self._complaints(error))) from None
        except pydantic_settings.SettingsError as error:
            raise SettingsError(f"{error}: it is not JSON.") from None

    @property
    def poll_initial_delay(self) -> timedelta:
        """`worker_retry_initial_delay_ms` as `Worker` takes it."""
        return timedelta(milliseconds=self.worker_retry_initial_delay_ms)

    @property
    def poll_max_delay(self) -> timedelta:
        """`worker_retry_max_delay_ms` as `Worker` takes it."""
        return timedelta(milliseconds=self.worker_retry_max_delay_ms)

    @classmethod
    def _complaints(cls, error: ValidationError) -> Iterator[str]:
        # The values stay out of it, since some may be secret.
        for fault in error.errors(include_url=False, include_context=False, include_input=False):
            name = "_".join(str(part) for part in fault["loc"])
            field = cls.model_fields.get(name)
            if field is not None and fault["type"] == "missing":
                yield f"{name.upper()} is not set: {field.description or 'it has no default.'}"
            else:
                yield f"{name.upper()}: {fault['msg'].removeprefix('Value error, ')}"
