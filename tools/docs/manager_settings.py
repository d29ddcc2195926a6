"""docs/reference/manager-settings.md: every setting of the manager."""

from pydantic.fields import FieldInfo
from reference_manager.settings import Settings, flag, shown, variable

from tools.docs.markdown import document, table

_INTRODUCTION = """\
Each is a flag of `jobnik-manager serve` and an environment variable; the flag wins. Durations are in ISO 8601: `PT5S`
is five seconds, `PT2M` two minutes. A value that does not fit is refused at the start, by a message that names the flag
and the variable.

Everything else about traces is set by the standard variables of OpenTelemetry, `OTEL_…`: [how the manager is
observed](../explanation/observability.md#traces).

A database URL holds a password: give it by the variable, since everybody on the machine can see a program's flags."""


def page() -> str:
    """The whole page."""
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
