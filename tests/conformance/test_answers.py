"""The fake manager answers as the reference manager does: the same requests, compared answer by answer."""

import itertools
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, cast
from uuid import uuid4

import httpx2
import pytest
from jobnik_sdk.testing.fake.manager import ADDRESS, FakeManager

from tests.support.plain_http import NO_CERTIFICATES

Json = Any
TRACEPARENT = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CURSOR = re.compile(r"cursor=[\w-]+")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


class Conversation:
    """Sends requests to a manager and records its answers, with ids, times and lease numbers replaced by names."""

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http
        self.answers: list[tuple[str, int, Json]] = []
        self._names: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self.type = f"type-{uuid4().hex}"
        self.worker = f"worker-{uuid4().hex}"
        self.rename(self.type, "TYPE")
        self.rename(self.worker, "WORKER")

    def ask(self, method: str, path: str, body: Json = None, **options: Any) -> Json:  # noqa: ANN401 passed on
        """Send a request, and return the JSON of the answer."""
        if body is not None:
            options["json"] = body
        answer = self._http.request(method, path.replace("TYPE", self.type).replace("WORKER", self.worker), **options)
        content = answer.json() if answer.content else None
        headers = {name: answer.headers[name] for name in ("Reason", "Preference-Applied") if name in answer.headers}
        recorded: Json = {"body": content, "headers": headers, "more": "Link" in answer.headers}
        asked = self._plain(f"{method} {_CURSOR.sub('cursor=…', path)}")
        self.answers.append((asked, answer.status_code, self._plain(recorded)))
        self.link = re.sub(r"<(.*)>.*", r"\1", answer.headers.get("Link", ""))
        return content

    def rename(self, text: str, name: str) -> str:
        """Record `name` instead of a text that differs between managers."""
        return self._names.setdefault(text, name)

    def _plain(self, value: Json) -> Json:
        if isinstance(value, dict):
            members = cast("dict[str, Json]", value)
            if members.get("code") == "VALIDATION_ERROR":
                members = {**members, "message": "…"}
            return {name: self._plain_member(name, member) for name, member in sorted(members.items())}
        if isinstance(value, list):
            return [self._plain(member) for member in cast("list[Json]", value)]
        if isinstance(value, str):
            text = _TIME.sub("TIME", value)
            for known, name in self._names.items():
                text = text.replace(known, name)
            return _UUID.sub(lambda found: self.rename(found[0], f"id {next(self._numbers)}"), text)
        return value

    def _plain_member(self, name: str, value: Json) -> Json:
        if name in {"lost", "cancel"} and isinstance(value, list):
            return sorted(self._plain_member("leaseId", lease) for lease in cast("list[int]", value))
        if name == "leaseId" and isinstance(value, int):
            return self.rename(f"lease {value}", f"lease {next(self._numbers)}")
        if name in {"etaSeconds", "waitedSeconds"} and isinstance(value, float):
            return "SECONDS"
        return self._plain(value)


Talk: TypeAlias = Callable[[Conversation], object]
Compare: TypeAlias = Callable[[Talk], None]


@pytest.fixture
def compare(reference_url: str) -> Iterator[Compare]:
    """Give a function that has the same conversation with both managers and compares their answers."""
    with _comparing(reference_url, FakeManager()) as lead:
        yield lead


@pytest.fixture(params=[False, True], ids=["parts A and B", "part A"])
def compare_either(request: pytest.FixtureRequest) -> Iterator[Compare]:
    """Give the same function, for managers with and without part B of the protocol."""
    url: str = request.getfixturevalue("reference_part_a_url" if request.param else "reference_url")
    with _comparing(url, FakeManager(part_a_only=request.param)) as lead:
        yield lead


