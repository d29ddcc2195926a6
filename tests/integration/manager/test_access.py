"""Who may do what: each scope at each endpoint, on the hot path and on the framework's, and what a stranger learns."""

import re
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, closing
from datetime import timedelta
from typing import Any, NamedTuple, cast
from uuid import uuid4

import httpx2
import pytest
from reference_manager.access.limits import Owners
from reference_manager.access.principals import Scope
from reference_manager.access.secrets import generate_secret
from reference_manager.access.tokens import NewToken, Tokens
from reference_manager.api.app import OPEN_FOLDER, create_app
from reference_manager.api.authenticator import Authenticator
from reference_manager.api.common.access import Gate
from reference_manager.api.hot_path import HotPath
from reference_manager.engine.engine import Engine
from reference_manager.server.access import build_gate
from reference_manager.store.pool import Database
from starlette.types import ASGIApp
from structlog.testing import capture_logs

from tests.support.access import bearer, sent_by
from tests.support.protocol import Client, branch
from tools.docs.openapi import reference

UNKNOWN = str(uuid4())
READERS = {Scope.VIEWER, Scope.PRODUCER, Scope.WORKER, Scope.ADMIN}
PRODUCERS = {Scope.PRODUCER, Scope.ADMIN}
WORKERS = {Scope.WORKER, Scope.ADMIN}
ADMINS = {Scope.ADMIN}
EXPECTED: dict[str, set[Scope] | None] = {
    "create_job": PRODUCERS,
    "list_jobs": READERS,
    "get_job": READERS,
    "delete_job": PRODUCERS,
    "set_job_metadata": PRODUCERS | WORKERS,
    "set_job_priority": PRODUCERS,
    "set_job_status": PRODUCERS,
    "list_stages_of_job": READERS,
    "add_stage": PRODUCERS,
    "list_stages": READERS,
    "get_stage": READERS,
    "get_stage_summary": READERS,
    "set_stage_metadata": PRODUCERS | WORKERS,
    "set_stage_status": PRODUCERS,
    "list_tasks_of_stage": READERS,
    "add_tasks": PRODUCERS | WORKERS,
    "dequeue_task": WORKERS,
    "list_tasks": READERS,
    "get_task": READERS,
    "set_task_metadata": PRODUCERS | WORKERS,
    "set_task_status": WORKERS,
    "claim_tasks": WORKERS,
    "settle_tasks": WORKERS,
    "get_queue_depth": READERS,
    "heartbeat": WORKERS,
    "list_workers": READERS,
    "order_worker": ADMINS,
    "remove_worker": WORKERS,
    "list_attempts": READERS,
    "get_job_history": READERS,
    "get_stage_history": READERS,
    "get_task_history": READERS,
    "create_token": ADMINS,
    "list_tokens": ADMINS,
    "get_token": ADMINS,
    "rotate_token": ADMINS,
    "revoke_token": ADMINS,
    "get_retention": READERS,
    "set_retention": ADMINS,
    "liveness": None,
    "readiness": None,
    "metrics": READERS,
    "get_capabilities": None,
}
"""Who may use each operation; None: everyone, without a token."""
BODIES: dict[str, Any] = {
    "create_job": {"name": "a job", "data": {}},
    "add_stage": {"type": "one", "data": {}},
    "add_tasks": [{"data": {}}],
    "set_job_metadata": {"a": 1},
    "set_stage_metadata": {"a": 1},
    "set_task_metadata": {"a": 1},
    "set_job_priority": {"priority": "LOW"},
    "set_job_status": {"status": "PAUSED"},
    "set_stage_status": {"status": "PENDING"},
    "set_task_status": {"status": "COMPLETED"},
    "claim_tasks": {"workerId": "w"},
    "settle_tasks": {"workerId": "w", "results": [{"taskId": UNKNOWN, "leaseId": 1, "outcome": "COMPLETED"}]},
    "heartbeat": {"stageTypes": []},
    "order_worker": {"drain": True},
    "create_token": {"name": "admin", "scopes": ["viewer"]},
    "rotate_token": {},
    "set_retention": {"default": {"completedSeconds": None, "failedSeconds": None, "abortedSeconds": None}},
}
VARYING = re.compile(
    r'[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|"[0-9-]{10}T[0-9:.]{12}Z"|"drain(?:ing|Wanted)?":\w+'
)


