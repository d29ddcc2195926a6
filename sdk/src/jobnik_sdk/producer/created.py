"""Reads created entities from responses: an entity with an id is returned even if other fields are invalid."""

from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast
from uuid import UUID

import httpx2
import structlog
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json

from jobnik_sdk.errors import UnexpectedAnswerError
from jobnik_sdk.http.client import ModelT, read_list, read_one
from jobnik_sdk.model.entities import Task

_NEW_TASK: Final = {"status": "PENDING", "attempts": 0, "maxAttempts": 1}

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


def read_created(
    model: type[ModelT], response: httpx2.Response, sent: Mapping[str, bytes], new: Mapping[str, object]
) -> ModelT:
    """Return the created entity in a response; a field that is missing or invalid has the value that was sent.

    Args:
        model: The model of the entity.
        response: The manager's response.
        sent: The fields of the request, as JSON.
        new: What is known about every new entity of this kind.

    Raises:
        UnexpectedAnswerError: the response has no valid id.
    """
    try:
        return read_one(model, response)
    except UnexpectedAnswerError as error:
        known = {**new, **{name: from_json(document) for name, document in sent.items()}}
        return _completed(model, _json(response), known, error)


def read_created_tasks(
    model: type[Task[Any, Any, Any]], response: httpx2.Response, sent: Sequence[bytes], stage_id: UUID
) -> list[Any]:
    """Return the created tasks in a response, each of them as `read_created` does, and none of them twice.

    If some of the tasks that were sent are missing, a warning is logged.

    Raises:
        UnexpectedAnswerError: the response is not a list, or one of its tasks has no valid id.
    """
    try:
        created = read_list(model, response).items
    except UnexpectedAnswerError as error:
        answers = _json(response)
        tasks = cast("list[object]", answers) if isinstance(answers, list) else []
        if len(tasks) != len(sent):
            raise
        new = {**_NEW_TASK, "stageId": str(stage_id)}
        pairs = zip(tasks, sent, strict=True)
        created = [_completed(model, answer, new | from_json(document), error) for answer, document in pairs]
    different = {task.id: task for task in created}
    if len(different) != len(sent):
        _log.warning("response lacks created tasks", sent=len(sent), received=len(different), stage_id=str(stage_id))
    return list(different.values())


def in_order(created: list[Any], data: Sequence[BaseModel]) -> list[Any]:
    """Return created tasks in the order of the data that was sent, whatever their order in the response was."""
    if len(created) != len(data) or all(task.data == given for task, given in zip(created, data, strict=True)):
        return created
    keys = [to_json(given) for given in data]
    by_key = defaultdict[bytes, deque[Any]](deque)
    for task in created:
        by_key[to_json(task.data)].append(task)
    if Counter(keys) != {key: len(tasks) for key, tasks in by_key.items()}:
        return created
    return [by_key[key].popleft() for key in keys]


def _json(response: httpx2.Response) -> object:
    try:
        return from_json(response.content)
    except ValueError:
        return None


def _completed(
    model: type[ModelT], answer: object, known: Mapping[str, object], error: UnexpectedAnswerError
) -> ModelT:
    """Return the entity, with what is known instead of the fields that are missing or invalid.

    Raises:
        UnexpectedAnswerError: `error`, if that is not enough: the answer has no valid id.
    """
    fields = cast("dict[str, object]", answer) if isinstance(answer, dict) else {}
    try:
        return _validated(model, {**known, **fields})
    except ValidationError as refusal:
        invalid = {str(problem["loc"][0]) for problem in refusal.errors(include_url=False, include_input=False)}
    valid = {name: value for name, value in fields.items() if name not in invalid}
    try:
        entity = _validated(model, {**known, **valid})
    except ValidationError:
        raise error from None
    _log.warning("response has invalid fields, ignored", fields=sorted(invalid), reason=str(error))
    return entity


def _validated(model: type[ModelT], fields: Mapping[str, object]) -> ModelT:
    return model.model_validate_json(to_json(fields))
