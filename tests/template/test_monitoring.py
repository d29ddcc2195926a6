"""What the worker's chart watches by: alerts, a dashboard, a scaler, all of which ask for what is really told."""

import ast
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import httpx2
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.parser import text_string_to_metric_families
from pydantic import JsonValue

from tests.template.charts import FETCHING, Chart, Manifest, everything
from tests.template.promql import labels_left, selections
from tools.snapshot import ROOT

pytestmark = pytest.mark.timeout(FETCHING)

STAGE_TYPE = "thumbnails"

TARGET = {"namespace": "jobs", "pod": "thumbnail-worker-7c9d8b6f5-x2x4z"}
"""The labels that Prometheus adds to what a pod tells."""

VARIABLES = {"namespace": "jobs", "pod": TARGET["pod"], "stage_type": STAGE_TYPE, "manager_namespace": "jobs"}
"""What is chosen in the dashboard."""

Samples = Mapping[str, Sequence[Mapping[str, str]]]
"""The labels of what is told, by the metric's name."""


@pytest.fixture(scope="module")
def manifests(worker_chart: Chart) -> Mapping[str, Manifest]:
    """Give all that there is, by kind; the dashboard's ConfigMap comes last of its kind."""
    values = everything("worker")
    values["alerts"]["managerNamespace"] = "jobs"
    return {manifest["kind"]: manifest for manifest in worker_chart.render(values)}


@pytest.fixture(scope="module")
def rules(manifests: Mapping[str, Manifest]) -> Sequence[dict[str, Any]]:
    """Give the alerts."""
    (group,) = manifests["PrometheusRule"]["spec"]["groups"]
    return group["rules"]


