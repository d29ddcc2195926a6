"""What people read first: its links lead somewhere, it stays short, and what is drawn from code is up to date."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest
from reference_manager.settings import Settings, shown

from tools.docs.pages import PAGES

ROOT = Path(__file__).parents[3]
_ROOMS = ("docs", "sdk", "reference_manager", "benchmarks")
MARKDOWN = sorted([*ROOT.glob("*.md"), *(file for room in _ROOMS for file in (ROOT / room).rglob("*.md"))])
_LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def _name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def _anchors(file: Path) -> set[str]:
    """The headings of a page as links name them."""
    headings = _HEADING.findall(file.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", MARKDOWN, ids=_name)
def test_every_relative_link_leads_somewhere(file: Path) -> None:
    """A link names a file that is there, and a heading that is in it."""
    for pair in _LINK.findall(_CODE.sub("", file.read_text(encoding="utf-8"))):
        link = "".join(pair)
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (file.parent / path).resolve() if path else file
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in _anchors(target), f"{link}: there is no such heading"


def test_the_readme_is_short() -> None:
    """A newcomer reads it to its end."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120


@pytest.mark.parametrize("file", MARKDOWN, ids=_name)
def test_examples_are_python_with_names_that_there_are(file: Path) -> None:
    """Each block of Python can be read, and imports from the SDK what the SDK says that it has."""
    for block in _PYTHON.findall(file.read_text(encoding="utf-8")):
        tree = compile(block, _name(file), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jobnik_sdk"):
                public = import_module(node.module or "").__all__
                assert [name.name for name in node.names if name.name not in public] == []


def test_what_a_worker_says_is_what_it_says() -> None:
    """Each line of the log that "Operate a worker" explains is one that the SDK writes."""
    page = (ROOT / "docs" / "how-to" / "operate-a-worker.md").read_text(encoding="utf-8")
    explained = re.findall(r"^\| `([a-z ,]+)` \|", page.split("## Troubleshooting")[1], re.MULTILINE)
    said = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "sdk" / "src").rglob("*.py"))
    assert len(explained) > 10
    assert [line for line in explained if f'"{line}' not in said] == []


def test_every_page_is_on_the_map() -> None:
    """docs/index.md links to every page below docs/."""
    docs = ROOT / "docs"
    links = _LINK.findall((docs / "index.md").read_text(encoding="utf-8"))
    linked = {(docs / "".join(pair)).resolve() for pair in links}
    assert {file for file in docs.rglob("*.md") if file.name != "index.md"} <= linked


@pytest.mark.parametrize("file", PAGES, ids=_name)
def test_generated_references_are_up_to_date(file: Path) -> None:
    """What `make docs` would write is what is there."""
    assert file.read_text(encoding="utf-8") == PAGES[file]()


@pytest.mark.parametrize("name", [name for name, field in Settings.model_fields.items() if field.default is not None])
def test_a_default_is_shown_as_it_would_be_typed(name: str) -> None:
    """Reading back what the page shows gives the default."""
    default = Settings.model_fields[name].default
    assert getattr(Settings.model_validate({name: shown(default)}), name) == default
