"""The command ``jobnik-manager``."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from types import FrameType
from typing import Any

import structlog
from pydantic import ValidationError
from pydantic_settings import SettingsError

from reference_manager import archive_command, retention_command, token_command
from reference_manager.access.errors import AccessError
from reference_manager.archive.errors import ArchiveError
from reference_manager.embedded import (
    EmbeddedPostgres,
    EmbeddedPostgresError,
    default_data_dir,
    running_server_url,
)
from reference_manager.server.errors import InvalidSettingError, StartError
from reference_manager.server.logs import configure_logs
from reference_manager.server.process import prepare, serve
from reference_manager.server.tracing import InvalidVariableError
from reference_manager.settings import (
    FORMER_NAMES,
    Renamed,
    Settings,
    flag,
    replace_former_names,
    setting,
    shown,
    variable,
)
from reference_manager.store.errors import DatabaseError

log = structlog.stdlib.get_logger(__name__)

SETTINGS = frozenset((*Settings.model_fields, *FORMER_NAMES))


class InvalidTokenError(Exception):
    """A token cannot be created; the message says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    flags = vars(_parser().parse_args(arguments))
    command = flags.pop("command")
    command_flags = {name: flags.pop(name) for name in list(flags) if name not in SETTINGS}
    if command_flags.get("token_command") == "generate":
        token_command.generate()
        return 0
    values, renamed = replace_former_names(flags, os.environ)
    try:
        settings = Settings(**values)
    except (ValidationError, SettingsError) as error:
        sys.stderr.write(f"{_explain(error, renamed)}\n")
        return 2
    if command == "token":  # its output is for other programs
        configure_logs("WARNING", sys.stderr)
    else:
        configure_logs(settings.log_level, sys.stdout)
    for former, current, overridden in renamed:
        ignored = {"ignored": True} if overridden else {}
        log.warning("deprecated setting", setting=former, use=current, removed_in="1.0", **ignored)
    # Until the server runs, a signal exits at once, through every cleanup on the stack.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _exit)
    try:
        _run(command, settings, command_flags)
    except (InvalidSettingError, InvalidVariableError, InvalidTokenError) as error:
        sys.stderr.write(f"jobnik-manager: {error}\n")
        return 2
    except (EmbeddedPostgresError, StartError, AccessError, ArchiveError) as error:
        sys.stderr.write(f"jobnik-manager: {error}\n")
        return 1
    except DatabaseError as error:  # it became unavailable between the migration and the start
        sys.stderr.write(f"jobnik-manager: Cannot use the database: {error}\n")
        return 1
    return 0


def _run(command: str, settings: Settings, flags: Mapping[str, Any]) -> None:
    if command == "migrate":
        _migrate(settings)
    elif command == "retention":
        retention_command.run(flags, _database_url(settings))
    elif command == "archive":
        archive_command.run(flags, _archive_url(settings))
    elif command == "token":
        _run_token_command(settings, flags)
    elif settings.database_url is not None:
        serve(settings, settings.database_url.get_secret_value(), {})
    else:
        _serve_embedded(settings)


def _parser() -> argparse.ArgumentParser:
    """Build the argument parser. Every setting is a flag; a flag that is not given leaves its variable or default."""
    parser = argparse.ArgumentParser("jobnik-manager", description="The Jobnik manager.")
    parser.add_argument("--version", action="version", version=version("jobnik-reference-manager"))
    commands = parser.add_subparsers(
        required=True, dest="command", metavar="serve | migrate | retention | archive | token"
    )
    about = "Serve the API. Without arguments, start an embedded PostgreSQL with its data in your data folder."
    more = f"Each flag is also an environment variable, such as {variable('port')}; the flag takes precedence."
    serving = commands.add_parser("serve", help="serve the API", description=about, epilog=more)
    _add_flags(serving, Settings.model_fields)
    about = (
        "Migrate your PostgreSQL to the schema of this version, then exit. Every manager also does this when it starts."
    )
    migrating = commands.add_parser("migrate", help="migrate the database", description=about, epilog=more)
    url = f"The URL of your PostgreSQL (15 or later), postgresql://…; required, here or as {variable('database_url')}."
    _add_flags(migrating, ("database_url", "log_level"), database_url=url)
    about = "Show or set how long ended jobs are kept in your PostgreSQL, while managers run or not."
    retention = commands.add_parser("retention", help="show or set how long ended jobs are kept", description=about)
    retention_command.add_commands(retention, lambda added: _add_flags(added, ("database_url",), database_url=url))
    about = "List the files of an archive of deleted jobs, or print one of them."
    archive = commands.add_parser("archive", help="list or print archived jobs", description=about)
    archive_command.add_commands(archive, lambda added: _add_flags(added, ("archive_url",)))
    about = (
        "Make, list, rotate and revoke access tokens, while managers run or not. As soon as a token exists, every "
        "request needs one."
    )
    token = commands.add_parser("token", help="manage access tokens", description=about)
    token_command.add_commands(token, lambda added: _add_flags(added, ("database_url", "data_dir")))
    return parser


