"""One trace from the producer of a job, through the manager, to the handlers of its tasks."""

import io
import json
import logging
from collections.abc import Callable, Iterator

import pytest
from jobnik_sdk import (
    Handler,
    JobnikClient,
    JobType,
    Producer,
    QueueEmpty,
    StageType,
    TaskCompleted,
    TaskContext,
    Worker,
    configure_logging,
)
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel

from tests.support.collector import Collector
from tools.manager import ManagerProcess

Start = Callable[..., ManagerProcess]


class Word(BaseModel):
    """The data of a task."""

    text: str


JOB, WORDS = JobType("essay"), StageType("words", task=Word)


class Recorder:
    """The spans of this process, which is both producer and worker."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("tests")

    def named(self, name: str) -> list[ReadableSpan]:
        """Return the finished spans with this name, in order."""
        return [span for span in self._exporter.get_finished_spans() if span.name == name]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """A tracer provider that records spans in memory."""
    recorder = Recorder()
    monkeypatch.setattr(otel, "get_tracer_provider", lambda: recorder.provider)
    yield recorder
    recorder.provider.shutdown()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """The collector that receives the spans of the manager."""
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield collector


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """The log lines, in the format of a service."""
    written = io.StringIO()
    root = logging.getLogger()
    before = root.handlers, root.level
    monkeypatch.setattr("sys.stdout", written)
    configure_logging("INFO")
    yield written
    root.handlers, root.level = before


async def test_job_is_one_trace(
    recorder: Recorder, collector: Collector, lines: io.StringIO, start_manager: Start
) -> None:
    """The spans of producer, manager and worker, those of the handler, and the log lines belong to one trace."""

    async def count(task: Word, context: TaskContext) -> None:
        with recorder.tracer.start_as_current_span("look up"):
            context.logger.info("counted", letters=len(task.text))

    def listen(event: object) -> None:
        if isinstance(event, TaskCompleted):
            worker.stop()
        assert not isinstance(event, QueueEmpty)

    async with JobnikClient(start_manager().url) as client:
        producer = Producer(client)
        with recorder.tracer.start_as_current_span("upload") as upload:
            job = await producer.create_job(JOB)
            stage = await producer.create_stage(job, WORDS)
            await producer.create_tasks(stage, WORDS, [Word(text="abc")])
        worker = Worker(client, [Handler(WORDS, count)], listeners=[listen])
        await worker.run()

    trace_id = upload.get_span_context().trace_id
    process, look_up, receive, settle = (
        recorder.named(name)[0] for name in ("process words", "look up", "receive words", "settle words")
    )
    assert process.context is not None
    assert look_up.parent is not None
    assert [span.context and span.context.trace_id for span in (process, look_up, settle)] == [trace_id] * 3
    assert look_up.parent.span_id == process.context.span_id
    assert [link.context.trace_id for link in (*process.links, *receive.links, *settle.links)] == [trace_id] * 3

    routes = ("POST /v1/jobs", "POST /v1/jobs/{jobId}/stage", "POST /v1/stages/{stageId}/tasks")
    requests = [await collector.named(route) for route in routes]
    assert {span.trace_id for span in requests} == {f"{trace_id:032x}"}
    assert (await collector.named("POST /v1/tasks/settle")).trace_id == f"{trace_id:032x}"

    logged = {line["event"]: line for line in map(json.loads, lines.getvalue().splitlines())}
    for event in ("counted", "task completed"):
        ids = {name: logged[event][name] for name in ("job_id", "stage_id", "stage_type", "attempt")}
        assert ids == {"job_id": str(job.id), "stage_id": str(stage.id), "stage_type": "words", "attempt": 1}
        assert logged[event]["task_id"]
    assert logged["task completed"]["trace_id"] == f"{trace_id:032x}"
    assert logged["task completed"]["span_id"] == f"{process.context.span_id:016x}"
