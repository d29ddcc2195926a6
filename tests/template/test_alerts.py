"""When alerts fire and when they do not, as Prometheus itself sees it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.template.charts import FETCHING, Chart, everything
from tools.promtool import find_promtool

pytestmark = pytest.mark.timeout(FETCHING)

POD = 'namespace="jobs",pod="thumbnail-worker-7c9d8b6f5-x2x4z"'
OF_TYPE = f'{POD},stage_type="thumbnails"'

COMPLETED = f'jobnik_sdk_worker_task_duration_seconds_count{{{OF_TYPE},status="completed"}}'
FAILED = f'jobnik_sdk_worker_task_duration_seconds_count{{{OF_TYPE},status="failed"}}'
BREAKER = f'jobnik_sdk_worker_circuit_breaker_state{{{OF_TYPE},breaker="handler"}}'
OF_ANOTHER_RELEASE = BREAKER.replace("worker-7c9d8b6f5", "worker-large-7c9d8b6f5")
AGE = 'jobnik_oldest_waiting_age_seconds{namespace="jobnik",stage_type="thumbnails"}'
AT_ANOTHER_MANAGER = AGE.replace('"jobnik"', '"staging"')
SUCCESS = f"jobnik_sdk_worker_last_success_timestamp_seconds{{{OF_TYPE}}}"
TAKEN = f'jobnik_sdk_consumer_task_updates_total{{{OF_TYPE},status="COMPLETED",result="success"}}'
REFUSED = TAKEN.replace("success", "failure")
UNANSWERED = f'jobnik_sdk_http_request_duration_seconds_count{{{POD},status_code="none"}}'
UNAVAILABLE = UNANSWERED.replace("none", "503")

SEVERE = {"severity": "critical", "namespace": "jobs"}
MILD = {"severity": "warning", "namespace": "jobs", "stage_type": "thumbnails"}


class Course(NamedTuple):
    """What is told over time, every half minute and in Prometheus' own notation, and when that is alarming."""

    what: str
    told: Mapping[str, str]
    quiet: Sequence[int] = ()
    """Minutes at which the alert does not fire."""
    loud: Sequence[int] = ()
    """Minutes at which it does."""


NOTHING = Course("there are no pods, and no manager", {}, quiet=[30])
HOURLY = " ".join(f"{hour * 3600}x119" for hour in range(5))

ALERTS: dict[str, tuple[dict[str, str], list[Course]]] = {
    "JobnikWorkerTasksFail": (
        MILD,
        [
            NOTHING,
            Course("half of the attempts fail", {COMPLETED: "0+1x80", FAILED: "0+1x80"}, quiet=[9], loud=[25]),
            Course("one in ten fails", {COMPLETED: "0+9x80", FAILED: "0+1x80"}, quiet=[25]),
            Course("a single attempt was made, and failed", {FAILED: "0x10 1x70"}, quiet=[6, 10, 14, 15, 16, 20]),
        ],
    ),
    "JobnikWorkerBreakerOpen": (
        MILD | {"pod": "thumbnail-worker-7c9d8b6f5-x2x4z", "breaker": "handler"},
        [
            NOTHING,
            Course("it opens again after each try", {BREAKER: "2 1 " * 40}, quiet=[4], loud=[10]),
            Course("it is half open, and nothing is there to try", {BREAKER: "2 1x80"}, quiet=[10]),
            Course("it is open in a release with a longer name", {OF_ANOTHER_RELEASE: "2x80"}, quiet=[10]),
            Course("its pod is gone", {BREAKER: "2x5 stale"}, quiet=[10]),
        ],
    ),
    "JobnikWorkerIdleBesideBacklog": (
        SEVERE | {"stage_type": "thumbnails"},
        [
            NOTHING,
            Course("there are no pods for a task that waits", {AGE: "0+30x400"}, quiet=[90], loud=[100]),
            Course(
                "the queue is long, and a task an hour completed", {AGE: "9000x500", SUCCESS: HOURLY}, quiet=[100, 230]
            ),
            Course("pods hang", {AGE: "9000x400", SUCCESS: "60x400"}, quiet=[90], loud=[100]),
            Course("pods are gone", {AGE: "9000x400", SUCCESS: "0+30x200 stale"}, quiet=[180], loud=[200]),
            Course("there are pods for all that there is", {AGE: "0x400", SUCCESS: "60x400"}, quiet=[100]),
            Course("a task waits at another manager", {AT_ANOTHER_MANAGER: "9000x400"}, quiet=[100]),
        ],
    ),
    "JobnikWorkerReportsRefused": (
        MILD,
        [
            NOTHING,
            Course("one report in ten is refused", {TAKEN: "0+9x80", REFUSED: "0+1x80"}, quiet=[8], loud=[25]),
            Course("one in forty is", {TAKEN: "0+39x80", REFUSED: "0+1x80"}, quiet=[25]),
        ],
    ),
    "JobnikWorkerCannotReachManager": (
        SEVERE,
        [
            NOTHING,
            Course("no request is answered", {UNANSWERED: "0+1x80"}, quiet=[4], loud=[12]),
            Course("the manager answers that it cannot", {UNAVAILABLE: "0+1x80"}, quiet=[12]),
        ],
    ),
}
"""Each with the labels that its receivers get, and courses of things."""


@pytest.fixture(scope="module")
def promtool() -> Path:
    """Give a promtool that runs."""
    return find_promtool()


@pytest.fixture
def rules(worker_chart: Chart, tmp_path: Path) -> Path:
    """Give a file of the chart's alerts, as Prometheus reads it."""
    manifests = worker_chart.render(everything("worker"))
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump(next(found["spec"] for found in manifests if found["kind"] == "PrometheusRule")))
    return file


def test_prometheus_reads_the_alerts(promtool: Path, rules: Path, tool: Callable[..., str]) -> None:
    """Expressions, durations and what is written into summaries are as Prometheus wants them."""
    assert f"{len(ALERTS)} rules found" in tool(promtool, "check", "rules", rules.name, cwd=rules.parent)


def test_alerts_fire_when_they_should_and_only_then(promtool: Path, rules: Path, tool: Callable[..., str]) -> None:
    """Each alert comes with what it is about, and stays away while all is well or nothing is there."""
    written = yaml.safe_load(rules.read_text())
    for rule in written["groups"][0]["rules"]:
        del rule["annotations"]  # else each expectation would have to repeat them
    rules.write_text(yaml.safe_dump(written))
    tests = [_test(alert, labels, course) for alert, (labels, courses) in ALERTS.items() for course in courses]
    (rules.parent / "tests.yml").write_text(
        yaml.safe_dump({"rule_files": [rules.name], "evaluation_interval": "30s", "tests": tests})
    )

    tool(promtool, "test", "rules", "tests.yml", cwd=rules.parent)


def _test(alert: str, labels: Mapping[str, str], course: Course) -> dict[str, Any]:
    expected = [{"exp_labels": dict(labels)}]
    return {
        "name": f"{alert}: {course.what}",
        "interval": "30s",
        "input_series": [{"series": series, "values": values} for series, values in course.told.items()],
        "alert_rule_test": [
            {"alertname": alert, "eval_time": f"{minute}m", "exp_alerts": expected if minute in course.loud else []}
            for minute in (*course.quiet, *course.loud)
        ],
    }
