"""The command ``jobnik-manager``: puts the parts together."""

import argparse
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from types import FrameType

from pydantic import ValidationError
from pydantic_settings import CliApp, CliSettingsSource, SettingsError

from reference_manager.logs import configure_logs
from reference_manager.serve import StartError, serve
from reference_manager.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    parser = argparse.ArgumentParser("jobnik-manager", description="The Jobnik manager.")
    parser.add_argument("--version", action="version", version=version("jobnik-reference-manager"))
    commands = parser.add_subparsers(required=True, metavar="serve")
    about = "Serve the API. With no argument it brings its own PostgreSQL and keeps its data in a folder of yours."
    serving = commands.add_parser("serve", help="serve the API", description=about)
    source = CliSettingsSource[argparse.ArgumentParser](
        Settings,
        root_parser=serving,
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )
    parsed = parser.parse_args(arguments)
    try:
        settings = CliApp.run(Settings, cli_args=parsed, cli_settings_source=source)
    except (ValidationError, SettingsError) as error:
        sys.stderr.write(f"{_explain(error)}\n")
        return 2
    configure_logs(settings.log_level)
    # Until it serves, a signal ends the manager wherever it is, through everything that cleans up.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    try:
        if settings.database_url is not None:
            serve(settings, settings.database_url.get_secret_value(), {})
        else:
            _serve_embedded(settings)
    except StartError as error:
        sys.stderr.write(f"jobnik-manager: {error}\n")
        return 1
    return 0


def _serve_embedded(settings: Settings) -> None:
    # Imported here, since the embedded PostgreSQL is for Linux and macOS only; with a database URL any system will do.
    from reference_manager.embedded import EmbeddedPostgres, EmbeddedPostgresError, default_data_dir  # noqa: PLC0415

    data_dir = settings.data_dir or default_data_dir()
    others = 20  # for people with psql, and what PostgreSQL reserves
    limits = {"max_connections": str(settings.database_connections + others)}
    try:
        with EmbeddedPostgres(data_dir, settings=limits) as server:
            serve(settings, server.url, {"data_dir": str(data_dir), "database_log": str(server.log_file)})
    except EmbeddedPostgresError as error:
        raise StartError(str(error)) from error


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _explain(error: ValidationError | SettingsError) -> str:
    """One line for each setting that is wrong, with its flag and its variable."""
    if isinstance(error, SettingsError):
        return f"jobnik-manager: {error}"
    lines: list[str] = []
    for complaint in error.errors():
        name = str(complaint["loc"][0])
        lines.append(f"--{name.replace('_', '-')} or JOBNIK_MANAGER_{name.upper()}: {complaint['msg']}")
    return "\n".join(lines)
