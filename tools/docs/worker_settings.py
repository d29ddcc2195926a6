"""docs/reference/worker-settings.md: every setting that each worker has."""

from jobnik_sdk import WorkerSettings
from pydantic.fields import FieldInfo

from tools.docs.markdown import document, table

_INTRODUCTION = """\
Set each of these as an environment variable, or as a line `NAME=value` in the file `.env` in the working directory.
The environment takes precedence. An empty value counts as not set. The worker reads its settings once, when it
starts. If settings are missing or invalid, the process ends with exit code 2, and standard error names each variable
on a separate line. A variable whose name is almost that of a setting is reported in the log.

Your own settings are further fields in the worker's subclass of `WorkerSettings`: [operate a
worker](../how-to/operate-a-worker.md#settings)."""

_OF_OPENTELEMETRY = """\
Tracing is also configured by the standard variables of OpenTelemetry, `OTEL_…`, in the environment or in `.env`:
[what they do](../explanation/observability.md#traces)."""


def page() -> str:
    """Return the text of the page."""
    rows = (_row(name, field) for name, field in WorkerSettings.model_fields.items())
    settings = table(("variable", "default", "meaning"), rows)
    return document("A worker's settings", _INTRODUCTION, settings, _OF_OPENTELEMETRY)


def _row(name: str, field: FieldInfo) -> tuple[str, str, str]:
    default = "" if field.is_required() or field.default is None else f"`{field.default}`"
    return f"`{name.upper()}`", default, field.description or ""
