"""The manager process: migrate, listen, and serve the API until a signal stops it."""

import asyncio
import errno
import gc
import os
import signal
import socket
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from typing import Any

import structlog
import uvicorn
import uvloop

from reference_manager.access.registry import CHANNEL
from reference_manager.api.app import OPEN_FOLDER, create_app
from reference_manager.api.authenticator import Authenticator
from reference_manager.api.hot_path import HotPath
from reference_manager.archive.errors import ArchiveError
from reference_manager.archive.stores import Archive, open_archive
from reference_manager.engine.engine import Engine
from reference_manager.engine.supervision import BackgroundTask
from reference_manager.server import addresses
from reference_manager.server.access import build_gate, prepare_access
from reference_manager.server.admission import Admission
from reference_manager.server.connections import Connections, fit_open_files
from reference_manager.server.errors import InvalidSettingError, StartError
from reference_manager.server.http_protocol import LimitedProtocol
from reference_manager.server.tracing import check_installed, is_tracing_enabled, tracing
from reference_manager.settings import Settings
from reference_manager.store.errors import DatabaseError
from reference_manager.store.migrate import migrate
from reference_manager.store.pool import Database
from reference_manager.store.poolers import check_pooler

log = structlog.stdlib.get_logger(__name__)

KEEP_ALIVE = 75
"""Seconds that an idle connection stays open. Clients close theirs sooner, so they never reuse a closed connection."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
YOUNG_OBJECTS = 50_000
"""How many new objects trigger a garbage collection. Hardly any request leaves objects behind that need one."""
ANSWER_TIME = 0.5
"""Seconds between refusing the requests whose bodies wait for the parser and closing the connections."""
DISCONNECT_TIME = 0.1
"""Seconds between closing the connections and cancelling their requests, which first notice the disconnection."""


class _Server(uvicorn.Server):
    """A uvicorn server with callbacks at start and stop. Signals are handled by the process, which has more to stop."""

    def __init__(  # noqa: PLR0913 - a callback for each step
        self,
        config: uvicorn.Config,
        connections: Connections,
        shutdown_timeout: timedelta,
        *,
        on_ready: Callable[[], None],
        on_stop: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._connections = connections
        self._shutdown_timeout = shutdown_timeout
        self._on_ready = on_ready
        self._on_stop = on_stop
        self._on_end = on_end

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stop()
        timer = asyncio.get_running_loop().call_later(self._shutdown_timeout.total_seconds(), self._end)
        await super().shutdown(sockets)
        timer.cancel()

    def stop(self) -> None:
        """Stop. The second call does not wait for requests in progress."""
        if self.should_exit:
            self._end()
        self.should_exit = True

    def _end(self) -> None:
        self._on_end()
        asyncio.get_running_loop().call_later(ANSWER_TIME, self._disconnect)

    def _disconnect(self) -> None:
        self._connections.abort()
        asyncio.get_running_loop().call_later(DISCONNECT_TIME, self._cancel_requests)

    def _cancel_requests(self) -> None:
        if tasks := self.server_state.tasks:
            log.warning("requests cancelled: the manager stops", requests=len(tasks))
        for task in tasks:
            task.cancel()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


async def prepare(database_url: str) -> None:
    """Migrate the database to the schema of this version.

    Raises:
        StartError: The database cannot be used.
    """
    try:
        await check_pooler(database_url)
        await migrate(database_url)
    except DatabaseError as error:
        raise StartError(f"Cannot use the database: {error}") from error


def serve(settings: Settings, database_url: str, paths: Mapping[str, str]) -> None:
    """Migrate, listen, and serve until SIGINT or SIGTERM. A second signal does not wait for requests in progress.

    Args:
        settings: The settings of this manager.
        database_url: The database: the embedded one, or that of the settings.
        paths: Paths to add to the log line "manager is ready", by field.

    Raises:
        StartError: The port is taken, or the database cannot be used.
        InvalidSettingError: The address does not exist on this machine, or other machines would have full access.
    """
    check_installed(os.environ)
    traced = is_tracing_enabled(settings.tracing_enabled, settings.tracing_url, os.environ)
    with (
        _listen(settings) as listener,
        tracing(settings.tracing_url) if traced else nullcontext(),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_serve(settings, database_url, paths, listener, traced=traced))


def tune_garbage_collection() -> None:
    """Exclude everything loaded so far from garbage collections. Examining it would stop all requests for 50 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


def _listen(settings: Settings) -> socket.socket:
    try:
        return addresses.listen(settings.host, settings.port)
    except OSError as error:
        where = f"Cannot listen on {settings.host!r}, port {settings.port}: {error.strerror}."
        if error.errno == errno.EADDRINUSE:
            raise StartError(f"{where} Choose another port with --port (0 picks a free one).") from error
        raise InvalidSettingError(f"{where} Correct --host or --port.") from error


def _open_archive(settings: Settings) -> Archive | None:
    try:
        return open_archive(settings.archive_url) if settings.archive_url else None
    except ArchiveError as error:
        raise InvalidSettingError(f"Cannot use the archive: {error}. Correct --archive-url.") from error


async def _serve(
    settings: Settings, url: str, paths: Mapping[str, str], listener: socket.socket, *, traced: bool
) -> None:
    await prepare(url)
    async with Database.connect(
        url,
        connections=settings.database_connections,
        acquire_timeout=settings.database_timeout,
        part_a_only=settings.part_a_only,
    ) as database:
        gate = build_gate(database)
        registry = gate.registry
        await prepare_access(settings, database, registry, listener.getsockname()[0])
        reader = BackgroundTask("reader of tokens", registry.run)
        archive = _open_archive(settings)
        engine = Engine(database, stale_after=settings.task_stale_after, archive=archive, others=[reader])
        engine.notifications.listen_to(CHANNEL, registry.notify)
        api = create_app(
            engine,
            gate,
            body_limit=settings.body_limit,
            part_a_only=settings.part_a_only,
            metrics_open=settings.metrics_open,
        )
        app: Any = api
        limit = fit_open_files(settings.connection_limit, settings.database_connections)
        connections = Connections(limit, settings.client_timeout)
        if not (traced or settings.part_a_only):
            # The hot path bypasses the framework, which creates the spans of requests and the messages of part A.
            app = HotPath(app, engine, gate, body_limit=settings.body_limit)
        app = Authenticator(app, gate, api.state.open_paths, [OPEN_FOLDER])
        protocol: Any = partial(LimitedProtocol, connections)
        config = uvicorn.Config(
            Admission(app),
            lifespan="off",
            http=protocol,
            proxy_headers=False,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
        )
        base = addresses.url(settings.host, listener.getsockname()[1])
        ready = partial(
            log.info,
            "manager is ready",
            url=base,
            api_page=f"{base}/docs",
            access="tokens" if registry.closed else "open",
            version=version("jobnik-reference-manager"),
            **paths,
        )
        server = _Server(
            config,
            connections,
            settings.shutdown_timeout,
            on_ready=ready,
            on_stop=engine.queue.close,
            on_end=api.state.bodies.close,
        )
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, server.stop)
        tune_garbage_collection()
        background = [asyncio.create_task(engine.run()), asyncio.create_task(connections.watch())]
        try:
            await server.serve([listener])
        finally:
            api.state.bodies.close()
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            for number in STOP_SIGNALS:
                # Otherwise, another signal would kill the process before it has stopped everything.
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)
        log.info("manager has stopped")