class Site(NamedTuple):
    """An API in this process, with a token of each scope."""

    hot: httpx2.AsyncClient
    """Through the hot path."""
    direct: httpx2.AsyncClient
    """Through the framework alone."""
    open: httpx2.AsyncClient
    """Without an authenticator, as everyone."""
    tokens: Tokens
    gate: Gate
    secrets: dict[Scope, str]

    async def issue(self, **fields: Any) -> dict[str, str]:  # noqa: ANN401 - as of a token
        """Create a token that the registry knows. Return the header of its requests."""
        issued = await self.tokens.create(NewToken(name=uuid4().hex, **fields), "test")
        await self.gate.registry.load()
        return bearer(issued.secret)


@pytest.fixture
async def site(database: Database) -> AsyncGenerator[Site]:
    """An API whose manager is closed."""
    engine, gate, tokens = Engine(database, stale_after=timedelta(minutes=30)), build_gate(database), Tokens(database)
    secrets = {scope: (await tokens.create(NewToken(scope, frozenset({scope})), "test")).secret for scope in Scope}
    await gate.registry.load()
    api = create_app(engine, gate, body_limit=1024 * 1024)

    def secured(app: ASGIApp) -> ASGIApp:
        return Authenticator(app, gate, api.state.open_paths, [OPEN_FOLDER])

    apps = secured(HotPath(api, engine, gate, body_limit=1024 * 1024)), secured(api), sent_by(api)
    async with AsyncExitStack() as stack:
        stack.enter_context(closing(api.state.bodies))
        clients = [
            await stack.enter_async_context(
                httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://manager")
            )
            for app in apps
        ]
        hot, direct, everyone = clients
        yield Site(hot, direct, everyone, tokens, gate, secrets)


def operations() -> list[tuple[str, str, str]]:
    """Return each operation of the OpenAPI document: its id, its method and its path for entities that do not exist."""
    return [
        (operation["operationId"], method.upper(), re.sub(r"\{\w+Id\}", UNKNOWN, path).replace("{stageType}", "one"))
        for path, methods in reference()["paths"].items()
        for method, operation in methods.items()
    ]


def test_the_matrix_has_every_operation() -> None:
    """Also in the document: each operation names the scopes, one of which is sufficient."""
    documented = {
        operation["operationId"]: operation["security"]
        for methods in reference()["paths"].values()
        for operation in methods.values()
    }
    assert documented.keys() == EXPECTED.keys()
    for name, scopes in EXPECTED.items():
        listed: set[str] = {scope for alternative in documented[name] for scope in alternative["token"]}
        assert listed | {"admin"} == (scopes or {"admin"}), name


async def answer_to(
    client: httpx2.AsyncClient, request: tuple[str, str, str], headers: dict[str, str]
) -> tuple[int, str, str]:
    """Send a request of an operation. Return the status, the comparable text, and the challenge of the answer."""
    operation, method, path = request
    answer = await client.request(method, path, json=BODIES.get(operation), headers=headers)
    text = "" if operation == "metrics" and answer.is_success else VARYING.sub("…", answer.text)
    return answer.status_code, text, answer.headers.get("www-authenticate", "")


async def test_each_scope_may_do_exactly_what_it_is_for(site: Site) -> None:
    """A permitted request is served as if everyone might send it; the hot path and the framework agree."""
    senders: dict[Scope | None, dict[str, str]] = {None: {}, **{s: bearer(t) for s, t in site.secrets.items()}}
    for request in operations():
        expected = EXPECTED[request[0]]
        served = await answer_to(site.open, request, {})
        assert served[0] not in {401, 403}
        for scope, headers in senders.items():
            answers = [await answer_to(client, request, headers) for client in (site.hot, site.direct)]
            assert answers[0] == answers[1], (request, scope)
            if expected is None or scope in expected:
                assert answers[0] == served, (request, scope)
            else:
                check_refusal(*answers[0], scope, expected)


