"""A client that knows only the OpenAPI document. It learns the values that the document's links name."""

import re
from collections import defaultdict
from collections.abc import Iterator
from random import Random
from typing import Any, cast

from schemathesis import GenerationMode, Response
from schemathesis.core.parameters import ParameterLocation

from tests.contract.document import DOCUMENT, Case, operation_id, sendable

LINKS: dict[tuple[str, str], list[dict[str, Any]]] = {
    (operation["operationId"], status): list(answer["links"].values())
    for operations in DOCUMENT["paths"].values()
    for operation in operations.values()
    for status, answer in operation["responses"].items()
    if "links" in answer
}
"""By operation id and status: the links from such a response to parameters and fields of other operations."""

URL_SAFE = re.compile(r"[A-Za-z0-9_-]+")
"""Values that look the same in every location; the library itself checks the encoding of paths."""


class Client:
    """Carries out a plan, replacing invented ids with existing ones.

    Args:
        url: The manager's address.
        random: Chooses among the known values; its choices do not affect the generated data.
    """

    def __init__(self, url: str, random: Random) -> None:
        self._url = url
        self._random = random
        self._known = defaultdict[str, list[Any]](list)
        self.done = set[str]()
        """The operations that succeeded."""
        self.log = list[str]()
        """The operations called, each with its response status."""

    def call(self, case: Case, *, randomly: bool) -> None:
        """Call an operation and check the response. An operation that needs an id is skipped if none is known.

        Args:
            case: The operation and its input.
            randomly: Whether to replace an invented value with a random one of the latest known values, or not at all;
                otherwise the latest known value replaces it.
        """
        if not all(_normalized(name) in self._known for name in case.path_parameters):
            return
        if not case.meta.is_negative_at(ParameterLocation.PATH):
            self._fill(case.path_parameters, randomly)
        if case.meta.generation.mode is GenerationMode.POSITIVE:
            self._fill(case.query, randomly)
            self._fill(case.body, randomly)
        response: Response = sendable(case).call(base_url=self._url)
        self.log.append(f"{operation_id(case.operation)} {response.status_code}")
        case.validate_response(response, transport_kwargs={"base_url": self._url})
        if response.status_code < 300:
            self.done.add(operation_id(case.operation))
            self._learn(case, response)

    def _fill(self, value: object, randomly: bool) -> None:  # noqa: FBT001 - the caller's own
        for one in _objects(value):
            for name in one:
                if not (known := self._known.get(_normalized(name))):
                    continue
                if not randomly:
                    one[name] = known[-1]
                elif self._random.random() < 0.9:
                    one[name] = self._random.choice(known[-3:])

    def _learn(self, case: Case, response: Response) -> None:
        """Store the values that the document's links name."""
        for link in LINKS.get((operation_id(case.operation), str(response.status_code)), ()):
            for target in _objects(link):
                for name, expression in target.items():
                    where, _, path = str(expression).partition("#/")
                    if where in {"$request.body", "$response.body"}:
                        found = _at(case.body if where == "$request.body" else response.json(), path.split("/"))
                        self._known[_normalized(name)] += [value for value in found if URL_SAFE.fullmatch(str(value))]


def _objects(value: object) -> Iterator[dict[str, Any]]:
    """Yield every object in a JSON value."""
    if isinstance(value, dict):
        yield cast("dict[str, Any]", value)
        value = list(cast("dict[str, Any]", value).values())
    if isinstance(value, list):
        for member in cast("list[object]", value):
            yield from _objects(member)


def _at(value: Any, path: list[str]) -> list[Any]:  # noqa: ANN401 - any JSON value
    """Return the value at a path in a list, which is empty for a short list or a minimal response."""
    for part in path:
        try:
            value = value[int(part) if isinstance(value, list) else part]
        except (IndexError, KeyError):
            return []
    return [value]


def _normalized(name: str) -> str:
    """Return a name in a common spelling: jobId in a path or body is job_id in a query."""
    return name.replace("_", "").lower()
