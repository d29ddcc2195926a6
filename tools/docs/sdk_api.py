"""docs/reference/sdk.md: the public names of the SDK, from their signatures and docstrings."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import griffe

from tools.docs.markdown import document

_SOURCES: Final = Path(__file__).parents[2] / "sdk" / "src"
_MODULES: Final = ("", "errors", "testing")
"""The public modules; "" is the package itself."""

_INTRODUCTION: Final = """\
The names that an application may import, by module. All other names may change without notice. Durations are
`timedelta`. Exceptions are subclasses of `JobnikError` unless stated otherwise; an argument of the wrong type raises
`TypeError`.

`AnyJob`, `AnyStage` and `AnyTask` in a signature accept the entity or its id, a `uuid.UUID`."""

_MODULES_OF_SUBCLASSES: Final = ("entities", "manager", "producer")
_WIDTH: Final = 110
_STARS: Final = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}

AnyObject = griffe.Object | griffe.Alias


def page() -> str:
    """Return the text of the page."""
    package = griffe.load(
        "jobnik_sdk",
        search_paths=[_SOURCES],
        docstring_parser="google",
        docstring_options={"warn_missing_types": False},
        allow_inspection=False,
    )
    return document("The SDK", _INTRODUCTION, *(part for name in _MODULES for part in _of_module(package, name)))


def _of_module(package: AnyObject, name: str) -> Iterator[str]:
    module = package[name] if name else package
    yield f"## {module.path}"
    yield _text(module)
    # The package also exports the errors; the page describes them once, under the tree in jobnik_sdk.errors.
    elsewhere = () if name else {*map(str, package["errors"].exports or ())}
    for member in sorted({*map(str, module.exports or ())}.difference(elsewhere)):
        found = module[member]
        yield from _of_member(found.final_target if isinstance(found, griffe.Alias) else found)


def _of_member(member: AnyObject) -> Iterator[str]:
    yield f"### {member.name}"
    if member.is_class:
        yield from _of_class(member)
    elif member.is_function:
        yield _code(_call(member))
        yield _text(member)
    else:
        yield _code(_assignment(member))
        yield _text(member)


def _of_class(kind: AnyObject) -> Iterator[str]:
    made = kind.members.get("__init__")
    members = _members_of(kind)
    if made is not None and made.is_function:
        yield _code("\n".join(_call(variant, kind.name) for variant in (getattr(made, "overloads", None) or [made])))
    elif fields := [member for member in members.values() if member.is_attribute and not member.has_docstring]:
        yield _code("\n".join(map(_assignment, fields)))
    yield _text(kind)
    for member in members.values():
        if not member.has_docstring:
            continue
        if member.is_function:
            yield f"{_code(_calls(member))}\n\n{_text(member)}"
        else:
            yield f"`{_assignment(member)}`: {_text(member)}"


def _members_of(kind: AnyObject) -> dict[str, AnyObject]:
    """Return the public members of a class; of an entity or a producer, the inherited ones come first."""
    found = [name for name, member in kind.members.items() if not (name.startswith("_") or member.is_alias)]
    members: dict[str, AnyObject] = {name: kind.members[name] for name in found}
    if kind.module.name in _MODULES_OF_SUBCLASSES:
        inherited = {name: member.final_target for name, member in kind.inherited_members.items()}
        members = {name: member for name, member in inherited.items() if not name.startswith("_")} | members
    return {name: member for name, member in members.items() if name != "model_config"}


def _calls(function: AnyObject) -> str:
    """Return the two forms of a method with or without a type; of other methods, the signature with all arguments."""
    overloads: list[AnyObject] = getattr(function, "overloads", None) or []
    return "\n".join(map(_call, overloads if len(overloads) == 2 else [function]))  # noqa: PLR2004 see above


def _call(function: AnyObject, name: str = "") -> str:
    parameters = [parameter for parameter in getattr(function, "parameters", ()) if parameter.name != "self"]
    arguments: list[str] = []
    starred = False
    for parameter in parameters:
        if parameter.kind is griffe.ParameterKind.keyword_only and not starred:
            arguments.append("*")
            starred = True
        prefix = _STARS.get(parameter.kind, "")
        starred = starred or prefix == "*"
        annotation = f": {parameter.annotation}" if parameter.annotation is not None else ""
        default = f" = {parameter.default}" if parameter.default is not None and not prefix else ""
        arguments.append(f"{prefix}{parameter.name}{annotation}{default}")
    returns = getattr(function, "returns", None)
    prefix = "async " if "async" in function.labels else ""
    result = f" -> {returns}" if returns is not None and not name else ""
    line = f"{prefix}{name or function.name}({', '.join(arguments)}){result}"
    if len(line) <= _WIDTH:
        return line
    return f"{prefix}{name or function.name}(\n" + "".join(f"    {part},\n" for part in arguments) + f"){result}"


def _assignment(attribute: AnyObject) -> str:
    annotation, value = getattr(attribute, "annotation", None), getattr(attribute, "value", None)
    if annotation is not None:  # a reader does not need what validators add to a type
        annotation = re.sub(r"^Annotated\[(.*), \w+(?:\(\w+\))?\]$", r"\1", str(annotation))
    if str(annotation) == "TypeAlias":
        return f"{attribute.name} = {value}"
    if annotation is None or value is None:
        return f"{attribute.name}: {annotation}" if value is None else f"{attribute.name} = {value}"
    simple = "(" not in str(value) and not str(value).startswith("_")
    return f"{attribute.name}: {annotation} = {value}" if simple else f"{attribute.name}: {annotation}"


def _text(member: AnyObject) -> str:
    if member.docstring is None:
        return ""
    return "\n\n".join(_section(section) for section in member.docstring.parsed)


def _section(section: griffe.DocstringSection) -> str:
    match section:
        case griffe.DocstringSectionText():
            return _examples_fenced(str(section.value))
        case griffe.DocstringSectionParameters() | griffe.DocstringSectionAttributes():
            return "\n".join(f"- `{one.name}`: {_line(one.description)}" for one in section.value)
        case griffe.DocstringSectionRaises():
            raised = "\n".join(f"- `{one.annotation}`: {_line(one.description)}" for one in section.value)
            return f"Raises:\n\n{raised}"
        case griffe.DocstringSectionExamples():
            return "\n\n".join(_examples_fenced(text) for _, text in section.value)
        case _:
            return str(section.value)


def _examples_fenced(text: str) -> str:
    """Put examples and diagrams into Markdown code blocks."""
    blocks: list[str] = []
    for block in text.split("\n\n"):
        drawn = block.startswith((">>>", "|")) or "├──" in block
        blocks.append(f"```\n{block}\n```" if drawn and not block.startswith("|") else block)
    return "\n\n".join(blocks)


def _line(text: str) -> str:
    return " ".join(text.split())


def _code(text: str) -> str:
    return f"```text\n{text}\n```"  # not as Python, because the formatter would change it
