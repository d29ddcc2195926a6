"""The manager's own chart, and its Dockerfile."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.template.charts import Chart, Manifest, assert_restricted

MANAGER = Path(__file__).parents[2] / "reference_manager"
CHART = MANAGER / "helm"
EVERYTHING: dict[str, Any] = {
    "image": {"tag": "1.2.3", "pullPolicy": "Always", "pullSecrets": ["registry"]},
    "database": {"secret": "postgres-app", "key": "uri", "connections": 40},
    "replicas": 3,
    "shutdownSeconds": 60,
    "taskStaleSeconds": 1_000_000,
    "bodyLimit": "4MiB",
    "logLevel": "DEBUG",
    "telemetry": {"tracingUrl": "https://collector.example.com/v1/traces"},
    "service": {"port": 80},
    "resources": {"cpu": 1, "memory": "1Gi"},
    "podDisruptionBudget": {"enabled": True, "maxUnavailable": "34%"},
    "networkPolicy": {
        "enabled": True,
        "clients": [{"namespaceSelector": {"matchLabels": {"jobnik": "client"}}}],
        "database": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
        "databasePort": 6432,
    },
    "podMonitor": {"enabled": True, "interval": "15s", "labels": {"release": "prometheus"}},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "managers", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
}

Manifests = dict[str, Manifest]
Template = Callable[[dict[str, Any]], Manifests]


@pytest.fixture
def chart(helm: Path, own: Path, tool: Callable[..., str], tmp_path: Path) -> Chart:
    """Give the chart."""
    return Chart(CHART, helm, own / "kubernetes-validate", tool, tmp_path)


@pytest.fixture
def manifests(chart: Chart) -> Template:
    """Give a function from values to manifests by kind."""
    return lambda values: {document["kind"]: document for document in chart.render(values)}


def _environment(container: dict[str, Any]) -> dict[str, Any]:
    return {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in container["env"]}


def test_the_defaults_render(manifests: Template) -> None:
    """Two managers on a PostgreSQL that a secret names; nothing else has to be set."""
    rendered = manifests({})
    (container,) = rendered["Deployment"]["spec"]["template"]["spec"]["containers"]

    assert set(rendered) == {"Deployment", "Job", "Pod", "PodDisruptionBudget", "Service", "ServiceAccount"}
    assert rendered["Deployment"]["spec"]["replicas"] == 2
    assert _environment(container) == {
        "JOBNIK_MANAGER_DATABASE_URL": {"secretKeyRef": {"name": "jobnik-database", "key": "url"}},
        "JOBNIK_MANAGER_HOST": "0.0.0.0",  # noqa: S104 the address within its pod
        "JOBNIK_MANAGER_DATABASE_CONNECTIONS": "10",
        "JOBNIK_MANAGER_SHUTDOWN_PATIENCE": "PT10S",
        "JOBNIK_MANAGER_TASK_STALE_AFTER": "PT1800S",
        "JOBNIK_MANAGER_BODY_LIMIT": "1MiB",
        "JOBNIK_MANAGER_LOG_LEVEL": "INFO",
    }


def test_every_option_renders(manifests: Template) -> None:
    """All options work together, and each reaches its place."""
    rendered = manifests(EVERYTHING)
    pod = rendered["Deployment"]["spec"]["template"]["spec"]
    environment = _environment(pod["containers"][0])

    assert {"NetworkPolicy", "PodMonitor"} < set(rendered)
    assert environment["JOBNIK_MANAGER_DATABASE_URL"] == {"secretKeyRef": {"name": "postgres-app", "key": "uri"}}
    assert environment["JOBNIK_MANAGER_TASK_STALE_AFTER"] == "PT1000000S"
    assert environment["TELEMETRY_TRACING_URL"] == EVERYTHING["telemetry"]["tracingUrl"]
    assert pod["terminationGracePeriodSeconds"] == 75
    assert pod["containers"][0]["image"].endswith(":1.2.3")
    assert rendered["Service"]["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]
    assert rendered["NetworkPolicy"]["spec"]["egress"][1:] == [
        {"ports": [{"port": 6432}], "to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
        {"ports": [{"port": 443}]},
    ]


def test_the_database_is_migrated_before_any_pod_changes(manifests: Template) -> None:
    """A hook runs the new version's migration first, on the same database."""
    job = manifests(EVERYTHING)["Job"]
    (container,) = job["spec"]["template"]["spec"]["containers"]

    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert container["args"] == ["migrate"]
    assert _environment(container) == {
        "JOBNIK_MANAGER_DATABASE_URL": {"secretKeyRef": {"name": "postgres-app", "key": "uri"}}
    }


@pytest.mark.parametrize("kind", ["Deployment", "Job", "Pod"])
def test_every_pod_is_restricted(manifests: Template, kind: str) -> None:
    """Each pod passes the "restricted" security standard, has a read-only root, no token and no fixed user."""
    assert_restricted(manifests(EVERYTHING)[kind])


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"replica": 2}, "'replica' not allowed"),
        ({"database": {"url": "postgresql://here"}}, "'url' not allowed"),
        ({"database": {"connections": 1}}, "/database/connections"),
        ({"bodyLimit": "1MB"}, "/bodyLimit"),
        ({"networkPolicy": {"databasePort": 0}}, "/networkPolicy/databasePort"),
    ],
)
def test_a_wrong_value_is_refused(chart: Chart, values: dict[str, Any], complaint: str) -> None:
    """A misspelt name or a value of the wrong kind is named, and nothing is rendered."""
    chart.assert_refuses(values, complaint)


def test_the_chart_is_of_the_managers_version() -> None:
    """Chart, image and package share one version."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = tomllib.loads((MANAGER / "pyproject.toml").read_text())["project"]["version"]

    assert (chart["version"], chart["appVersion"]) == (version, version)


def test_the_dockerfile_has_no_findings(own: Path, tool: Callable[..., str]) -> None:
    """Hadolint finds nothing to say."""
    tool(own / "hadolint", "Dockerfile", cwd=MANAGER)