@contextmanager
def _comparing(reference_url: str, fake_manager: FakeManager) -> Generator[Compare]:
    with (
        httpx2.Client(base_url=reference_url, timeout=15, verify=NO_CERTIFICATES) as real,
        httpx2.Client(base_url=ADDRESS, transport=fake_manager.transport) as fake,
    ):

        def lead(talk: Talk) -> None:
            theirs, ours = Conversation(real), Conversation(fake)
            talk(theirs)
            talk(ours)
            for given, wanted in zip(ours.answers, theirs.answers, strict=True):
                assert given == wanted

        yield lead


def _report(task: Json, outcome: str, **fields: Json) -> Json:
    return {"taskId": task["id"], "leaseId": task["leaseId"], "outcome": outcome, **fields}


def test_jobs(compare_either: Compare) -> None:
    """Jobs are created, read, changed and deleted, and requests are refused."""

    def talk(manager: Conversation) -> None:
        ask, name = manager.ask, f"job {uuid4().hex}"
        manager.rename(name.replace(" ", "+"), "NAME")
        manager.rename(name, "NAME")
        job = ask("POST", "/v1/jobs", {"name": name, "data": {"a": 1}, "traceparent": TRACEPARENT, "tracestate": "a=b"})
        path = f"/v1/jobs/{job['id']}"
        ask("POST", "/v1/jobs", {"name": name, "data": {}, "priority": "LOW"}, headers={"traceparent": TRACEPARENT})
        ask("GET", f"/v1/jobs?job_name={name}")
        ask("GET", f"/v1/jobs?job_name={name}&limit=1")
        ask("GET", manager.link)
        ask("GET", f"/v1/jobs?job_name={name}&priority=LOW&should_return_stages=true")
        ask("GET", f"/v1/jobs?job_name={name}&from_date=2999-01-01")
        ask("GET", f"/v1/jobs?job_name={name}&order=desc")
        ask("GET", f"/v1/jobs?job_name={name}&status=PENDING,FAILED&page_size=1&order=desc")
        ask("GET", f"/v1/jobs?job_name={name}&page=2")
        ask("GET", f"/v1/jobs?job_name={name}&page=2&limit=1")
        ask("PATCH", f"{path}/user-metadata", {"userMetadata": {"b": 2}})
        ask("PATCH", f"{path}/user-metadata", {"b": 2, "userMetadata": {}})
        ask("PATCH", f"{path}/priority", {"priority": "HIGH"})
        ask("PATCH", f"{path}/priority", {"priority": "HIGH"})
        ask("GET", f"{path}?should_return_stages=true&should_return_progress=true")
        for status in ("PENDING", "PAUSED", "PAUSED", "PENDING", "COMPLETED"):
            ask("PUT", f"{path}/status", {"status": status})
        ask("DELETE", path)
        ask("PUT", f"{path}/status", {"status": "ABORTED"})
        ask("PUT", f"{path}/status", {"status": "ABORTED"})
        ask("POST", f"{path}/stage", {"type": "TYPE", "data": {}})
        ask("GET", path)
        ask("GET", f"{path}/history")
        ask("DELETE", path)
        ask("GET", path)

    compare_either(talk)


