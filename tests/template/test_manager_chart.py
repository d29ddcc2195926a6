"""The manager's chart and Dockerfile."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.template.charts import DOWNLOAD_TIMEOUT, Chart, Manifest, everything

pytestmark = pytest.mark.timeout(DOWNLOAD_TIMEOUT)

MANAGER = Path(__file__).parents[2] / "reference_manager"
EVERYTHING = everything("manager")

Manifests = dict[str, Manifest]
Template = Callable[[dict[str, Any]], Manifests]


@pytest.fixture
def manifests(manager_chart: Chart) -> Template:
    """Return a function that renders manifests by kind. The migration's policy has the kind MigrationPolicy."""

    def rendered(values: dict[str, Any]) -> Manifests:
        return {
            "MigrationPolicy"
            if document["kind"] == "NetworkPolicy" and document["metadata"]["name"].endswith("-migration")
            else document["kind"]: document
            for document in manager_chart.render(values)
        }

    return rendered


def _environment(container: dict[str, Any]) -> dict[str, Any]:
    return {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in container["env"]}


def test_the_defaults_render(manifests: Template) -> None:
    """The defaults run two managers on a PostgreSQL whose URL is in a secret; no value is required."""
    rendered = manifests({})
    (container,) = rendered["Deployment"]["spec"]["template"]["spec"]["containers"]

    assert set(rendered) == {"Deployment", "Job", "Pod", "PodDisruptionBudget", "Service", "ServiceAccount"}
    assert rendered["Deployment"]["spec"]["replicas"] == 2
    assert _environment(container) == {
        "JOBNIK_MANAGER_DATABASE_URL": {"secretKeyRef": {"name": "jobnik-database", "key": "url"}},
        "JOBNIK_MANAGER_HOST": "0.0.0.0",  # noqa: S104 - the address inside the pod
        "JOBNIK_MANAGER_ADMIN_TOKEN": {
            "secretKeyRef": {"name": "jobnik-admin-token", "key": "token", "optional": True}
        },
        "JOBNIK_MANAGER_INSECURE": "false",
        "JOBNIK_MANAGER_METRICS_OPEN": "false",
        "JOBNIK_MANAGER_DATABASE_CONNECTIONS": "10",
        "JOBNIK_MANAGER_SHUTDOWN_TIMEOUT": "PT10S",
        "JOBNIK_MANAGER_TASK_STALE_AFTER": "PT1800S",
        "JOBNIK_MANAGER_BODY_LIMIT": "1MiB",
        "JOBNIK_MANAGER_LOG_LEVEL": "INFO",
    }


@pytest.mark.parametrize(("name", "values"), [("manager-defaults", {}), ("manager-everything", EVERYTHING)])
def test_all_that_is_rendered_matches_the_golden_file(manager_chart: Chart, name: str, values: dict[str, Any]) -> None:
    """The chart renders exactly the golden file."""
    manager_chart.assert_golden(name, values)