@pytest.fixture(scope="module")
def dashboard(manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    """Give the dashboard."""
    return json.loads(manifests["ConfigMap"]["data"]["jobs_thumbnail-worker.json"])


@pytest.fixture(scope="module")
def told(tool: Callable[..., str], jobnik_manager: str, tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Give what a worker and its manager tell Prometheus once they have worked."""
    file = tmp_path_factory.mktemp("told") / "metrics"
    tool(sys.executable, "-m", "tests.template.watched_worker", jobnik_manager, STAGE_TYPE, file, cwd=ROOT)
    samples: dict[str, list[Mapping[str, str]]] = {}
    for text in (file.read_text(), httpx2.get(f"{jobnik_manager}/metrics").text):
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append(sample.labels | TARGET)
    return samples


def _assert_told(expression: str, told: Samples) -> None:
    for selection in selections(expression):
        # prometheus_client reads these from /proc, which macOS has not.
        if not (selection.name.startswith("process_") and sys.platform == "darwin"):
            assert any(map(selection.takes, told[selection.name])), f"{selection} in {expression}"


def test_every_alert_asks_for_what_is_told(rules: Sequence[dict[str, Any]], told: Samples) -> None:
    """Each metric of an alert is there in a running worker or manager, with the labels and values that it asks for."""
    for rule in rules:
        _assert_told(rule["expr"], told)


def test_every_alert_says_what_it_is_about(rules: Sequence[dict[str, Any]]) -> None:
    """What its summary and its receivers read from its labels is there."""
    for rule in rules:
        labels = labels_left(rule["expr"])
        assert labels is not None
        assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= labels
        assert {"severity", "namespace"} <= labels | rule["labels"].keys()


def test_every_alert_has_its_heading_in_the_runbook(rules: Sequence[dict[str, Any]], worker_chart: Chart) -> None:
    """The runbook tells what to do about each alert and about nothing else, and each alert leads there."""
    headings = re.findall(r"^## (\w+)$", (worker_chart.folder / "RUNBOOK.md").read_text(), re.MULTILINE)

    assert [rule["alert"] for rule in rules] == headings
    assert [rule["annotations"]["runbook_url"] for rule in rules] == [
        f"https://example.com/RUNBOOK.md#{heading.lower()}" for heading in headings
    ]


def test_runbook_quotes_events_that_the_sdk_logs(worker_chart: Chart) -> None:
    """Every log event in the runbook, which has it in lower case and double quotes, is one that the SDK logs."""
    quoted = set(re.findall(r'"([a-z][^"]*)"', (worker_chart.folder / "RUNBOOK.md").read_text()))

    assert "task failed" in quoted
    assert quoted - set(_logged_events()) == set()


def _logged_events() -> Iterator[str]:
    """Yield the event of each log call in the SDK: its first argument, as a literal."""
    for path in (ROOT / "sdk" / "src" / "jobnik_sdk").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="debug" | "info" | "warning" | "error" | "exception"),
                    args=[ast.Constant(value=str(event)), *_],
                ):
                    yield event
                case _:
                    pass


def test_runbook_names_panels_that_the_dashboard_has(worker_chart: Chart, dashboard: dict[str, Any]) -> None:
    """Every panel in the runbook, which has its title in bold, is in the dashboard."""
    named = set(re.findall(r"panel \*\*(.+?)\*\*", (worker_chart.folder / "RUNBOOK.md").read_text()))

    assert named
    assert named <= {panel["title"] for panel in dashboard["panels"]}


def test_alerts_are_about_the_pods_of_their_own_release(worker_chart: Chart) -> None:
    """However long its name, a release's alerts look at its pods, as Kubernetes names them, and at no one else's."""
    values = {"alerts": {"enabled": True}}
    for release in ("thumbnail-worker", "thumbnails-of-a-department-with-quite-a-name"):
        rendered = {manifest["kind"]: manifest for manifest in worker_chart.render(values, release=release)}
        name = rendered["Deployment"]["metadata"]["name"]
        for selection in selections(rendered["PrometheusRule"]["spec"]["groups"][0]["rules"][0]["expr"]):
            # The hash of a ReplicaSet has up to ten characters, and 58 are left before those of the pod itself.
            assert selection.wanted["pod"].fullmatch(f"{f'{name}-7c9d8b6f5a-'[:58]}x2x4z")
            assert not selection.wanted["pod"].fullmatch(f"{name}-large-7c9d8b6f5a-x2x4z")


def test_every_panel_asks_for_what_is_told(dashboard: dict[str, Any], told: Samples) -> None:
    """Each metric of a panel or variable is there in a running worker or manager, with its labels and their values."""
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expression = _chosen(target["expr"])
            _assert_told(expression, told)
            labels = labels_left(expression)
            assert labels is None or set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels
    for variable in dashboard["templating"]["list"][1:]:
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
        assert found is not None
        _assert_told(_chosen(found[1]), told)
        assert all(found[2] in labels for labels in told[selections(_chosen(found[1]))[0].name])


def _chosen(expression: str) -> str:
    """Put in what is chosen, as Grafana does."""
    chosen = expression.replace("$__rate_interval", "2m")
    for name, value in VARIABLES.items():
        chosen = chosen.replace(f'"${name}"', json.dumps(value))
    assert "$" not in chosen
    return chosen


def _as_grafana_reads(dashboard: dict[str, Any]) -> JsonValue:
    register_default_plugins()
    return json.loads(json.dumps(Dashboard.from_json(dashboard), cls=JSONEncoder))


def test_the_dashboard_is_one_to_grafana(dashboard: dict[str, Any]) -> None:
    """Grafana's own types know each field of it, and none that is misspelt."""
    misspelt = {**dashboard, "panles": ""}

    assert list(_differences(dashboard, _as_grafana_reads(dashboard))) == []
    assert list(_differences(misspelt, _as_grafana_reads(misspelt))) == ["/panles"]


def _differences(given: JsonValue, read: JsonValue, place: str = "") -> Iterator[str]:
    """Yield where what was given is missing, or something else, in what was read; defaults may come along."""
    if isinstance(given, dict) and isinstance(read, dict):
        for key, value in given.items():
            yield from _differences(value, read.get(key), f"{place}/{key}")
    elif isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        for index, (one, other) in enumerate(zip(given, read, strict=True)):
            yield from _differences(one, other, f"{place}/{index}")
    elif given != read:
        yield place


def test_every_panel_is_complete(dashboard: dict[str, Any]) -> None:
    """Each says what it shows, in which unit, of which data source, beside the others and not on top of them."""
    places = set[tuple[int, int]]()
    for number, panel in enumerate(dashboard["panels"], start=1):
        assert panel["id"] == number
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert [target["refId"] for target in panel["targets"]] == list("ABC"[: len(panel["targets"])])
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            assert target["legendFormat"]
        place = panel["gridPos"]
        covered = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not covered & places
        assert max(x for x, _ in covered) < 24
        places |= covered


def test_a_dashboard_is_of_its_release(dashboard: dict[str, Any], worker_chart: Chart) -> None:
    """It has an id, a title and a file of its own beside those of other releases, and begins with its own worker."""
    variables = dashboard["templating"]["list"]
    chosen = {variable["name"]: variable["current"]["value"] for variable in variables if "current" in variable}
    values = {"dashboard": {"enabled": True}}
    other = {manifest["kind"]: manifest for manifest in worker_chart.render(values, release="other")}

    ((file, text),) = other["ConfigMap"]["data"].items()
    # Grafana's sidecar puts the files of all releases into one folder.
    assert file == "jobs_other-thumbnail-worker.json"
    assert dashboard["title"] == "thumbnail-worker (jobs)"
    assert json.loads(text)["title"] == "other-thumbnail-worker (jobs)"
    assert json.loads(text)["uid"] != dashboard["uid"]
    assert (chosen["namespace"], chosen["stage_type"]) == ("jobs", ["thumbnails", "contact sheets"])


def test_the_scaler_is_answered(worker_chart: Chart, jobnik_manager: str) -> None:
    """A manager answers each address that KEDA asks, with a number where KEDA looks for it."""
    values = {
        "autoscaling": {"by": "queue"},
        "stageTypes": [STAGE_TYPE, "contact sheets"],
        "env": {"jobnik": {"baseUrl": f"{jobnik_manager}/"}},
    }
    (scaled,) = (manifest for manifest in worker_chart.render(values) if manifest["kind"] == "ScaledObject")

    for trigger in scaled["spec"]["triggers"]:
        answer = httpx2.get(trigger["metadata"]["url"])
        assert answer.status_code == 200
        assert answer.json()[trigger["metadata"]["valueLocation"]] == 0