def check_refusal(status: int, text: str, challenge: str, scope: Scope | None, expected: set[Scope]) -> None:
    """Check the answer to a request that a sender with this scope may not send."""
    if scope is None:
        assert (status, challenge) == (401, 'Bearer realm="jobnik"')
        assert '"code":"TOKEN_REQUIRED"' in text
        return
    needed = sorted(expected - {Scope.ADMIN}, key=list(Scope).index) or [Scope.ADMIN]
    assert status == 403
    assert challenge == f'Bearer realm="jobnik", error="insufficient_scope", scope="{" ".join(needed)}"'
    assert f"needs the scope {needed[0]}" in text
    assert text.endswith('"code":"FORBIDDEN"}')


STRANGE = {
    "an unknown path": ("GET", "/v1/nothing"),
    "a wrong method": ("TRACE", "/v1/jobs"),
    "HEAD": ("HEAD", "/v1/jobs"),
    "OPTIONS": ("OPTIONS", "/v1/jobs"),
    "two slashes": ("GET", "//v1/jobs"),
    "an encoded slash": ("GET", "/v1%2Fjobs"),
    "an encoded letter": ("GET", "/v1/%6Aobs"),
    "a trailing slash": ("GET", "/v1/jobs/"),
    "a dot": ("GET", "/v1/./jobs"),
    "two dots": ("GET", "/liveness/../v1/jobs"),
    "encoded dots": ("GET", "/liveness/%2e%2e/v1/jobs"),
    "an open path with a slash": ("GET", "/liveness/"),
    "an open path, encoded": ("GET", "/livenes%73"),
    "an open path in capitals": ("GET", "/LIVENESS"),
    "out of the files of the API page": ("GET", f"{OPEN_FOLDER}../v1/jobs"),
    "out of these, encoded": ("GET", f"{OPEN_FOLDER}%2e%2e/v1/jobs"),
    "an invalid id": ("GET", "/v1/jobs/none"),
    "an invalid parameter": ("GET", "/v1/jobs?none=1"),
}


async def test_a_stranger_learns_nothing(site: Site) -> None:
    """Without a token, the response is the same for every path and method, and says nothing about entities."""
    job = await Client(site.open).job()
    refused = await site.hot.get(f"/v1/jobs/{job['id']}")
    assert refused.status_code == 401
    for name, (method, path) in STRANGE.items():
        # A URL object would tidy the path up.
        target = httpx2.URL("http://manager").copy_with(raw_path=path.encode())
        answer = await site.hot.send(httpx2.Request(method, target))
        assert (answer.status_code, answer.headers.raw) == (401, refused.headers.raw), name
        assert answer.content == (b"" if method == "HEAD" else refused.content), name


async def test_open_paths_stay_open(site: Site) -> None:
    """Whatever the request has as its token, the probes, the features and the API page are served."""
    paths = ["/liveness", "/readiness", "/v1/capabilities", "/docs", "/openapi.json", f"{OPEN_FOLDER}swagger-ui.css"]
    for path in paths:
        for headers in ({}, bearer("nonsense"), bearer(generate_secret()), bearer(site.secrets[Scope.VIEWER])):
            assert (await site.hot.get(path, headers=headers)).status_code == 200, (path, headers)
    assert (await site.hot.options("/liveness")).status_code == 204
    assert (await site.hot.head("/liveness")).status_code == 200