def test_every_option_renders(manifests: Template) -> None:
    """All options work together, and each value reaches its manifest."""
    rendered = manifests(EVERYTHING)
    pod = rendered["Deployment"]["spec"]["template"]["spec"]
    environment = _environment(pod["containers"][0])

    assert {"NetworkPolicy", "PodMonitor"} < set(rendered)
    assert environment["JOBNIK_MANAGER_DATABASE_URL"] == {"secretKeyRef": {"name": "postgres-app", "key": "uri"}}
    assert environment["JOBNIK_MANAGER_ADMIN_TOKEN"]["secretKeyRef"] == {
        "name": "first-token",
        "key": "admin",
        "optional": True,
    }
    assert environment["JOBNIK_MANAGER_INSECURE"] == environment["JOBNIK_MANAGER_METRICS_OPEN"] == "true"
    assert rendered["PodMonitor"]["spec"]["podMetricsEndpoints"][0]["authorization"] == {
        "credentials": {"name": "metrics-token", "key": "admin"}
    }
    assert environment["JOBNIK_MANAGER_TASK_STALE_AFTER"] == "PT1000000S"
    assert environment["TELEMETRY_TRACING_URL"] == EVERYTHING["telemetry"]["tracingUrl"]
    assert pod["terminationGracePeriodSeconds"] == 75
    assert pod["containers"][0]["image"].endswith(":stable")
    assert rendered["Service"]["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]
    assert rendered["NetworkPolicy"]["spec"]["egress"][1:] == [
        {"ports": [{"port": 6432}], "to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
        {"ports": [{"port": 9000}]},
        {"ports": [{"port": 8080}], "to": [{"podSelector": rendered["Deployment"]["spec"]["selector"]}]},
        {"ports": [{"port": 443}]},
    ]


def test_network_policies_allow_the_egress_of_every_pod(manifests: Template) -> None:
    """If egress is denied by default, a policy allows it for each pod, and for the migration before it starts."""
    rendered = manifests(EVERYTHING)
    own, migration = rendered["NetworkPolicy"]["spec"], rendered["MigrationPolicy"]["spec"]
    labels = {kind: rendered[kind]["spec"]["template"]["metadata"]["labels"] for kind in ("Deployment", "Job")}
    hook = rendered["MigrationPolicy"]["metadata"]["annotations"]
    allowed = [peer["podSelector"]["matchLabels"] for peer in own["ingress"][0]["from"] if "podSelector" in peer]

    assert _selects(own, labels["Deployment"])
    assert _selects(own, rendered["Pod"]["metadata"]["labels"])
    assert _selects(migration, labels["Job"])
    assert not _selects(migration, labels["Deployment"])
    assert migration["egress"] == own["egress"][:3]
    assert hook["helm.sh/hook"] == rendered["Job"]["metadata"]["annotations"]["helm.sh/hook"]
    assert int(hook["helm.sh/hook-weight"]) < 0
    assert any(wanted.items() <= rendered["Pod"]["metadata"]["labels"].items() for wanted in allowed)


def _selects(policy: dict[str, Any], labels: dict[str, str]) -> bool:
    return policy["podSelector"]["matchLabels"].items() <= labels.items()


def test_network_policies_allow_workers_to_reach_managers(worker_chart: Chart, manifests: Template) -> None:
    """With both policies, a worker can reach the port of the managers' pods, whatever the port of the Service."""
    policies = {"networkPolicy": {"enabled": True}}
    worker = worker_chart.render(policies | {"env": {"jobnik": {"baseUrl": "http://jobnik-manager"}}})
    manager = manifests(policies | {"service": {"port": 80}})

    (policy,) = (manifest for manifest in worker if manifest["kind"] == "NetworkPolicy")
    (container,) = manager["Deployment"]["spec"]["template"]["spec"]["containers"]
    let_out = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
    assert {port["containerPort"] for port in container["ports"]} | {80} <= let_out
    assert {"podSelector": {}} in manager["NetworkPolicy"]["spec"]["ingress"][0]["from"]


def test_the_migration_runs_before_pods_are_replaced(manifests: Template) -> None:
    """A hook runs the migration of the new version on the same database before install and upgrade."""
    job = manifests(EVERYTHING)["Job"]
    (container,) = job["spec"]["template"]["spec"]["containers"]

    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert container["args"] == ["migrate"]
    assert _environment(container) == {
        "JOBNIK_MANAGER_DATABASE_URL": {"secretKeyRef": {"name": "postgres-app", "key": "uri"}}
    }
    assert job["spec"]["activeDeadlineSeconds"] == 3600
    assert container["resources"]["requests"] == EVERYTHING["migration"]["resources"]


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
def test_a_wrong_value_is_refused(manager_chart: Chart, values: dict[str, Any], complaint: str) -> None:
    """Helm names a misspelt or invalid value and renders nothing."""
    manager_chart.assert_refuses(values, complaint)


def test_the_chart_has_the_version_of_the_manager(manager_chart: Chart) -> None:
    """The chart, the image and the package have the same version."""
    chart = manager_chart.metadata
    version = tomllib.loads((MANAGER / "pyproject.toml").read_text())["project"]["version"]

    assert (chart["version"], chart["appVersion"]) == (version, version)


def test_the_dockerfile_has_no_findings(bin_dir: Path, tool: Callable[..., str]) -> None:
    """Hadolint finds no problem."""
    tool(bin_dir / "hadolint", "Dockerfile", cwd=MANAGER)
