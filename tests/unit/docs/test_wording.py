"""Names and texts use the field's terms, in plain English: the words that they replaced do not come back."""

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from jobnik_sdk import WorkerSettings
from reference_manager.settings import Settings

from tools.docs.pages import PAGES

ROOT: Final = Path(__file__).parents[3]
SOURCES: Final = [ROOT / "sdk" / "src", ROOT / "devtools" / "src", ROOT / "reference_manager" / "src"]

RETIRED_NAMES: Final = {
    *("station", "stations", "desk", "desks", "heart", "hearts", "beat", "beats", "pulse", "outbox"),
    *("ending", "endings", "tally", "tallies", "census", "standing", "corking", "corked", "cork", "lane", "lanes"),
    *("duty", "duties", "wakeup", "wakeups", "patience", "impatience", "surroundings", "goodbye", "farewell"),
    *("tell", "tells", "told", "say", "says", "said", "wish", "wishes", "hear", "heard", "obey", "misfit", "misfits"),
    *("somebody", "nobody", "whoever", "complaint", "complaints", "brief", "briefly"),
}
"""Words that names contained before they took the terms of docs/reference/glossary.md."""

RETIRED_PHRASES: Final = re.compile(
    r"\b(fast lane|short cut|last words|told briefly|burnt?|nobody|somebody|whoever|whatever it is|in hand|at work"
    r"|twice is as once|(?<!there )is no (?!longer)[a-z]+"
    r"|(?<!there )are no (?!longer)[a-z]+|is there already|are to be|is to be"
    r"|cannot be said|says no|said so|no word|lends?|lent|comes? about|stood still|stands still|put off|left behind"
    r"|patience|duty|duties|census|outbox|goodbye|heart|beats?|station|desk)\b"
)
"""Idioms that made readers stumble in log events, error messages, help texts and headings."""

_LOGGERS: Final = {"_log", "log", "_logger", "logger"}
_LOG_METHODS: Final = {"debug", "info", "warning", "error", "exception", "critical"}


@cache
def _trees() -> list[tuple[Path, ast.Module]]:
    """Return the modules of the SDK, the development tools and the manager, with their paths below src."""
    return [
        (file.relative_to(source), ast.parse(file.read_text(encoding="utf-8")))
        for source in SOURCES
        for file in sorted(source.rglob("*.py"))
    ]


def _findings(texts: Callable[[ast.Module], Iterable[str]], wrong: Callable[[str], object]) -> list[str]:
    """Return the texts that are wrong, each with its module."""
    return [f"{path}: {text}" for path, tree in _trees() for text in texts(tree) if wrong(text)]


def _is_retired(name: str) -> bool:
    """Whether a snake_case or CamelCase name contains a retired word."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return not RETIRED_NAMES.isdisjoint(word.lower() for word in words)


def _definitions(tree: ast.Module) -> Iterator[str]:
    """Yield the names of classes, functions, methods, attributes and variables."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Assign(targets=[ast.Attribute(attr=name)]) | ast.AnnAssign(target=ast.Attribute(attr=name)):
                yield name
            case ast.arg(arg=name):
                yield name
            case _:
                pass


def _literal(node: ast.expr) -> str:
    """Return the literal text of an expression, with an ellipsis for whatever is computed."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(map(_literal, values))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _literal(left) + _literal(right)
        case _:
            return "…"


def _log_events(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr=method, value=ast.Name(id=logger)), args=[event, *_]):
                if method in _LOG_METHODS and logger in _LOGGERS:
                    yield _literal(event)
            case _:
                pass


def _error_messages(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Raise(exc=ast.Call(args=arguments)):
                yield from map(_literal, arguments)
            case _:
                pass


def _without_code(page: str) -> str:
    return re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)


def test_modules_are_named_in_the_fields_terms() -> None:
    """No module or package has a retired word in its name."""
    assert [str(path) for path, _ in _trees() if any(map(_is_retired, path.with_suffix("").parts))] == []


def test_definitions_are_named_in_the_fields_terms() -> None:
    """No class, function, attribute, parameter or variable has a retired word in its name."""
    assert _findings(_definitions, _is_retired) == []


@pytest.mark.parametrize("settings", [WorkerSettings, Settings])
def test_settings_use_the_fields_terms(settings: type[WorkerSettings | Settings]) -> None:
    """No setting has a retired word in its name, and no description a retired phrase."""
    assert [name for name in settings.model_fields if _is_retired(name)] == []
    descriptions = [field.description or "" for field in settings.model_fields.values()]
    assert [text for text in descriptions if RETIRED_PHRASES.search(text.lower())] == []


def test_log_events_are_short_phrases() -> None:
    """A log event is a literal in lower case without punctuation at its end; everything else is in fields."""
    assert _findings(_log_events, lambda event: not re.fullmatch(r"[a-z][^…]{0,78}[^…. ]", event)) == []


def test_log_events_are_plain_english() -> None:
    """No log event contains a retired phrase."""
    assert _findings(_log_events, lambda text: RETIRED_PHRASES.search(text.lower())) == []


def test_error_messages_are_plain_english() -> None:
    """No message of an exception contains a retired phrase."""
    assert _findings(_error_messages, lambda text: RETIRED_PHRASES.search(text.lower())) == []


def test_metrics_are_described_in_plain_english() -> None:
    """No help text of a metric contains a retired phrase."""
    page = PAGES[ROOT / "docs" / "reference" / "metrics.md"]()
    helps = [row.rsplit("|", 2)[1] for row in page.splitlines() if row.startswith("| `")]
    assert len(helps) > 30
    assert [text for text in helps if RETIRED_PHRASES.search(text.lower())] == []


def test_headings_use_the_fields_terms() -> None:
    """No heading of the documentation contains a retired word or phrase."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "template").rglob("*.md*")]
    headings = [
        (page.name, heading)
        for page in pages
        for heading in re.findall(r"^#+ (.+)$", _without_code(page.read_text(encoding="utf-8")), re.MULTILINE)
    ]
    assert len(headings) > 100
    assert [each for each in headings if _is_retired(each[1]) or RETIRED_PHRASES.search(each[1].lower())] == []


def test_glossary_points_to_modules_that_exist() -> None:
    """Each module or folder in the last column of the glossary exists, and each term is listed once."""
    glossary = (ROOT / "docs" / "reference" / "glossary.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in row.split("|")[1:4]] for row in glossary.splitlines() if row.startswith("| ")][1:]
    terms = [term for term, _, _ in rows]
    named = re.findall(r"`((?:jobnik_sdk|jobnik_devtools|reference_manager)(?:/\w+)*)`", glossary)
    known = {str(file.relative_to(source).with_suffix("")) for source in SOURCES for file in source.rglob("*")}
    assert terms == sorted(set(terms), key=str.lower)
    assert len(named) > 50
    assert [path for path in named if path not in known] == []
