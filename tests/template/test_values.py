"""The values of both charts: their schema knows each that is there, and no other."""

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any

import jsonschema_rs
import pytest
import yaml
from jobnik_devtools.doctor.chart_values import merged
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

FITTING: list[tuple[str, JsonValue]] = [
    ("resources.cpu", "1500m"),
    ("resources.cpu", 0.5),
    ("resources.cpu", "0.25"),
    ("resources.memory", "1.5Gi"),
    ("tolerations", [{"key": "a", "operator": "Equal", "value": "b", "effect": "NoExecute", "tolerationSeconds": 5}]),
    ("affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution", {"nodeSelectorTerms": []}),
    ("affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution", [{"topologyKey": "zone"}]),
    ("networkPolicy.monitoringNamespace", {"kubernetes.io/metadata.name": None, "team": "watch"}),
    ("networkPolicy.extraEgress", [{"ports": [{"port": 9000, "endPort": 9010, "protocol": "UDP"}]}]),
    ("networkPolicy.extraEgress", [{"to": [{"podSelector": {}, "namespaceSelector": {"matchLabels": {"a": "b"}}}]}]),
    ("volumes", [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]),
    ("volumeMounts", [{"name": "data", "mountPath": "/data", "subPath": "a", "readOnly": True}]),
]
"""Where what may be said."""

MISFITS: list[tuple[str, JsonValue]] = [
    ("resources.cpu", "1 core"),
    ("resources.cpu", "1.5m"),
    ("resources.cpu", 0),
    ("resources.memory", "512"),
    ("resources.memory", 1073741824),
    ("resources.memory", "1.2.3Gi"),
    ("resources.memory", "512m"),
    ("migration.resources.memory", "512mb"),
    ("image.tag", "1.0 "),
    ("priorityClassName", "High Priority"),
    ("tolerations", [{"kye": "a"}]),
    ("tolerations", [{"key": "a", "effect": "NoScheduling"}]),
    ("tolerations", [{"key": "a", "value": True}]),
    ("affinity.nodeAffinty", {}),
    ("affinity.nodeAffinity.requiredDuringScheduling", {}),
    ("affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution", [{"topologykey": "zone"}]),
    ("networkPolicy.monitoringNamespace", {"kubernetes.io/metadata.name": None}),
    ("networkPolicy.extraEgress", [{}]),
    ("networkPolicy.extraEgress", [{"ports": [{"ports": 9000}]}]),
    ("networkPolicy.extraEgress", [{"ports": [{"port": 9000, "protocol": "udp"}]}]),
    ("networkPolicy.extraEgress", [{"to": [{"namespace": "a"}]}]),
    ("networkPolicy.extraEgress", [{"to": [{"ipBlock": {"cdir": "10.0.0.0/8"}}]}]),
    ("networkPolicy.clients", [{"namespaceSelector": {"kubernetes.io/metadata.name": "jobs"}}]),
    ("ca.secret", "My CA"),
    ("secrets", ["storage", ""]),
    ("stageTypes", ["a", "a"]),
    ("volumes", [{"name": "data", "persistentVolumClaim": {"claimName": "data"}}]),
    ("volumes", [{"name": "data", "hostPath": {"path": "/data"}}]),
    ("volumes", [{"name": "data"}]),
    ("volumes", [{"name": "tmp", "emptyDir": {}}]),
    ("volumeMounts", [{"name": "data", "mountPath": "data"}]),
    ("volumeMounts", [{"name": "data", "path": "/data"}]),
]
"""Where what may not be said: Kubernetes does not know it, or it means something else than it seems to."""

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


def _known(schema: dict[str, Any], part: dict[str, Any], place: Place = ()) -> Iterator[Place]:
    """Yield where each name stands that this part of the schema knows."""
    definition = schema["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
    for name, inner in definition.get("properties", {}).items():
        yield (*place, name)
        if name not in FREE:
            yield from _known(schema, inner, (*place, name))


def _nested(place: Sequence[str], value: JsonValue) -> JsonValue:
    """Return values that say this at that place, and nothing else."""
    for name in reversed(place):
        value = {name: value}
    return value


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


def test_no_value_may_be_null(schema: dict[str, Any], defaults: Values) -> None:
    """Helm takes what is null for not there, and the schema misses whatever is not there."""
    validator = jsonschema_rs.validator_for(schema)

    for place in _places(defaults):
        nulled = merged(defaults, _nested(place, None))
        assert any(
            f'"{place[-1]}" is a required property' in error.message for error in validator.iter_errors(nulled)
        ), place


def test_what_kubernetes_defines_is_held_as_well(schema: dict[str, Any], defaults: Values) -> None:
    """Names and quantities within values are those of Kubernetes, as far as the chart has those values."""
    validator = jsonschema_rs.validator_for(schema)

    for place, value in FITTING:
        first, *_ = path = place.split(".")
        assert first not in defaults or validator.is_valid(merged(defaults, _nested(path, value))), (place, value)
    for place, value in MISFITS:
        first, *_ = path = place.split(".")
        errors = validator.iter_errors(merged(defaults, _nested(path, value)))
        assert first not in defaults or any(error.instance_path[0] == first for error in errors), (place, value)


def test_helm_reads_the_schema_in_the_same_way(chart: Chart) -> None:
    """What the schema refuses, helm refuses."""
    chart.assert_refuses({"podDisruptionBudget": {"enabledx": True}}, "'enabledx' not allowed")
    chart.assert_refuses({"podDisruptionBudget": {"enabled": None}}, "missing property 'enabled'")


def test_the_schema_knows_no_more_than_there_is(schema: dict[str, Any], defaults: Values) -> None:
    """Each name in the schema has its default in values.yaml, where it is explained."""
    assert set(_known(schema, schema)) - {("global",)} == set(_places(defaults))


def test_everything_is_everything(chart: Chart, defaults: Values) -> None:
    """The values that switch on all there is leave nothing out, but there are no replicas beside a scaler."""
    values = chart.everything

    missing = set(_places(defaults)) - set(_places(values)) - OF_A_CLUSTER
    assert missing == ({("replicas",)} if "autoscaling" in values else set())
