"""What a worker's environment sets, under the names of Jobnik's public guide; a worker adds its own classes."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
    BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
]


class JobnikSettings(BaseSettings):
    """Where the manager is."""

    model_config = SettingsConfigDict(env_prefix="JOBNIK_", frozen=True)

    base_url: str
    """JOBNIK_BASE_URL: the manager's address, such as http://127.0.0.1:8080. It has no default."""


class WorkerSettings(BaseSettings):
    """How a worker works."""

    model_config = SettingsConfigDict(env_prefix="WORKER_", frozen=True)

    concurrency: int = Field(default=1, ge=1)
    """WORKER_CONCURRENCY: how many tasks are worked on at the same time."""

    retry_initial_delay_ms: int = Field(default=1_000, gt=0)
    """WORKER_RETRY_INITIAL_DELAY_MS: the longest first wait on an empty queue, in milliseconds."""

    retry_max_delay_ms: int = Field(default=60_000, gt=0)
    """WORKER_RETRY_MAX_DELAY_MS: the longest wait on an empty queue, in milliseconds."""

    @property
    def poll_initial_delay(self) -> timedelta:
        """`retry_initial_delay_ms` as `Worker` takes it."""
        return timedelta(milliseconds=self.retry_initial_delay_ms)

    @property
    def poll_max_delay(self) -> timedelta:
        """`retry_max_delay_ms` as `Worker` takes it."""
        return timedelta(milliseconds=self.retry_max_delay_ms)


class LogSettings(BaseSettings):
    """How much is logged."""

    model_config = SettingsConfigDict(env_prefix="LOG_", frozen=True)

    level: LogLevel = "INFO"
    """LOG_LEVEL: the least important lines that are written, in either case."""


class ProbeSettings(BaseSettings):
    """Where probes and metrics are served."""

    model_config = SettingsConfigDict(env_prefix="PROBE_", frozen=True)

    host: str = "0.0.0.0"  # noqa: S104 the kubelet and Prometheus come from other machines
    """PROBE_HOST: the address to listen on; 127.0.0.1 keeps others out."""

    port: int = Field(default=8080, ge=0, le=65535)
    """PROBE_PORT: 0 takes a free one and logs it."""
