"""Renamed settings: the former flags and variables work until version 1.0, with a warning."""

import json
import os
import subprocess
import sys
from datetime import timedelta

import pytest
from reference_manager.cli import main
from reference_manager.settings import FORMER_NAMES, Renamed, Settings, flag, replace_former_names, variable

UNREACHABLE = "postgresql://127.0.0.1:1/none"


@pytest.mark.parametrize(("former", "current"), FORMER_NAMES.items())
def test_a_former_flag_sets_the_renamed_setting(former: str, current: str) -> None:
    """The value of the former flag is used."""
    values, renamed = replace_former_names({former: "PT3S"}, {})
    assert getattr(Settings(**values), current) == timedelta(seconds=3)
    assert renamed == [Renamed(f"--{former.replace('_', '-')}", flag(current))]


@pytest.mark.parametrize(("former", "current"), FORMER_NAMES.items())
def test_a_former_variable_sets_the_renamed_setting(former: str, current: str) -> None:
    """The value of the former variable is used."""
    former_variable = f"JOBNIK_MANAGER_{former.upper()}"
    values, renamed = replace_former_names({}, {former_variable: "PT3S"})
    assert getattr(Settings(**values), current) == timedelta(seconds=3)
    assert renamed == [Renamed(former_variable, variable(current))]


@pytest.mark.parametrize(
    ("flags", "environment", "expected"),
    [
        ({"database_timeout": "PT1S", "database_patience": "PT2S"}, {}, {"database_timeout": "PT1S"}),
        ({"database_timeout": "PT1S"}, {"DATABASE_PATIENCE": "PT2S"}, {"database_timeout": "PT1S"}),
        ({"database_patience": "PT1S"}, {"DATABASE_TIMEOUT": "PT2S"}, {"database_timeout": "PT1S"}),
        ({}, {"DATABASE_TIMEOUT": "PT1S", "DATABASE_PATIENCE": "PT2S"}, {}),
        ({}, {"DATABASE_TIMEOUT": "PT1S"}, {}),
    ],
)
def test_a_current_name_wins_over_a_former_one(
    flags: dict[str, str], environment: dict[str, str], expected: dict[str, str]
) -> None:
    """A flag wins over a variable; of two flags or two variables, the current one wins."""
    variables = {f"JOBNIK_MANAGER_{name}": value for name, value in environment.items()}
    values, renamed = replace_former_names(flags, variables)
    assert values == expected
    in_use = values == {"database_timeout": flags.get("database_patience")}
    assert all(name.overridden is not in_use for name in renamed)


def test_each_former_name_is_logged_once() -> None:
    """The log has one warning for each former name in use, with the name to use instead."""
    ended = _run("--database-patience", "PT1S", JOBNIK_MANAGER_SHUTDOWN_PATIENCE="PT1S")
    assert "Cannot use the database" in ended.stderr
    warnings = [line for line in map(json.loads, ended.stdout.splitlines()) if line["level"] == "warning"]
    assert [(line["event"], line["setting"], line["use"], line["removed_in"]) for line in warnings] == [
        ("deprecated setting", "--database-patience", "--database-timeout", "1.0"),
        ("deprecated setting", "JOBNIK_MANAGER_SHUTDOWN_PATIENCE", "JOBNIK_MANAGER_SHUTDOWN_TIMEOUT", "1.0"),
    ]


def test_the_log_says_that_a_former_name_is_ignored() -> None:
    """If the current variable is set as well, the warning says that the former one has no effect."""
    ended = _run(JOBNIK_MANAGER_DATABASE_PATIENCE="PT1S", JOBNIK_MANAGER_DATABASE_TIMEOUT="PT2S")
    (warning,) = [line for line in map(json.loads, ended.stdout.splitlines()) if line["level"] == "warning"]
    assert (warning["setting"], warning["ignored"]) == ("JOBNIK_MANAGER_DATABASE_PATIENCE", True)


def test_an_invalid_value_is_not_blamed_on_a_former_name_without_effect() -> None:
    """The error names the former variable only if the invalid value comes from it."""
    ended = _run(JOBNIK_MANAGER_DATABASE_PATIENCE="PT1S", JOBNIK_MANAGER_DATABASE_TIMEOUT="soon")
    assert ended.stderr.startswith("--database-timeout or JOBNIK_MANAGER_DATABASE_TIMEOUT: ")


def test_an_invalid_value_of_a_former_variable_is_located() -> None:
    """The error names the current flag and variable, and the former name that holds the value."""
    ended = _run(JOBNIK_MANAGER_DATABASE_PATIENCE="soon")
    assert ended.returncode == 2
    assert ended.stderr.startswith(
        "--database-timeout or JOBNIK_MANAGER_DATABASE_TIMEOUT (given as JOBNIK_MANAGER_DATABASE_PATIENCE): "
    )


def test_the_help_of_migrate_promises_no_embedded_database(capsys: pytest.CaptureFixture[str]) -> None:
    """`migrate` requires a database URL, so its help offers no default."""
    with pytest.raises(SystemExit):
        main(["migrate", "--help"])
    text = capsys.readouterr().out
    assert "embedded" not in text
    assert "required" in text


def _run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBNIK_MANAGER_")}
    return subprocess.run(  # noqa: S603 - no input
        [sys.executable, "-m", "reference_manager", "serve", "--database-url", UNREACHABLE, "--port", "0", *arguments],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )
