"""docs/reference/worker-settings.md: every setting that each worker has."""

from jobnik_sdk.settings import WorkerSettings
from pydantic.fields import FieldInfo

from tools.docs.markdown import document, table

_INTRODUCTION = """\
Each is an environment variable, or a line `NAME=value` of the file `.env` in the working directory; the environment
wins, and an empty value counts as one that is not set. They are read once, at the start. What is missing or wrong ends
the process with exit code 2, and standard error names each such variable on a line of its own. A variable that is no
setting, but nearly, is told in the log.

A worker's own settings are further fields of its subclass of `WorkerSettings`: [operate a
worker](../how-to/operate-a-worker.md#settings)."""

_OF_OPENTELEMETRY = """\
Everything else about traces is set by the standard variables of OpenTelemetry, `OTEL_…`, in the environment or in
`.env`: [what they do](../explanation/observability.md#traces)."""


def page() -> str:
    """The whole page."""
    rows = (_row(name, field) for name, field in WorkerSettings.model_fields.items())
    settings = table(("variable", "default", "meaning"), rows)
    return document("A worker's settings", _INTRODUCTION, settings, _OF_OPENTELEMETRY)


def _row(name: str, field: FieldInfo) -> tuple[str, str, str]:
    default = "" if field.is_required() or field.default is None else f"`{field.default}`"
    return f"`{name.upper()}`", default, field.description or ""