def test_stages_and_tasks(compare: Compare) -> None:
    """Stages and tasks are created, read and released, and requests are refused."""

    def talk(manager: Conversation) -> None:
        ask = manager.ask
        job = ask("POST", "/v1/jobs", {"name": "a job", "data": {}})
        options = {"taskDefaults": {"maxAttempts": 5, "retry": {"delaySeconds": 5}}, "weight": 2}
        first = ask("POST", f"/v1/jobs/{job['id']}/stage", {"type": manager.type, "data": {"a": 1}, **options})
        second = ask("POST", f"/v1/jobs/{job['id']}/stage", {"type": manager.type, "data": {}, "startAsWaiting": True})
        ask("POST", f"/v1/jobs/{job['id']}/stage", {"type": manager.type, "data": {}, "userMetadata": {"b": 1}})
        tasks = [
            {"data": {"n": 1}},
            {"data": {"n": 2}, "maxAttempts": 1, "timeoutSeconds": 2.5, "retry": {"strategy": "fixed", "jitter": 0.5}},
            {"data": {"n": 3}, "delaySeconds": 60, "retry": {"delaySeconds": 7200, "factor": 3}},
        ]
        path = f"/v1/stages/{first['id']}"
        added = ask("POST", f"{path}/tasks", tasks)
        ask("POST", f"{path}/tasks", [])
        ask("POST", f"{path}/tasks", [{"data": {}, "delaySeconds": 1, "availableAt": "2999-01-01T00:00:00Z"}])
        ask("POST", f"{path}/tasks", [{"data": {}}, {"data": 1}])
        ask("GET", f"{path}/tasks?limit=2")
        ask("GET", manager.link)
        ask("GET", f"{path}?should_return_tasks=true&should_return_progress=true")
        ask("GET", f"{path}/summary")
        ask("GET", f"/v1/jobs/{job['id']}/stages?limit=2")
        ask("GET", manager.link)
        ask("GET", f"/v1/stages?job_id={job['id']}&stage_operation_status=WAITING")
        ask("GET", f"/v1/stages?stage_type={manager.type}&should_return_tasks=true")
        ask("GET", f"/v1/tasks?stage_type={manager.type}&status=PENDING&limit=2")
        ask("GET", f"/v1/tasks?stage_type={manager.type}&status=PENDING,FAILED&status=ABORTED&limit=2&order=desc")
        ask("GET", manager.link)
        for condition in ("b:1", "b:1.0", "b", "c:1", "b:1&metadata=c:1"):
            ask("GET", f"/v1/stages?job_id={job['id']}&metadata={condition}&order=desc")
        ask("GET", f"/v1/stages?job_id={job['id']}&stage_operation_status=WAITING,CREATED")
        ask("GET", f"/v1/stages?job_id={job['id']}&status=WAITING")
        ask("GET", f"{path}/tasks?page=1&page_size=2&order=desc")
        ask("GET", f"/v1/jobs/{job['id']}/stages?page=1&page_size=101")
        ask("PUT", f"/v1/stages/{second['id']}/status", {"status": "PENDING"})
        ask("PUT", f"{path}/status", {"status": "PENDING"})
        ask("PATCH", f"{path}/user-metadata", {"c": 1})
        ask("PATCH", f"/v1/tasks/{added[0]['id']}/user-metadata", {"d": 1})
        ask("GET", f"/v1/tasks/{added[0]['id']}")
        ask("GET", f"/v1/queues/{manager.type}/depth")
        ask("PUT", f"/v1/jobs/{job['id']}/status", {"status": "ABORTED"})
        ask("GET", f"/v1/stages/{second['id']}?should_return_tasks=true")
        ask("GET", f"{path}?should_return_tasks=true")
        ask("POST", f"{path}/tasks", tasks)
        ask("GET", f"{path}/history")
        ask("GET", f"/v1/tasks/{added[0]['id']}/history")
        ask("PUT", f"{path}/status", {"status": "PENDING"})

    compare(talk)


def test_work_without_leases(compare_either: Compare) -> None:
    """Tasks are dequeued and reported one by one, with all effects."""

    def talk(manager: Conversation) -> None:
        ask, dequeue = manager.ask, f"/v1/stages/{manager.type}/tasks/dequeue"
        job = ask("POST", "/v1/jobs", {"name": "a job", "data": {}})
        stages = [ask("POST", f"/v1/jobs/{job['id']}/stage", {"type": manager.type, "data": {}}) for _ in range(2)]
        ask("PATCH", dequeue)
        for stage in stages:
            ask("POST", f"/v1/stages/{stage['id']}/tasks", [{"data": {}, "maxAttempts": 2}])
        for status in ("FAILED", "COMPLETED", "FAILED", "FAILED"):
            task = ask("PATCH", dequeue)
            for _ in range(2):
                ask("PUT", f"/v1/tasks/{task['id']}/status", {"status": status})
            ask("GET", f"/v1/jobs/{job['id']}?should_return_stages=true")
            ask("GET", f"/v1/tasks/{task['id']}/attempts")
            ask("GET", f"/v1/tasks/{task['id']}/history")
        ask("GET", f"/v1/jobs/{job['id']}/history")
        ask("GET", f"/v1/stages/{stages[0]['id']}/history")
        ask("PATCH", dequeue)

    compare_either(talk)


