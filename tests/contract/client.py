"""A client that knows no more than the document: it takes from each answer what the document's links name."""

import re
from collections import defaultdict
from collections.abc import Iterator
from random import Random
from typing import Any, cast

from schemathesis import GenerationMode, Response
from schemathesis.core.parameters import ParameterLocation

from tests.contract.document import DOCUMENT, Case, operation_id, sensible

LINKS: dict[tuple[str, str], list[dict[str, Any]]] = {
    (operation["operationId"], status): list(answer["links"].values())
    for operations in DOCUMENT["paths"].values()
    for operation in operations.values()
    for status, answer in operation["responses"].items()
    if "links" in answer
}
"""By an operation's id and a status of it: what such an answer gives to which parameters and fields of others."""

WORD = re.compile(r"[A-Za-z0-9_-]+")
"""What every place spells alike: of a path, the library judges the spelling."""


class Client:
    """Carries out a plan, with ids that exist in the place of those that were made up.

    Args:
        url: The manager's address.
        random: Chooses among what is known; its choices shape nothing that is drawn.
    """

    def __init__(self, url: str, random: Random) -> None:
        self._url = url
        self._random = random
        self._known = defaultdict[str, list[Any]](list)
        self.done = set[str]()
        """The operations that were answered with success."""
        self.log = list[str]()
        """What was called, and the status that came back."""

    def call(self, case: Case, *, straying: bool) -> None:
        """Call an operation, unless it needs an id and none is known, and check the answer.

        Args:
            case: What to call.
            straying: Whether any of the things that are known lately may take the place of what was made up, or none;
                otherwise the latest does.
        """
        if not all(_plain(name) in self._known for name in case.path_parameters):
            return
        if not case.meta.is_negative_at(ParameterLocation.PATH):
            self._fill(case.path_parameters, straying)
        if case.meta.generation.mode is GenerationMode.POSITIVE:
            self._fill(case.query, straying)
            self._fill(case.body, straying)
        response: Response = sensible(case).call(base_url=self._url)
        self.log.append(f"{operation_id(case.operation)} {response.status_code}")
        case.validate_response(response, transport_kwargs={"base_url": self._url})
        if response.status_code < 300:
            self.done.add(operation_id(case.operation))
            self._learn(case, response)

    def _fill(self, value: object, straying: bool) -> None:  # noqa: FBT001 - the caller's own
        for one in _objects(value):
            for name in one:
                if not (known := self._known.get(_plain(name))):
                    continue
                if not straying:
                    one[name] = known[-1]
                elif self._random.random() < 0.9:
                    one[name] = self._random.choice(known[-3:])

    def _learn(self, case: Case, response: Response) -> None:
        """Keep what others may ask for, where the document's links say that it is."""
        for link in LINKS.get((operation_id(case.operation), str(response.status_code)), ()):
            for target in _objects(link):
                for name, expression in target.items():
                    where, _, path = str(expression).partition("#/")
                    if where in {"$request.body", "$response.body"}:
                        found = _at(case.body if where == "$request.body" else response.json(), path.split("/"))
                        self._known[_plain(name)] += [value for value in found if WORD.fullmatch(str(value))]


def _objects(value: object) -> Iterator[dict[str, Any]]:
    """Every object in a JSON value."""
    if isinstance(value, dict):
        yield cast("dict[str, Any]", value)
        value = list(cast("dict[str, Any]", value).values())
    if isinstance(value, list):
        for member in cast("list[object]", value):
            yield from _objects(member)


def _at(value: Any, path: list[str]) -> list[Any]:  # noqa: ANN401 - any JSON value
    """What stands there; nothing where a list on the way is shorter, or the answer is a minimal one."""
    for part in path:
        try:
            value = value[int(part) if isinstance(value, list) else part]
        except (IndexError, KeyError):
            return []
    return [value]


def _plain(name: str) -> str:
    """A name without its spelling: jobId in a path or body is job_id in a query."""
    return name.replace("_", "").lower()
