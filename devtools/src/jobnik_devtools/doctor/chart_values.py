"""Prints what in a chart's values does not fit its schema, as JSON: a list of pairs, the file and the fault.

`python chart_values.py SCHEMA VALUES [MORE...]`: each file after the first is laid over the first, as helm does it.
This runs in an environment of its own, with packages that the SDK does not depend on.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import yaml
from jsonschema_rs import ValidationError, validator_for

Values = dict[str, Any]


def faults(schema: Path, base: Path, others: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Yield each file's faults; what is wrong in the first file is not told of the others again."""
    validator = validator_for(json.loads(schema.read_text("utf-8")))
    told = set[str]()
    values: Values = {}
    for file in (base, *others):
        try:
            read: Any = yaml.safe_load(file.read_text("utf-8"))
        except yaml.MarkedYAMLError as error:
            line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
            yield file.name, f"{line}{error.problem}"
            continue
        laid = over(values, {} if read is None else read)
        if file is base and _is_mapping(laid):
            values = laid
        for fault in sorted(map(_described, validator.iter_errors(laid))):
            if fault not in told:
                yield file.name, fault
            told.add(fault)


def over(values: Any, others: Any) -> Any:  # noqa: ANN401 JSON has any shape
    """Lay values over others as helm does: key by key, and null takes a key away."""
    if not (_is_mapping(values) and _is_mapping(others)):
        return others
    laid: Values = {**values}
    for key, value in others.items():
        if value is None:
            laid.pop(key, None)
        else:
            laid[key] = over(laid.get(key), value)
    return laid


def _is_mapping(value: Any) -> TypeGuard[Values]:  # noqa: ANN401 as above
    return isinstance(value, dict)


def _described(error: ValidationError) -> str:
    place = ".".join(map(str, error.instance_path))
    return f"{place}: {error.message}" if place else error.message


if __name__ == "__main__":
    first, *rest = map(Path, sys.argv[2:])
    json.dump(list(faults(Path(sys.argv[1]), first, rest)), sys.stdout)