def test_work_under_leases(compare: Compare) -> None:
    """Tasks are claimed, renewed and settled, and reports are repeated."""

    def talk(manager: Conversation) -> None:
        ask = manager.ask
        job = ask("POST", "/v1/jobs", {"name": "a job", "data": {"j": 1}})
        new_stage = {"type": manager.type, "data": {"s": 1}, "userMetadata": {"u": 1}}
        stage = ask("POST", f"/v1/jobs/{job['id']}/stage", new_stage)
        ask("POST", f"/v1/stages/{stage['id']}/tasks", [{"data": {"n": n}} for n in range(8)])
        claim = {"workerId": manager.worker, "limit": 7}
        tasks = ask("POST", f"/v1/stages/{manager.type}/tasks/claim", claim)["tasks"]
        running = [{"taskId": task["id"], "leaseId": task["leaseId"]} for task in tasks]
        running[0] |= {"progress": {"fraction": 0.5, "message": "half"}, "checkpoint": [1]}
        path = f"/v1/workers/{manager.worker}/heartbeat"
        heartbeat = {"stageTypes": [manager.type], "host": "here", "version": "1", "running": running}
        ask("POST", path, heartbeat)
        ask("GET", f"/v1/stages/{stage['id']}?should_return_progress=true")
        ask("GET", f"/v1/jobs/{job['id']}?should_return_progress=true")
        ask("PUT", f"/v1/tasks/{tasks[0]['id']}/status", {"status": "COMPLETED"})
        error = {"type": "ValueError", "message": "no", "stack": "at"}
        reports: list[Json] = [
            _report(tasks[0], "COMPLETED", result={"r": 1}),
            _report(tasks[1], "FAILED", error=error, checkpoint={"c": 1}),
            _report(tasks[2], "FAILED", retryable=False) | {"retryable": True, "delaySeconds": 60},
            _report(tasks[3], "RELEASED"),
            _report(tasks[4], "SNOOZED", delaySeconds=60, checkpoint=5),
            _report(tasks[5], "COMPLETED") | {"leaseId": tasks[5]["leaseId"] + 1_000_000},
            _report(tasks[5], "COMPLETED") | {"taskId": str(uuid4())},
            _report(tasks[5], "NEVER"),
            "nothing",
        ]
        manager.rename(reports[6]["taskId"], "NOBODY")
        for _ in range(2):
            ask("POST", "/v1/tasks/settle", {"workerId": manager.worker, "results": reports})
        minimal = {"Prefer": "return=minimal"}
        ask("POST", "/v1/tasks/settle", {"workerId": manager.worker, "results": reports}, headers=minimal)
        ask("GET", f"/v1/stages/{stage['id']}?should_return_tasks=true")
        ask("POST", path, heartbeat)
        ask("PUT", f"/v1/workers/{manager.worker}", {"drain": True})
        ask("POST", path, heartbeat | {"draining": True, "running": running[5:]})
        ask("GET", f"/v1/queues/{manager.type}/depth")
        ask("POST", f"/v1/stages/{manager.type}/tasks/claim", claim | {"workerId": "another", "limit": 1})
        ask("DELETE", f"/v1/workers/{manager.worker}")
        ask("PUT", f"/v1/workers/{manager.worker}", {"drain": True})
        ask("GET", f"/v1/stages/{stage['id']}/tasks")
        for task in tasks:
            ask("GET", f"/v1/tasks/{task['id']}/attempts")
            ask("GET", f"/v1/tasks/{task['id']}/history")
            ask("GET", f"/v1/tasks/{task['id']}/history?limit=1&order=desc")
            while manager.link:
                ask("GET", manager.link)
        for limit in (3, 500):
            body = claim | {"workerId": "minimal", "limit": limit}
            ask("POST", f"/v1/stages/{manager.type}/tasks/claim", body, headers=minimal)
        ask("PUT", f"/v1/jobs/{job['id']}/status", {"status": "ABORTED"})
        ask("POST", path, heartbeat)
        ask("POST", "/v1/tasks/settle", {"workerId": manager.worker, "results": reports})
        ask("GET", f"/v1/stages/{stage['id']}?should_return_tasks=true")
        ask("GET", f"/v1/tasks/{tasks[1]['id']}/attempts")

    compare(talk)


