"""The documentation: links resolve, examples use real names, and generated pages are up to date."""

import ast
import builtins
import re
from importlib import import_module
from pathlib import Path

import jobnik_sdk.errors
import pytest
from reference_manager.settings import Settings, shown

from tools.docs.pages import PAGES

ROOT = Path(__file__).parents[3]
_FOLDERS = ("docs", "sdk", "reference_manager", "benchmarks")
MARKDOWN = sorted([*ROOT.glob("*.md"), *(file for folder in _FOLDERS for file in (ROOT / folder).rglob("*.md"))])
_LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_GIVEN = {
    "docs/how-to/write-a-handler.md": {"partial", "providers", "settings"},
    "docs/quickstart.md": {
        *("BaseModel", "NewStage", "TaskContext", "WorkTask"),
        *("producer", "seeds", "tasks", "work"),
    },
}
"""Names that other lines of a rendered project define, in pages that show only the lines to change."""
_CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def _name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def _anchors(file: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    headings = _HEADING.findall(file.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", MARKDOWN, ids=_name)
def test_relative_links_resolve(file: Path) -> None:
    """A relative link names an existing file, and an anchor names a heading of that file."""
    for pair in _LINK.findall(_CODE.sub("", file.read_text(encoding="utf-8"))):
        link = "".join(pair)
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (file.parent / path).resolve() if path else file
        assert target.exists(), f"{link}: no such file"
        assert not anchor or anchor in _anchors(target), f"{link}: no such heading"


def test_the_readme_is_short() -> None:
    """The README has fewer than 120 lines."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120


@pytest.mark.parametrize("file", MARKDOWN, ids=_name)
def test_examples_import_public_names(file: Path) -> None:
    """Each Python block compiles, and imports only names in `__all__` from the SDK."""
    for block in _PYTHON.findall(file.read_text(encoding="utf-8")):
        tree = compile(block, _name(file), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jobnik_sdk"):
                public = import_module(node.module or "").__all__
                assert [name.name for name in node.names if name.name not in public] == []


@pytest.mark.parametrize("file", MARKDOWN, ids=_name)
def test_names_in_examples_are_defined(file: Path) -> None:
    """Each name in the Python blocks of a page is imported or defined in one of them."""
    defined = {"__file__", *dir(builtins), *_GIVEN.get(_name(file), ())}
    used: set[str] = set()
    for block in _PYTHON.findall(file.read_text(encoding="utf-8")):
        for node in ast.walk(compile(block, _name(file), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)):
            match node:
                case ast.Name(id=name, ctx=ast.Load()):
                    used.add(name)
                case (
                    ast.Name(id=name)
                    | ast.arg(arg=name)
                    | ast.ExceptHandler(name=str(name))
                    | ast.MatchAs(name=str(name))
                ):
                    defined.add(name)
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                    defined.add(name)
                case ast.alias(name=name, asname=alias):
                    defined.add(alias or name.partition(".")[0])
                case _:
                    pass
    assert used - defined == set()


def test_all_errors_are_exported() -> None:
    """Each error can be imported from the package."""
    assert set(jobnik_sdk.errors.__all__) <= set(jobnik_sdk.__all__)


def _texts(*, of_problems: bool) -> set[str]:
    """Return the literal texts in the SDK without its test tools; or only the log events that report a problem."""
    texts: set[str] = set()
    for file in (ROOT / "sdk" / "src" / "jobnik_sdk").rglob("*.py"):
        if "testing" not in file.parts:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                match node:
                    case ast.Call(
                        func=ast.Attribute(attr="warning" | "error" | "exception"),
                        args=[ast.Constant(value=str(event)), *_],
                    ):
                        texts.add(event)
                    case ast.Constant(value=str(text)) if not of_problems:
                        texts.add(text)
                    case _:
                        pass
    return texts


def test_problems_in_the_log_are_explained() -> None:
    """The troubleshooting of "Operate a worker" explains every event that reports a problem, and events that exist."""
    page = (ROOT / "docs" / "how-to" / "operate-a-worker.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]+) \|", page.split("## Troubleshooting")[1], re.MULTILINE)
    explained = {event for row in rows for event in re.findall(r"`([^`]+)`", row.split(", level")[0])}
    problems = _texts(of_problems=True)
    assert len(problems) > 40
    assert problems - explained == set()
    assert explained - _texts(of_problems=False) == set()


def test_index_links_to_every_page() -> None:
    """docs/index.md links to every page below docs/."""
    docs = ROOT / "docs"
    links = _LINK.findall((docs / "index.md").read_text(encoding="utf-8"))
    linked = {(docs / "".join(pair)).resolve() for pair in links}
    assert {file for file in docs.rglob("*.md") if file.name != "index.md"} <= linked


@pytest.mark.parametrize("file", PAGES, ids=_name)
def test_generated_references_are_up_to_date(file: Path) -> None:
    """`make docs` would not change any page."""
    assert file.read_text(encoding="utf-8") == PAGES[file]()


@pytest.mark.parametrize("name", [name for name, field in Settings.model_fields.items() if field.default is not None])
def test_defaults_are_shown_as_typed(name: str) -> None:
    """Parsing the default that the page shows gives the default of the setting."""
    default = Settings.model_fields[name].default
    assert getattr(Settings.model_validate({name: shown(default)}), name) == default