MALFORMED = {
    "another scheme": ([b"Basic am9ibmlrOmpvYm5paw=="], 401, "TOKEN_REQUIRED", None),
    "an empty header": ([b""], 401, "TOKEN_REQUIRED", None),
    "only the scheme": ([b"Bearer"], 401, "TOKEN_REQUIRED", None),
    "a tab": ([b"Bearer\t$"], 401, "TOKEN_REQUIRED", None),
    "an empty token": ([b"Bearer "], 401, "TOKEN_REQUIRED", None),
    "a cut-off token": ([b"Bearer jobnik_abc"], 401, "TOKEN_INVALID", "invalid_token"),
    "a huge token": ([b"Bearer " + b"x" * 60_000], 401, "TOKEN_INVALID", "invalid_token"),
    "not ASCII": (["Bearer jobnik_é".encode()], 401, "TOKEN_INVALID", "invalid_token"),
    "a token and more": ([b"Bearer $ x"], 401, "TOKEN_INVALID", "invalid_token"),
    "two tokens in one header": ([b"Bearer $, Bearer $"], 401, "TOKEN_INVALID", "invalid_token"),
    "quotation marks": ([b'Bearer "$"'], 401, "TOKEN_INVALID", "invalid_token"),
    "two headers": ([b"Bearer $", b"Bearer $"], 400, "VALIDATION_ERROR", "invalid_request"),
    "an empty and a valid header": ([b"", b"Bearer $"], 400, "VALIDATION_ERROR", "invalid_request"),
}


async def test_a_malformed_header_is_refused(site: Site) -> None:
    """The answer has the code of RFC 6750. Only a valid token in the one right form is accepted."""
    secret = site.secrets[Scope.ADMIN].encode()
    for name, (values, status, code, error) in MALFORMED.items():
        headers = [(b"authorization", value.replace(b"$", secret)) for value in values]
        with capture_logs() as logged:
            answer = await site.hot.get("/v1/jobs", headers=headers)
        assert (answer.status_code, answer.json().get("code")) == (status, code), name
        challenge = answer.headers["www-authenticate"]
        assert (f'error="{error}"' in challenge) if error else challenge == 'Bearer realm="jobnik"', name
        assert [line["event"] for line in logged] == ["request refused"], name
        assert secret.decode() not in f"{logged} {answer.text} {challenge}", name


async def test_the_scheme_may_be_in_any_case(site: Site) -> None:
    """As HTTP demands. One or more spaces follow it."""
    for form in ("Bearer {}", "bearer {}", "BEARER {}", "Bearer   {}", "Bearer {} \t"):
        headers = {"Authorization": form.format(site.secrets[Scope.VIEWER])}
        assert (await site.hot.get("/v1/jobs", headers=headers)).status_code == 200, form


