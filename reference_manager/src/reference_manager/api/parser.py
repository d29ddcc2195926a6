"""The process that parses large bodies: ``python -m reference_manager.api.parser``. See ``common/parser_client.py``."""

import json
import pickle
import resource
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

from fastapi._compat import ModelField
from fastapi.exceptions import RequestValidationError

from reference_manager.api.common.fields import Body, BodyContext, metadata_text
from reference_manager.api.common.parser_client import BodyFormat, Parsed, read_frame, write_frame
from reference_manager.api.common.protocol import refuse_fields
from reference_manager.api.common.strict import parse_json
from reference_manager.api.tasks.requests import TaskBody, new_tasks

MAX_MEMORY = 512 * 1024 * 1024
"""Bytes. A process that has used more ends, because Python returns little of it to the system."""
_UNIT = 1 if sys.platform == "darwin" else 1024
"""The unit of ``ru_maxrss``, in bytes."""


class _Format(NamedTuple):
    """See ``BodyFormat``."""

    field: ModelField
    refused: frozenset[str]


def main() -> None:
    """Answer bodies until the input ends."""
    source, target = sys.stdin.buffer, sys.stdout.buffer
    while header := read_frame(source):
        form, context = pickle.loads(header)  # noqa: S301 - from the manager
        command, errors = parse(read_frame(source), form, context)
        is_last = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT > MAX_MEMORY
        write_frame(target, pickle.dumps(Parsed(command, errors, is_last)))
        if is_last:
            return


def parse(body: bytes, form: bytes, context: BodyContext) -> tuple[object, Sequence[Mapping[str, Any]]]:
    """Parse and validate a body as FastAPI does, and convert it to a command.

    Args:
        body: The body.
        form: A pickled ``BodyFormat``.
        context: What the conversion needs besides the body.

    Returns:
        The command, or None and the first errors.
    """
    field, refused = _format(form)
    try:
        value = parse_json(body)
        refuse_fields(value, refused)
    except json.JSONDecodeError as error:
        return None, [{"type": "json_invalid", "loc": ("body",), "ctx": {"error": error.msg}}]
    except RequestValidationError as error:
        return None, error.errors()
    validated, errors = field.validate(value, loc=("body",))
    if errors:
        return None, _first(errors)
    return _converted(validated, context), ()


def _converted(body: object, context: BodyContext) -> object:
    match body:
        case Body():
            return body.convert(context)
        case dict():
            return metadata_text(cast("dict[str, Any]", body), part_a_only=context.part_a_only)
        case _:
            return new_tasks(cast("Sequence[TaskBody]", body), context.trace, keyed=context.keyed)


def _first(errors: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return what a response may mention: the first error, and the first missing property."""
    missing = next((error for error in errors if error["type"] == "missing"), errors[0])
    return [{name: error[name] for name in ("type", "loc", "msg")} for error in (errors[0], missing)]


@lru_cache
def _format(pickled: bytes) -> _Format:
    form: BodyFormat = pickle.loads(pickled)  # noqa: S301 - from the manager
    return _Format(ModelField(form.field, "body"), form.refused)


if __name__ == "__main__":
    main()