def _add_flags(parser: argparse.ArgumentParser, names: Iterable[str], **descriptions: str) -> None:
    for name in names:
        field = Settings.model_fields[name]
        metavar = name.rpartition("_")[2].upper()
        default = f" Default: {shown(field.default)}." if field.default is not None else ""
        text = f"{descriptions.get(name, field.description)}{default}"
        # A flag that is off by default needs no value.
        value: dict[str, Any] = {"nargs": "?", "const": "true"} if field.default is False else {}
        parser.add_argument(flag(name), dest=name, metavar=metavar, help=text, default=argparse.SUPPRESS, **value)
    for former, current in FORMER_NAMES.items():
        if current in names:
            parser.add_argument(flag(former), dest=former, help=argparse.SUPPRESS, default=argparse.SUPPRESS)


def _migrate(settings: Settings) -> None:
    asyncio.run(prepare(_database_url(settings)))


def _database_url(settings: Settings) -> str:
    if settings.database_url is None:
        raise StartError(f"No database. Set {flag('database_url')} or {variable('database_url')}.")
    return settings.database_url.get_secret_value()


def _archive_url(settings: Settings) -> str:
    if settings.archive_url is None:
        raise StartError(f"No archive. Set {flag('archive_url')} or {variable('archive_url')}.")
    return settings.archive_url


def _run_token_command(settings: Settings, flags: Mapping[str, Any]) -> None:
    """Run a token command on the database of the settings, or on the embedded one, whether or not a manager runs."""
    if "scope" in flags:
        try:
            token_command.new_token(flags)
        except ValueError as error:
            raise InvalidTokenError(f"token create: {error}") from error
    if settings.database_url is not None:
        token_command.run(flags, settings.database_url.get_secret_value())
        return
    data_dir = settings.data_dir or default_data_dir()
    if url := running_server_url(data_dir):
        token_command.run(flags, url)
        return
    with EmbeddedPostgres(data_dir) as server:
        token_command.run(flags, server.url)


def _serve_embedded(settings: Settings) -> None:
    data_dir = settings.data_dir or default_data_dir()
    spare_connections = 20  # for psql sessions, and the connections that PostgreSQL reserves
    server_settings = {"max_connections": str(settings.database_connections + spare_connections)}
    with EmbeddedPostgres(data_dir, settings=server_settings) as server:
        serve(settings, server.url, {"data_dir": str(data_dir), "database_log": str(server.log_file)})


def _exit(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _explain(error: ValidationError | SettingsError, renamed: Sequence[Renamed]) -> str:
    """Format one line for each invalid setting: its flag, its variable, and what is wrong."""
    if isinstance(error, SettingsError):
        return f"jobnik-manager: {error}"
    lines: list[str] = []
    for invalid in error.errors():
        name = setting(str(invalid["loc"][0]))
        sources = [
            former
            for former, current, overridden in renamed
            if current in (flag(name), variable(name)) and not overridden
        ]
        given = f" (given as {' and '.join(sources)})" if sources else ""
        lines.append(f"{flag(name)} or {variable(name)}{given}: {invalid['msg'].removeprefix('Value error, ')}")
    return "\n".join(lines)