def test_failure_without_retry(compare: Compare) -> None:
    """The failure ends the stage and the job; other tasks in progress can still be reported."""

    def talk(manager: Conversation) -> None:
        ask = manager.ask
        job = ask("POST", "/v1/jobs", {"name": "a job", "data": {}})
        stages = [ask("POST", f"/v1/jobs/{job['id']}/stage", {"type": manager.type, "data": {}}) for _ in range(2)]
        ask("POST", f"/v1/stages/{stages[0]['id']}/tasks", [{"data": {}} for _ in range(4)])
        claim = {"workerId": manager.worker, "limit": 3}
        tasks = ask("POST", f"/v1/stages/{manager.type}/tasks/claim", claim)["tasks"]
        for task, report in zip(tasks, ({"retryable": False}, {"retryable": True}, {}), strict=True):
            outcome = "FAILED" if report else "COMPLETED"
            results = [_report(task, outcome, **report)]
            ask("POST", "/v1/tasks/settle", {"workerId": manager.worker, "results": results})
            ask("GET", f"/v1/jobs/{job['id']}?should_return_stages=true")
        ask("POST", f"/v1/stages/{manager.type}/tasks/claim", claim)
        ask("POST", f"/v1/stages/{stages[0]['id']}/tasks", [{"data": {}}])
        ask("POST", f"/v1/stages/{stages[1]['id']}/tasks", [{"data": {}}])
        ask("GET", f"/v1/jobs/{job['id']}/history")

    compare(talk)


def test_whole_jobs(compare: Compare) -> None:
    """A job is created with its stages and tasks, and only once with a unique key."""

    def talk(manager: Conversation) -> None:
        ask = manager.ask
        other = TRACEPARENT.replace("0123", "3210")
        tasks: list[Json] = [
            {"data": {"n": 1}, "traceparent": other},
            {"data": {}, "maxAttempts": 1, "delaySeconds": 60},
        ]
        stages: list[Json] = [
            {
                "type": manager.type,
                "data": {},
                "tasks": tasks,
                "taskDefaults": {"maxAttempts": 5},
                "traceparent": other,
            },
            {"type": manager.type, "data": {}, "tasks": tasks, "startAsWaiting": True},
            {"type": manager.type, "data": {}},
        ]
        body: Json = {"name": "a job", "data": {}, "uniqueKey": manager.worker, "traceparent": TRACEPARENT}
        ask("POST", "/v1/jobs", body | {"stages": stages})
        ask("POST", "/v1/jobs", body | {"stages": stages[:0]})
        for unique_for in (60, 0, "no"):
            ask("POST", "/v1/jobs", body | {"uniqueFor": unique_for})
        job = ask("POST", "/v1/jobs", body)
        ask("GET", f"/v1/jobs/{job['id']}/stages?should_return_tasks=true")
        ask("PUT", f"/v1/jobs/{job['id']}/status", {"status": "ABORTED"})
        ask("POST", "/v1/jobs", body | {"uniqueFor": 60})
        ask("POST", "/v1/jobs", body | {"name": "another", "uniqueFor": 0.001})
        ask("POST", "/v1/jobs", body)
        wrong: Json = {"type": manager.type, "data": {}, "tasks": [{"data": 1}]}
        ask("POST", "/v1/jobs", {"name": "a job", "data": {}, "stages": [*stages, wrong]})
        ask("POST", "/v1/jobs", {"name": "a job", "data": {}, "stages": [stages[2]] * 101})
        ask("POST", f"/v1/stages/{job['id']}/tasks", [{"data": {}, "maxAttempts": None}])

    compare(talk)


