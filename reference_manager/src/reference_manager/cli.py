"""The command ``jobnik-manager``: puts the parts together."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from types import FrameType
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from reference_manager.embedded import EmbeddedPostgres, EmbeddedPostgresError, default_data_dir
from reference_manager.server.logs import configure_logs
from reference_manager.server.process import StartError, prepare, serve
from reference_manager.settings import Settings, flag, setting, shown, variable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    given = vars(_parser().parse_args(arguments))
    command = given.pop("command")
    try:
        settings = Settings(**given)
    except (ValidationError, SettingsError) as error:
        sys.stderr.write(f"{_explain(error)}\n")
        return 2
    configure_logs(settings.log_level)
    # Until it serves, a signal ends the manager wherever it is, through everything that cleans up.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    try:
        if command == "migrate":
            _migrate(settings)
        elif settings.database_url is not None:
            serve(settings, settings.database_url.get_secret_value(), {})
        else:
            _serve_embedded(settings)
    except (EmbeddedPostgresError, StartError) as error:
        sys.stderr.write(f"jobnik-manager: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    """The command's grammar: every setting is a flag; one that is not given is left to its variable or default."""
    parser = argparse.ArgumentParser("jobnik-manager", description="The Jobnik manager.")
    parser.add_argument("--version", action="version", version=version("jobnik-reference-manager"))
    commands = parser.add_subparsers(required=True, dest="command", metavar="serve | migrate")
    about = "Serve the API. With no argument it brings its own PostgreSQL and keeps its data in a folder of yours."
    more = f"Each flag is also an environment variable, such as {variable('port')}; the flag wins."
    serving = commands.add_parser("serve", help="serve the API", description=about, epilog=more)
    _add_flags(serving, Settings.model_fields)
    about = "Bring your PostgreSQL to the schema of this version, and end. Each manager does so at its start, too."
    migrating = commands.add_parser("migrate", help="bring the database up to date", description=about, epilog=more)
    _add_flags(migrating, ("database_url", "log_level"))
    return parser


def _add_flags(parser: argparse.ArgumentParser, names: Iterable[str]) -> None:
    for name in names:
        field = Settings.model_fields[name]
        metavar = name.rpartition("_")[2].upper()
        default = f" Default: {shown(field.default)}." if field.default is not None else ""
        text = f"{field.description}{default}"
        # One that is off by default needs no value.
        value: dict[str, Any] = {"nargs": "?", "const": "true"} if field.default is False else {}
        parser.add_argument(flag(name), dest=name, metavar=metavar, help=text, default=argparse.SUPPRESS, **value)


def _migrate(settings: Settings) -> None:
    if settings.database_url is None:
        raise StartError(f"Which database? Say {flag('database_url')} or {variable('database_url')}.")
    asyncio.run(prepare(settings.database_url.get_secret_value()))


def _serve_embedded(settings: Settings) -> None:
    data_dir = settings.data_dir or default_data_dir()
    others = 20  # for people with psql, and what PostgreSQL reserves
    limits = {"max_connections": str(settings.database_connections + others)}
    with EmbeddedPostgres(data_dir, settings=limits) as server:
        serve(settings, server.url, {"data_dir": str(data_dir), "database_log": str(server.log_file)})


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _explain(error: ValidationError | SettingsError) -> str:
    """One line for each setting that is wrong, with its flag and its variable."""
    if isinstance(error, SettingsError):
        return f"jobnik-manager: {error}"
    lines: list[str] = []
    for complaint in error.errors():
        name = setting(str(complaint["loc"][0]))
        lines.append(f"{flag(name)} or {variable(name)}: {complaint['msg']}")
    return "\n".join(lines)
