"""The values of both charts: their schema knows each that is there, and no other."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import yaml
from pydantic import JsonValue

from tests.template.charts import FETCHING, Chart, Values

pytestmark = pytest.mark.timeout(FETCHING)

FREE = {
    "affinity": "Kubernetes' own",
    "extra": "settings of the user's own",
    "kedaNamespace": "labels of a namespace",
    "labels": "labels of the user's own",
    "monitoringNamespace": "labels of a namespace",
    "nodeSelector": "labels of nodes",
}
"""Values in which any name goes, and what those names are."""

OF_A_CLUSTER = {("image", "repository"), ("networkPolicy", "monitoringNamespace"), ("networkPolicy", "kedaNamespace")}
"""What cannot be switched on or off."""

Place = tuple[str, ...]


@pytest.fixture
def schema(chart: Chart) -> dict[str, Any]:
    """Give the schema of its values."""
    return json.loads((chart.folder / "values.schema.json").read_text())


@pytest.fixture
def defaults(chart: Chart) -> Values:
    """Give its values."""
    return yaml.safe_load((chart.folder / "values.yaml").read_text())


def _places(values: JsonValue, place: Place = ()) -> Iterator[Place]:
    """Yield where each name stands that may not be another."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield (*place, name)
            if name not in FREE:
                yield from _places(value, (*place, name))


def _known(schema: dict[str, Any], place: Place = ()) -> Iterator[Place]:
    """Yield where each name stands that the schema knows."""
    for name, inner in schema.get("properties", {}).items():
        yield (*place, name)
        yield from _known(inner, (*place, name))


def test_a_misspelt_value_is_refused_at_every_level(schema: dict[str, Any], defaults: Values) -> None:
    """Whichever name is misspelt, the schema names it."""
    validator = jsonschema_rs.validator_for(schema)
    validator.validate(defaults)

    for *path, name in _places(defaults):
        wrong = copy.deepcopy(defaults)
        inner = wrong
        for part in path:
            inner = inner[part]
        inner[f"{name}x"] = inner.pop(name)
        assert any(f"{name}x" in error.message for error in validator.iter_errors(wrong)), (*path, name)


def test_helm_reads_the_schema_in_the_same_way(chart: Chart) -> None:
    """What the schema refuses, helm refuses."""
    chart.assert_refuses({"podDisruptionBudget": {"enabledx": True}}, "'enabledx' not allowed")


def test_the_schema_knows_no_more_than_there_is(schema: dict[str, Any], defaults: Values) -> None:
    """Each name in the schema has its default in values.yaml, where it is explained."""
    assert set(_known(schema)) - {("global",)} == set(_places(defaults))


def test_everything_is_everything(chart: Chart, defaults: Values) -> None:
    """The values that switch on all there is leave nothing out, but there are no replicas beside a scaler."""
    values = chart.everything

    missing = set(_places(defaults)) - set(_places(values)) - OF_A_CLUSTER
    assert missing == ({("replicas",)} if "autoscaling" in values else set())