async def test_a_limited_worker_works_only_for_its_stage_types(site: Site) -> None:
    """It can neither claim, report, keep nor release tasks of others, nor pretend to work for them."""
    job = await Client(site.open).job(stages=[branch("mine", 2), branch("theirs", 2)])
    read = (await site.open.get(f"/v1/jobs/{job['id']}", params={"should_return_stages": True})).json()["stages"]
    mine, theirs = (stage["id"] for stage in read)
    limited = await site.issue(scopes=frozenset({Scope.WORKER}), stage_types=["mine"])
    free = bearer(site.secrets[Scope.WORKER])

    async def send(method: str, path: str, body: Any = None, headers: dict[str, str] = limited) -> int:  # noqa: ANN401 - any JSON
        answers = [await client.request(method, path, json=body, headers=headers) for client in (site.hot, site.direct)]
        assert answers[0].status_code == answers[1].status_code
        if answers[0].status_code == 403:
            assert answers[0].json() == {
                "message": "The token is limited to the stage types mine",
                "code": "FORBIDDEN",
            }
        return answers[0].status_code

    claim = {"workerId": "w", "limit": 1}
    (task,) = (await site.hot.post("/v1/stages/mine/tasks/claim", json=claim, headers=limited)).json()["tasks"]
    await site.open.patch("/v1/stages/mine/tasks/dequeue")
    other = (await site.open.get("/v1/tasks", params={"stage_id": theirs})).json()[0]["id"]
    assert await send("POST", "/v1/stages/theirs/tasks/claim", claim) == 403
    assert await send("PATCH", "/v1/stages/theirs/tasks/dequeue") == 403

    def heartbeat(task_id: str, *stage_types: str) -> dict[str, Any]:
        return {"stageTypes": stage_types, "running": [{"taskId": task_id, "leaseId": task["leaseId"]}]}

    assert await send("POST", "/v1/workers/w/heartbeat", heartbeat(task["id"], "mine")) == 200
    assert await send("POST", "/v1/workers/w/heartbeat", heartbeat(task["id"], "theirs")) == 403
    assert await send("POST", "/v1/workers/w/heartbeat", heartbeat(other, "mine")) == 403
    assert await send("POST", "/v1/workers/w/heartbeat", heartbeat(UNKNOWN, "mine")) == 200

    def settle(*task_ids: str) -> dict[str, Any]:
        report = {"leaseId": task["leaseId"], "outcome": "COMPLETED"}
        return {"workerId": "w", "results": [report | {"taskId": task_id} for task_id in task_ids]}

    assert await send("POST", "/v1/tasks/settle", settle(task["id"], other)) == 403
    assert (await site.open.get(f"/v1/tasks/{task['id']}")).json()["status"] == "IN_PROGRESS"
    assert await send("POST", "/v1/tasks/settle", settle(task["id"], UNKNOWN)) == 200
    assert await send("PUT", f"/v1/tasks/{other}/status", {"status": "COMPLETED"}) == 403
    assert await send("PUT", f"/v1/tasks/{UNKNOWN}/status", {"status": "COMPLETED"}) == 404
    assert await send("POST", f"/v1/stages/{theirs}/tasks", [{"data": {}}]) == 403
    assert await send("PATCH", f"/v1/tasks/{other}/user-metadata", {}) == 403
    assert await send("PATCH", f"/v1/jobs/{job['id']}/user-metadata", {}) == 403
    assert await send("PATCH", f"/v1/stages/{mine}/user-metadata", {}) == 200
    assert await send("GET", f"/v1/tasks/{other}") == 200

    stranger = {"stageTypes": ["theirs"]}
    assert await send("POST", "/v1/workers/stranger/heartbeat", stranger, free) == 200
    assert await send("DELETE", "/v1/workers/stranger") == 403
    assert await send("DELETE", "/v1/workers/w") == 200


async def test_a_limited_producer_changes_only_its_jobs(site: Site) -> None:
    """It creates jobs with its names only, and what belongs to other jobs is closed to it."""
    client = Client(site.open)
    jobs = {name: await client.job(name=name, stages=[branch(name, 1)]) for name in ("mine", "theirs")}
    limited = await site.issue(scopes=frozenset({Scope.PRODUCER}), job_names=["mine"])
    for name, expected in (("mine", 200), ("theirs", 403)):
        job = jobs[name]
        stage = (await site.open.get("/v1/stages", params={"job_id": job["id"]})).json()[0]["id"]
        task = (await site.open.get("/v1/tasks", params={"stage_id": stage})).json()[0]["id"]
        requests: list[tuple[str, str, Any]] = [
            ("POST", "/v1/jobs", {"name": name, "data": {}}),
            ("POST", f"/v1/jobs/{job['id']}/stage", {"type": "x", "data": {}}),
            ("POST", f"/v1/stages/{stage}/tasks", [{"data": {}}]),
            ("PATCH", f"/v1/jobs/{job['id']}/user-metadata", {}),
            ("PATCH", f"/v1/stages/{stage}/user-metadata", {}),
            ("PATCH", f"/v1/tasks/{task}/user-metadata", {}),
            ("PATCH", f"/v1/jobs/{job['id']}/priority", {"priority": "LOW"}),
            ("PUT", f"/v1/jobs/{job['id']}/status", {"status": "ABORTED"}),
            ("DELETE", f"/v1/jobs/{job['id']}", None),
        ]
        for method, path, body in requests:
            answer = await site.hot.request(method, path, json=body, headers=limited)
            assert answer.status_code == (201 if expected == 200 and method == "POST" else expected), (method, path)
        assert (await site.hot.get(f"/v1/jobs/{job['id']}", headers=limited)).status_code == (
            404 if expected == 200 else 200
        )


