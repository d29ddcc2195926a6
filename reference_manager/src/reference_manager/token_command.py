"""The command ``jobnik-manager token``: makes, lists, rotates and revokes tokens, directly in the database."""

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from getpass import getuser
from typing import Any, Final
from uuid import UUID

from reference_manager.access.principals import Scope
from reference_manager.access.secrets import generate_secret
from reference_manager.access.tokens import MAX_LIFETIME, MAX_OVERLAP, Issued, NewToken, Tokens
from reference_manager.command_line import open_database, parse_duration

PAGE_SIZE: Final = 500
COLUMNS: Final = ("id", "name", "scopes", "limits", "created", "last used", "expires")


def add_commands(
    parser: argparse.ArgumentParser, add_database_flags: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Add the commands to their parser.

    Args:
        parser: The parser of ``token``.
        add_database_flags: Adds the flags that select the database.
    """
    commands = parser.add_subparsers(
        required=True, dest="token_command", metavar="create | list | rotate | revoke | generate"
    )

    def command(name: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if name != "generate":
            add_database_flags(added)
            added.add_argument("--json", action="store_true", help="Write JSON.")
        return added

    create = command("create", "create a token and show it, this once")
    create.add_argument("--name", required=True, metavar="NAME", help="A name for logs and lists, 1 to 100 characters.")
    create.add_argument(
        "--scope", required=True, action="append", choices=list(Scope), help="What the token may do. May be repeated."
    )
    create.add_argument(
        "--stage-type", action="append", metavar="TYPE", help="Limits the scope worker to this type. May be repeated."
    )
    create.add_argument(
        "--job-name", action="append", metavar="NAME", help="Limits the scope producer to these jobs. May be repeated."
    )
    create.add_argument(
        "--expires-in", type=_duration(MAX_LIFETIME), metavar="DURATION", help="Such as P90D. Default: never."
    )
    command("list", "list the tokens, without their secrets")
    rotate = command("rotate", "give a token another secret and show it, this once")
    rotate.add_argument("token", metavar="NAME | ID")
    rotate.add_argument(
        "--overlap",
        type=_duration(MAX_OVERLAP),
        default=timedelta(hours=1),
        metavar="DURATION",
        help="How long the previous secret stays valid; PT0S ends it at once. Default: PT1H.",
    )
    command("revoke", "revoke a token at once").add_argument("token", metavar="NAME | ID")
    command("generate", "show a new secret without storing it, for --admin-token-file")


def run(flags: Mapping[str, Any], database_url: str) -> None:
    """Run a command on a database, which is migrated first.

    Raises:
        AccessError: There is no such token, or its name is taken.
        ValueError: The token to create is invalid.
        StartError, DatabaseError: The database cannot be used.
    """
    asyncio.run(_run(flags, database_url))


def generate() -> None:
    """Show a new secret."""
    sys.stdout.write(f"{generate_secret()}\n")


def new_token(flags: Mapping[str, Any]) -> NewToken:
    """Return the token that ``create`` asks for.

    Raises:
        ValueError: It is invalid; the message says why.
    """
    new = NewToken(
        flags["name"],
        frozenset(map(Scope, flags["scope"])),
        flags["stage_type"],
        flags["job_name"],
        flags["expires_in"],
    )
    new.check()
    return new


async def _run(flags: Mapping[str, Any], database_url: str) -> None:
    commands: dict[str, Callable[[Tokens, Mapping[str, Any]], Awaitable[None]]] = {
        "create": _create,
        "list": _list,
        "rotate": _rotate,
        "revoke": _revoke,
    }
    async with open_database(database_url) as database:
        await commands[flags["token_command"]](Tokens(database), flags)


async def _create(tokens: Tokens, flags: Mapping[str, Any]) -> None:
    _show_issued(await tokens.create(new_token(flags), f"{_user()} (command line)"), flags)


async def _list(tokens: Tokens, flags: Mapping[str, Any]) -> None:
    listed: list[dict[str, Any]] = []
    after: UUID | None = None
    while True:
        page = await tokens.list(after, PAGE_SIZE)
        listed += map(json.loads, page.tokens)
        after = page.last
        if after is None:
            break
    if flags["json"]:
        sys.stdout.write(f"{json.dumps(listed)}\n")
        return
    rows = [COLUMNS, *map(_row, listed)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")


async def _rotate(tokens: Tokens, flags: Mapping[str, Any]) -> None:
    _show_issued(await tokens.rotate(await tokens.find(flags["token"]), flags["overlap"]), flags)


async def _revoke(tokens: Tokens, flags: Mapping[str, Any]) -> None:
    token = await tokens.revoke(await tokens.find(flags["token"]))
    sys.stdout.write(f"{token}\n" if flags["json"] else f"Revoked {json.loads(token)['name']}.\n")


def _show_issued(issued: Issued, flags: Mapping[str, Any]) -> None:
    """Show a token: only the secret on standard output, so that a shell can read it."""
    if flags["json"]:
        sys.stdout.write(f"{json.dumps(json.loads(issued.token) | {'token': issued.secret})}\n")
        return
    sys.stdout.write(f"{issued.secret}\n")
    sys.stderr.write("This is the only time that the token is shown.\n")


def _row(token: Mapping[str, Any]) -> tuple[str, ...]:
    limits = [*(token["stageTypes"] or ()), *(token["jobNames"] or ())]
    expires = f"revoked {token['revokedAt'][:10]}" if token["revokedAt"] else (token["expiresAt"] or "never")
    return (
        token["id"],
        token["name"],
        ",".join(token["scopes"]),
        ",".join(limits) or "-",
        token["createdAt"],
        token["lastUsedAt"] or "never",
        expires,
    )


def _duration(longest: timedelta) -> Callable[[str], timedelta]:
    def parse(text: str) -> timedelta:
        duration = parse_duration(text, timedelta(), longest)
        if duration is None:
            message = f"must be a duration such as PT1H or P30D, at most {longest.days} days"
            raise argparse.ArgumentTypeError(message)
        return duration

    return parse


def _user() -> str:
    try:
        return getuser()
    except (KeyError, OSError):  # a user id without an account
        return "unknown user"
