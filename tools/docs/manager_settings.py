"""docs/reference/manager-settings.md: every setting of the manager."""

from pydantic.fields import FieldInfo
from reference_manager.settings import Settings, flag, shown, variable

from tools.docs.markdown import document, table

_INTRODUCTION = """\
Each setting is a flag of `jobnik-manager serve` and an environment variable. The flag takes precedence. Durations
are in ISO 8601: `PT5S` is five seconds, `PT2M` two minutes. If a value is invalid, the manager does not start, and
the error message names the flag and the variable.

Tracing is also configured by the standard variables of OpenTelemetry, `OTEL_…`: [what they
do](../explanation/observability.md#traces).

A database URL contains a password. Set it through the variable, because every user of the machine can see the flags
of a program."""


def page() -> str:
    """Return the text of the page."""
    rows = (_row(name, field) for name, field in Settings.model_fields.items())
    return document("The manager's settings", _INTRODUCTION, table(("flag", "variable", "default", "meaning"), rows))


def _row(name: str, field: FieldInfo) -> tuple[str, str, str, str]:
    default = shown(field.default)
    return (
        f"`{flag(name)}`",
        f"`{variable(name)}`",
        f"`{default}`" if default else "",
        field.description or "",
    )