@pytest.mark.parametrize(
    "prefer",
    [
        "return=minimal",
        'Return = "minimal"; a=1',
        "wait=1, return=minimal",
        "return=minimal, return=representation",
        "return=representation, return=minimal",
        "return=Minimal",
        "minimal",
    ],
)
def test_preferences(compare_either: Compare, prefer: str) -> None:
    """The header Prefer in all its forms; without part B it is ignored."""

    def talk(manager: Conversation) -> None:
        job = manager.ask("POST", "/v1/jobs", {"name": "a job", "data": {}})
        stage = manager.ask("POST", f"/v1/jobs/{job['id']}/stage", {"type": manager.type, "data": {}})
        manager.ask("POST", f"/v1/stages/{stage['id']}/tasks", [{"data": {}}], headers={"Prefer": prefer})

    compare_either(talk)


@pytest.mark.parametrize("traceparent", [TRACEPARENT, f"00-{'0' * 32}-{'0' * 16}-00", TRACEPARENT.upper(), "00-1-2-3"])
@pytest.mark.parametrize("tracestate", ["a=1", "a" * 512, "a" * 513, "ü=1"])
def test_trace_headers(compare_either: Compare, traceparent: str, tracestate: str) -> None:
    """A new job takes the trace context of the request, unless it is malformed."""
    headers = {"traceparent": traceparent.encode(), "tracestate": tracestate.encode()}
    compare_either(lambda manager: manager.ask("POST", "/v1/jobs", {"name": "a job", "data": {}}, headers=headers))


REFUSED: list[tuple[str, str, Json]] = [
    ("POST", "/v1/jobs", {"name": "x", "data": {}}),
    ("POST", "/v1/jobs", {"name": "a job", "data": {}, "unknown": 1}),
    ("POST", "/v1/jobs", {"name": "a job", "data": {}, "priority": "NO"}),
    ("POST", "/v1/jobs", {"name": "a job", "data": {}, "traceparent": "no"}),
    ("POST", "/v1/jobs?a=1", {"name": "a job", "data": {}}),
    ("POST", "/v1/jobs", {"name": "a job", "data": {"x": "x" * 1_100_000}}),
    ("GET", "/v1/jobs?unknown=1", None),
    ("GET", "/v1/jobs?limit=0", None),
    ("GET", "/v1/jobs?limit=1&cursor=no", None),
    ("GET", "/v1/jobs?order=newest", None),
    ("GET", "/v1/jobs?status=", None),
    ("GET", "/v1/tasks?status=PENDING,", None),
    ("GET", "/v1/tasks?status=PENDING&status=FAILED&page=0", None),
    ("GET", "/v1/tasks?metadata=a", None),
    ("POST", "/v1/jobs/00000000-0000-0000-0000-000000000000/stage", {"type": "..", "data": {}}),
    ("POST", "/v1/stages/a/tasks/claim", {"workerId": "."}),
    ("GET", "/v1/jobs?from_date=no", None),
    ("GET", "/v1/jobs/no", None),
    ("GET", "/v1/jobs/00000000-0000-0000-0000-000000000000", None),
    ("GET", "/v1/jobs/00000000-0000-0000-0000-000000000000/stages", None),
    ("GET", "/v1/jobs/00000000-0000-0000-0000-000000000000/history", None),
    ("GET", "/v1/stages/00000000-0000-0000-0000-000000000000", None),
    ("GET", "/v1/stages/00000000-0000-0000-0000-000000000000/tasks", None),
    ("GET", "/v1/tasks/00000000-0000-0000-0000-000000000000", None),
    ("PUT", "/v1/tasks/00000000-0000-0000-0000-000000000000/status", {"status": "COMPLETED"}),
    ("PUT", "/v1/tasks/00000000-0000-0000-0000-000000000000/status", {"status": "PENDING"}),
    ("PUT", "/v1/stages/00000000-0000-0000-0000-000000000000/status", {"status": "FAILED"}),
    ("PATCH", "/v1/stages/" + "x" * 51 + "/tasks/dequeue", None),
    ("POST", "/v1/stages/a/tasks/claim", {"workerId": ""}),
    ("POST", "/v1/stages/a/tasks/claim", {"workerId": "a", "limit": 501}),
    ("POST", "/v1/stages/a/tasks/claim", {"workerId": "a", "leaseSeconds": 0.5}),
    ("POST", "/v1/tasks/settle", {"workerId": "a", "results": []}),
    ("POST", "/v1/workers/a/heartbeat", {"stageTypes": [""]}),
    ("PUT", "/v1/workers/nobody", {"drain": True}),
    ("PUT", "/v1/workers/nobody", {"drain": 1}),
    ("GET", "/v1/tasks/settle", None),
    ("DELETE", "/v1/stages", None),
    ("GET", "/v1/nothing", None),
    ("GET", "/liveness", None),
    ("GET", "/readiness", None),
]