class CountedDatabase:
    """Counts the connections that looking up owners takes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.number = 0

    def connection(self, *, for_workers: bool) -> AbstractAsyncContextManager[Any]:
        """Open a connection."""
        self.number += 1
        return self._database.connection(for_workers=for_workers)


async def test_only_limited_tokens_cause_queries(site: Site, database: Database) -> None:
    """And those only for tasks that another manager handed out."""
    await Client(site.open).job(stages=[branch("mine", 3)])
    limited = await site.issue(scopes=frozenset({Scope.WORKER}), stage_types=["mine"])
    free = bearer(site.secrets[Scope.WORKER])
    counted = CountedDatabase(database)
    site.gate.owners = Owners(cast("Any", counted))

    async def work(claims: dict[str, str], settles: dict[str, str]) -> None:
        claim = {"workerId": "w", "limit": 1}
        (task,) = (await site.hot.post("/v1/stages/mine/tasks/claim", json=claim, headers=claims)).json()["tasks"]
        report = {"taskId": task["id"], "leaseId": task["leaseId"], "outcome": "COMPLETED"}
        body = {"workerId": "w", "results": [report]}
        answer = (await site.hot.post("/v1/tasks/settle", json=body, headers=settles)).json()
        assert answer["results"][0]["accepted"] is True

    for claims, settles, queries in ((free, free, 0), (limited, limited, 0), (free, limited, 1)):
        await work(claims, settles)
        assert counted.number == queries


async def test_tokens_are_managed_through_the_api(site: Site) -> None:
    """A secret is in the answer to its creation and its rotation, and nowhere else."""
    admin = bearer(site.secrets[Scope.ADMIN])

    async def send(method: str, path: str, body: Any = None) -> httpx2.Response:  # noqa: ANN401 - any JSON
        return await site.hot.request(method, f"/v1/tokens{path}", json=body, headers=admin)

    body = {"name": "w", "scopes": ["worker"], "stageTypes": ["a"], "lifetimeSeconds": 3600}
    created = await send("POST", "", body)
    assert (created.status_code, created.headers["cache-control"]) == (201, "no-store")
    token = created.json()
    secret = token.pop("token")
    assert (token["scopes"], token["stageTypes"], token["createdBy"]) == (["worker"], ["a"], "admin")
    assert (await send("GET", f"/{token['id']}")).json() == token
    await site.gate.registry.load()
    claim = {"workerId": "w"}
    answer = await site.hot.post("/v1/stages/a/tasks/claim", json=claim, headers=bearer(secret))
    assert answer.status_code == 200

    rotated = await send("POST", f"/{token['id']}/rotate", {"overlapSeconds": 0})
    assert (rotated.status_code, rotated.headers["cache-control"]) == (200, "no-store")
    assert rotated.json()["token"] != secret
    revoked = await send("POST", f"/{token['id']}/revoke")
    assert revoked.json()["revokedAt"] is not None
    assert (await send("POST", f"/{token['id']}/revoke")).json() == revoked.json()
    assert (await send("POST", f"/{token['id']}/rotate", {})).json()["code"] == "TOKEN_NOT_FOUND"

    first = await send("GET", "?limit=3")
    rest = await site.hot.get(first.headers["link"].split("<")[1].split(">")[0], headers=admin)
    names = [listed["name"] for listed in (*first.json(), *rest.json())]
    assert sorted(names) == sorted([*Scope, "w"])  # those of one millisecond are in any order
    assert [listed["name"] for listed in (await send("GET", "?order=desc")).json()] == names[::-1]
    assert "jobnik_" not in first.text + rest.text

    for wrong, message in (
        ({**body, "scopes": ["viewer"]}, "stage types limit the scope worker"),
        ({**body, "scopes": []}, "body.scopes: "),
        ({**body, "name": " w"}, "body.name: "),
        ({**body, "lifetimeSeconds": 0}, "body.lifetimeSeconds: "),
    ):
        refused = await send("POST", "", wrong)
        assert (refused.status_code, refused.json()["code"]) == (400, "VALIDATION_ERROR")
        assert message in refused.json()["message"]
