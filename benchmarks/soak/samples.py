"""What the soak samples: processes, tables, the write-ahead log and the durations of requests."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import asyncpg
import psutil

from benchmarks.soak.load import Load

DATABASE = """
    SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint,
        (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jobnik-manager')
"""
TABLES = """
    SELECT relname, n_dead_tup, pg_total_relation_size(relid) FROM pg_stat_user_tables WHERE schemaname = 'jobnik'
"""


@dataclass(frozen=True)
class Sample:
    """One row of the samples. Counts and rates are those of the interval since the previous sample."""

    minutes: float
    """Since the start of the soak."""
    rate: float
    """Tasks that ended per second."""
    memory: Sequence[float]
    """Resident memory of each manager, in megabytes (10^6 bytes)."""
    cpu: Sequence[float]
    """Cores that each manager uses."""
    connections: int
    """Connections of the managers to PostgreSQL."""
    dead: Mapping[str, int]
    """Dead rows, by table."""
    sizes: Mapping[str, float]
    """Megabytes with indexes, by table."""
    wal_per_task: float
    """Bytes of the write-ahead log for each task that ended."""
    milliseconds: Mapping[str, Sequence[float]]
    """The median and the 99th percentile of the duration of requests, by kind."""
    events: Mapping[str, int]
    """Numbers of events."""
    outstanding: int
    """Tasks that have been created and have not ended."""


class Sampler:
    """Takes samples.

    Args:
        connection: A connection to the managers' database.
        processes: The process ids of the managers.
        load: The load.
        file: The file to which each sample is added, as a line of JSON.
    """

    def __init__(
        self, connection: "asyncpg.Connection[asyncpg.Record]", processes: Sequence[int], load: Load, file: Path
    ) -> None:
        self._connection = connection
        self._processes = [psutil.Process(process) for process in processes]
        self._load = load
        self._file = file
        self._start = time.monotonic()
        self._wal = 0
        self._read_at = self._start
        self._events: dict[str, int] = {}

    async def start(self) -> Self:
        """Begin the first interval."""
        await self._read()
        self._start = time.monotonic()
        return self

    async def take(self) -> Sample:
        """End an interval and begin the next one."""
        events_before, wal_before, began = self._events, self._wal, self._read_at
        cpu, connections = await self._read()
        tables = await self._connection.fetch(TABLES)
        events = {name: count - events_before.get(name, 0) for name, count in self._events.items()}
        ended = events.get("tasks completed", 0) + events.get("tasks failed", 0)
        sample = Sample(
            minutes=round((time.monotonic() - self._start) / 60, 3),
            rate=ended / (self._read_at - began),
            memory=[process.memory_info().rss / 1e6 for process in self._processes],
            cpu=cpu,
            connections=connections,
            dead={name: dead for name, dead, _ in tables},
            sizes={name: size / 1e6 for name, _, size in tables},
            wal_per_task=(self._wal - wal_before) / max(ended, 1),
            milliseconds={kind: _percentiles(seconds) for kind, seconds in self._load.take().items()},
            events=events,
            outstanding=self._load.outstanding,
        )
        with self._file.open("a") as file:
            file.write(json.dumps(asdict(sample)) + "\n")
        return sample

    async def _read(self) -> tuple[list[float], int]:
        """Read the counters, and return the cores in use since the last call and the number of connections."""
        row = await self._connection.fetchrow(DATABASE)
        assert row  # noqa: S101 - one row
        self._wal, connections = row
        self._read_at = time.monotonic()
        self._events = dict(self._load.events)
        return [process.cpu_percent() / 100 for process in self._processes], connections


def read(file: Path) -> Sequence[Sample]:
    """Read the samples of a file."""
    return [Sample(**json.loads(line)) for line in file.read_text().splitlines()]


def _percentiles(seconds: Sequence[float]) -> Sequence[float]:
    """Return the median and the 99th percentile in milliseconds; 0 if there is no duration."""
    ordered = sorted(seconds) or [0.0]
    return [ordered[len(ordered) // 2] * 1000, ordered[len(ordered) * 99 // 100] * 1000]
