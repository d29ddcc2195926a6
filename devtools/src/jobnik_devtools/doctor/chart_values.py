"""Prints the errors in a chart's values as JSON: a list of pairs of a file and an error.

`python chart_values.py SCHEMA VALUES [MORE...]` merges each file after the first into the first, as helm does, and
validates the result. The script runs in a separate environment, since jobnik-devtools does not depend on the packages
that the script imports.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import yaml
from jsonschema_rs import ValidationError, validator_for

Values = dict[str, Any]


def errors(schema: Path, base: Path, others: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Yield the errors of each file; an error in the first file is not repeated for the others."""
    validator = validator_for(json.loads(schema.read_text("utf-8")))
    yielded = set[str]()
    values: Values = {}
    for file in (base, *others):
        try:
            read: Any = yaml.safe_load(file.read_text("utf-8"))
        except yaml.MarkedYAMLError as error:
            line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
            yield file.name, f"{line}{error.problem}"
            continue
        result = merged(values, {} if read is None else read)
        if file is base and _is_mapping(result):
            values = result
        for error in sorted(map(_described, validator.iter_errors(result))):
            if error not in yielded:
                yield file.name, error
            yielded.add(error)


def merged(values: Any, others: Any) -> Any:  # noqa: ANN401 any JSON
    """Merge values into others as helm does: key by key, and null removes a key."""
    if not (_is_mapping(values) and _is_mapping(others)):
        return others
    result: Values = {**values}
    for key, value in others.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def _is_mapping(value: Any) -> TypeGuard[Values]:  # noqa: ANN401 any JSON
    return isinstance(value, dict)


def _described(error: ValidationError) -> str:
    location = ".".join(map(str, error.instance_path))
    return f"{location}: {error.message}" if location else error.message


if __name__ == "__main__":
    first, *rest = map(Path, sys.argv[2:])
    json.dump(list(errors(Path(sys.argv[1]), first, rest)), sys.stdout)
