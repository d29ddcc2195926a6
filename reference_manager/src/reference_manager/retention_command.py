"""The command ``jobnik-manager retention``: shows and sets how long ended jobs are kept, directly in the database."""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from reference_manager.command_line import open_database, parse_duration
from reference_manager.domain.commands import RetentionRule
from reference_manager.engine.records.retention import MAX_AGE, MAX_KEPT, RetentionRules
from reference_manager.server.errors import StartError

NEVER: Final = "never"
STATUSES: Final = ("completed", "failed", "aborted")


def add_commands(
    parser: argparse.ArgumentParser, add_database_flags: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Add the commands to their parser.

    Args:
        parser: The parser of ``retention``.
        add_database_flags: Adds the flags that select the database.
    """
    commands = parser.add_subparsers(required=True, dest="retention_command", metavar="show | set | unset")
    show = commands.add_parser("show", help="show the rules as JSON", description="Show the rules as JSON.")
    about = "Change the rule of all jobs, or that of jobs with a name. What is not given stays as it is."
    change = commands.add_parser("set", help="change a rule", description=about)
    about = "Remove the rule of jobs with a name. The rule of all jobs then applies to them."
    remove = commands.add_parser("unset", help="remove a rule", description=about)
    for added in (show, change, remove):
        add_database_flags(added)
    change.add_argument("--job-name", metavar="NAME", help="Only jobs with this name. Default: all without a rule.")
    remove.add_argument("--job-name", metavar="NAME", required=True, help="The name.")
    for status in STATUSES:
        text = f"How long after its end a job that is {status.upper()} is deleted, such as P30D; {NEVER}: it is kept."
        change.add_argument(f"--{status}", type=_age, metavar="DURATION", default=argparse.SUPPRESS, help=text)
    text = "Whether a job must be in an archive before it is deleted, for all rules: true or false."
    change.add_argument("--archive", type=_flag, metavar="BOOLEAN", default=argparse.SUPPRESS, help=text)
    text = f"How many jobs of each name are kept in any case: those that ended last; 0 to {MAX_KEPT}."
    change.add_argument("--keep-last", type=_count, metavar="COUNT", default=argparse.SUPPRESS, help=text)


def run(flags: Mapping[str, Any], database_url: str) -> None:
    """Run the command on a database, and write the rules to the standard output as JSON.

    Args:
        flags: The flags of the command.
        database_url: The database.

    Raises:
        StartError: The database cannot be used, or there is no such rule.
        DatabaseError: The database failed.
    """
    sys.stdout.write(f"{json.dumps(asyncio.run(_run(flags, database_url)), indent=2)}\n")


async def _run(flags: Mapping[str, Any], database_url: str) -> Any:  # noqa: ANN401 - any JSON
    async with open_database(database_url) as database:
        stored = RetentionRules(database)
        body = json.loads(await stored.get())
        if flags["retention_command"] == "show":
            return body
        rules: dict[str | None, RetentionRule] = {None: _rule(body["default"])}
        rules |= {name: _rule(rule) for name, rule in body["byName"].items()}
        name: str | None = flags["job_name"]
        if flags["retention_command"] == "unset":
            if name not in rules:
                raise StartError(f"There is no rule for jobs with the name {name!r}.")
            del rules[name]
        else:
            changes = {field: flags[field] for field in (*STATUSES, "keep_last") if field in flags}
            rules[name] = rules.get(name, rules[None])._replace(**changes)
        return json.loads(await stored.set(rules, archive=flags.get("archive", body["archive"])))


def _rule(body: Mapping[str, Any]) -> RetentionRule:
    completed, failed, aborted = (
        None if (age := body[f"{status}Seconds"]) is None else timedelta(seconds=age) for status in STATUSES
    )
    return RetentionRule(completed, failed, aborted, body["keepLast"])


def _age(text: str) -> timedelta | None:
    if text == NEVER:
        return None
    age = parse_duration(text, timedelta(seconds=1), MAX_AGE)
    if age is None:
        raise argparse.ArgumentTypeError(f"must be {NEVER}, or a duration such as P30D or PT12H")
    return age


def _flag(text: str) -> bool:
    if text not in {"true", "false"}:
        raise argparse.ArgumentTypeError("must be true or false")
    return text == "true"


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) <= MAX_KEPT):
        raise argparse.ArgumentTypeError(f"must be a number from 0 to {MAX_KEPT}")
    return int(text)
