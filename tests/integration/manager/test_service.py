"""What operators see: metrics, probes, the OpenAPI document, /docs, starts and stops."""

import re
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from reference_manager.domain.states import JobStatus, Priority, StageStatus, TaskStatus
from reference_manager.embedded import EmbeddedPostgres

from tests.support.protocol import Client, refused
from tools.manager import ManagerProcess


def samples(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return the values of an exposition by metric name and label values, with the labels sorted by name."""
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics_have_explicit_zeros_for_all_labels(client: Client, stage_type: str) -> None:
    """Every combination of labels exists, and the values match the entities."""
    job = await client.job(priority="HIGH")
    stage = await client.stage(job, stage_type)
    await client.tasks(stage, 5)
    await client.claimed(stage_type)
    await client.settle(await client.claimed(stage_type), "FAILED")
    await client.settle(await client.claimed(stage_type), "FAILED")
    response = await client.http.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain")
    found = samples(response.text)

    assert found["jobnik_stages_by_status", ("IN_PROGRESS", stage_type)] == 1
    wanted = dict.fromkeys(TaskStatus, 0) | {TaskStatus.PENDING: 3, TaskStatus.IN_PROGRESS: 1, TaskStatus.RETRIED: 1}
    for status in TaskStatus:
        assert found["jobnik_tasks_by_status", (stage_type, status)] == wanted[status]
        for priority in Priority:
            expected = wanted[status] if priority is Priority.HIGH else 0
            assert found["jobnik_tasks_count", (priority, stage_type, status)] == expected
    assert {labels for name, labels in found if name == "jobnik_jobs_by_status"} == {(status,) for status in JobStatus}
    stages = {labels[0] for name, labels in found if name == "jobnik_stages_by_status" and labels[1] == stage_type}
    assert stages == set(StageStatus)
    assert found["process_start_time_seconds", ()] > 0


@pytest.mark.parametrize(
    ("end", "resume"),
    [
        ("ALLOW_CONNECTIONS false", "ALLOW_CONNECTIONS true"),
        ("SET default_transaction_read_only = on", "RESET default_transaction_read_only"),
    ],
)
async def test_probes_and_scrapes_fail_while_the_database_is_unavailable(
    postgres: EmbeddedPostgres, start_manager: Callable[..., ManagerProcess], database_url: str, end: str, resume: str
) -> None:
    """Readiness and metrics fail, liveness does not, and the manager recovers with the database."""
    manager = start_manager()
    name = database_url.rpartition("/")[2]
    admin = await asyncpg.connect(postgres.url)
    try:
        async with httpx2.AsyncClient(base_url=manager.url) as http:
            assert (await http.get("/readiness")).json() == {"code": "READY"}
            await admin.execute(f"ALTER DATABASE {name} {end}")
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
            answers = [await http.get(path) for path in ("/readiness", "/metrics", "/v1/jobs")]
            for answer in (*answers, await http.patch("/v1/stages/x/tasks/dequeue")):
                refused(answer, 503, "DATABASE_RELATED_ERROR")
                assert answer.headers["Retry-After"] == "1"
            assert (await http.get("/liveness")).json() == {"code": "ALIVE"}
            await admin.execute(f"ALTER DATABASE {name} {resume}")
            assert (await http.get("/readiness")).status_code == 200
    finally:
        await admin.close()


async def test_the_document_describes_every_endpoint(client: Client) -> None:
    """The OpenAPI document has all paths and methods of the protocol, with exactly the documented responses."""
    document = (await client.http.get("/openapi.json")).json()
    found = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    job, stage, task = "/v1/jobs/{jobId}", "/v1/stages/{stageId}", "/v1/tasks/{taskId}"
    assert found == {
        "POST /v1/jobs",
        "GET /v1/jobs",
        f"GET {job}",
        f"DELETE {job}",
        f"PATCH {job}/user-metadata",
        f"PATCH {job}/priority",
        f"PUT {job}/status",
        f"GET {job}/stages",
        f"POST {job}/stage",
        "GET /v1/stages",
        f"GET {stage}",
        f"GET {stage}/summary",
        f"PATCH {stage}/user-metadata",
        f"PUT {stage}/status",
        f"GET {stage}/tasks",
        f"POST {stage}/tasks",
        "PATCH /v1/stages/{stageType}/tasks/dequeue",
        "GET /v1/tasks",
        f"GET {task}",
        f"PATCH {task}/user-metadata",
        f"PUT {task}/status",
        "GET /liveness",
        "GET /v1/capabilities",
        "POST /v1/stages/{stageType}/tasks/claim",
        "POST /v1/tasks/settle",
        "POST /v1/workers/{workerId}/heartbeat",
        "GET /v1/workers",
        "PUT /v1/workers/{workerId}",
        "DELETE /v1/workers/{workerId}",
        "GET /v1/queues/{stageType}/depth",
        f"GET {task}/attempts",
        f"GET {job}/history",
        f"GET {stage}/history",
        f"GET {task}/history",
        "GET /readiness",
        "GET /metrics",
        "POST /v1/tokens",
        "GET /v1/tokens",
        "GET /v1/tokens/{tokenId}",
        "POST /v1/tokens/{tokenId}/rotate",
        "POST /v1/tokens/{tokenId}/revoke",
        "GET /v1/retention",
        "PUT /v1/retention",
    }
    report = document["paths"]["/v1/tasks/{taskId}/status"]["put"]["responses"]
    assert set(report) == {"200", "400", "401", "403", "404", "409", "413", "415", "500", "503"}
    assert "HTTPValidationError" not in str(document)
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    keyed = {operation["operationId"] for operation in operations if "422" in operation["responses"]}
    assert keyed == {"create_job", "add_stage", "add_tasks"}


async def test_the_docs_page_needs_no_other_server(client: Client) -> None:
    """/docs loads its scripts and styles from the manager itself."""
    page = (await client.http.get("/docs")).text
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(links) >= 2
    for link in links:
        assert link.startswith("/")
        assert (await client.http.get(link)).status_code == 200


@pytest.mark.timeout(180)  # starts four managers, each with its own PostgreSQL
async def test_a_killed_manager_restarts_without_data_loss(open_folder: Path) -> None:
    """With only a data folder, the manager starts its own PostgreSQL, and after kill -9 no data is lost."""
    with ManagerProcess("--data-dir", open_folder) as first:
        async with httpx2.AsyncClient(base_url=first.url) as http:
            client = Client(http)
            job = await client.job()
            await client.tasks(await client.stage(job, "kept"), 2)
            task = await client.claimed("kept")
        first.process.kill()
        first.process.wait()
    with ManagerProcess("--data-dir", open_folder) as second:
        async with httpx2.AsyncClient(base_url=second.url) as http:
            client = Client(http)
            await client.settle(task)
            await client.settle(await client.claimed("kept"))
            assert await client.status(job) == "COMPLETED"
        assert second.stop() == 0
    assert not (open_folder / "postmaster.pid").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_the_manager(start_manager: Callable[..., ManagerProcess], number: signal.Signals) -> None:
    """The exit code is 0, and the log records the stop."""
    manager = start_manager()
    manager.process.send_signal(number)
    assert manager.process.wait(20) == 0
    manager.stop()
    assert "manager has stopped" in manager.log


def test_a_used_port_is_a_clear_error(start_manager: Callable[..., ManagerProcess], database_url: str) -> None:
    """The message gives the cause and the remedy, without a traceback."""
    port = start_manager().url.rpartition(":")[2]
    with pytest.raises(RuntimeError) as caught, ManagerProcess("--database-url", database_url, "--port", port):
        pass
    assert "Choose another port with --port" in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "eighty"], "--port or JOBNIK_MANAGER_PORT"),
        (["--database-url", "mysql://x"], "--database-url or JOBNIK_MANAGER_DATABASE_URL"),
        (["--database-url", "postgresql://127.0.0.1:1/none"], "Cannot use the database: 127.0.0.1:1: "),
    ],
)
def test_invalid_settings_are_clear_errors(arguments: list[str], message: str) -> None:
    """The message names the flag and the variable."""
    with pytest.raises(RuntimeError) as caught, ManagerProcess(*arguments):
        pass
    assert message in str(caught.value)
    assert "Traceback" not in str(caught.value)


def _with_wrong_password(url: str) -> str:
    return url.replace("@", "wrong@")


def _with_wrong_database(url: str) -> str:
    return f"{url.rpartition('/')[0]}/nowhere"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_with_wrong_password, "password authentication failed"),
        (_with_wrong_database, 'database "nowhere" does not exist'),
    ],
)
def test_a_refused_database_connection_is_a_clear_error(
    postgres: EmbeddedPostgres, change: Callable[[str], str], message: str
) -> None:
    """The message is the database server's own, after its address, without a traceback."""
    with pytest.raises(RuntimeError) as caught, ManagerProcess("--database-url", change(postgres.url)):
        pass
    address = urlsplit(postgres.url).netloc.rpartition("@")[2]
    assert f"Cannot use the database: {address}: {message}" in str(caught.value)
    assert "Traceback" not in str(caught.value)