@pytest.mark.parametrize(("method", "path", "body"), REFUSED, ids=[f"{method} {path}" for method, path, _ in REFUSED])
def test_refusals(compare_either: Compare, method: str, path: str, body: Json) -> None:
    """Invalid requests, and requests for something that does not exist."""
    compare_either(lambda manager: manager.ask(method, path, body))


def test_other_bodies(compare_either: Compare) -> None:
    """Bodies that are not JSON, or whose Content-Type is not JSON."""

    def talk(manager: Conversation) -> None:
        manager.ask("POST", "/v1/jobs", content=b"{", headers={"Content-Type": "application/json"})
        manager.ask("POST", "/v1/jobs", content=b"{}", headers={"Content-Type": "text/plain"})
        manager.ask(
            "POST",
            "/v1/jobs",
            content=b'{"name": "a job", "data": {"a": NaN}}',
            headers={"Content-Type": "application/json"},
        )

    compare_either(talk)


NUMBERS = '1 1.0 3.0 1e0 0.0 -1.0 1.5 501.0 9007199254740993.0 1e300 1e999 "1" true 01 1_0 %2B1 %201 %D9%A1'
_JOB = '{"name":"a job","data":{},"stages":[{"type":"TYPE","data":{},'
_LEASE = '"taskId":"00000000-0000-0000-0000-000000000000","leaseId":NUMBER'
INTEGERS = {
    "/v1/jobs": _JOB + '"tasks":[{"data":{},"maxAttempts":NUMBER}]}]}',
    "/v1/jobs?": _JOB + '"taskDefaults":{"maxAttempts":NUMBER},"tasks":[{"data":{}}]}]}',
    "/v1/stages/TYPE/tasks/claim": '{"workerId":"WORKER","limit":NUMBER}',
    "/v1/tasks/settle": '{"workerId":"WORKER","results":[{' + _LEASE + ',"outcome":"COMPLETED"}]}',
    "/v1/workers/WORKER/heartbeat": '{"stageTypes":["TYPE"],"running":[{' + _LEASE + "}]}",
    **dict.fromkeys([f"/v1/stages?stage_type=TYPE&{name}=NUMBER" for name in ("limit", "page", "page_size")], ""),
}


@pytest.mark.parametrize("path", INTEGERS)
def test_whole_and_broken_numbers(compare: Compare, path: str) -> None:
    """An integer in a body may be written as 3.0, as some clients have no other numbers; one in a query may not."""

    def talk(manager: Conversation) -> None:
        for number in NUMBERS.split():
            body = INTEGERS[path].replace("NUMBER", number).replace("TYPE", manager.type)
            content, headers = body.replace("WORKER", manager.worker).encode(), {"Content-Type": "application/json"}
            method = "POST" if content else "GET"
            manager.ask(method, path.replace("NUMBER", number), content=content or None, headers=headers)

    compare(talk)
