"""Committed leaves and sequenced leaves per second, against this disk's fdatasync."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from audit.note import Signer
from gateway.adapters.clock import SystemClock
from gateway.adapters.sql.records import open_records
from gateway.adapters.sql.schema import migrate
from gateway.flows.sequence import Sequence
from gateway.ledger import Ledger
from gateway.ports.records import Records, Transaction
from tests.benchmarks.measure import Side, Table, table, take_turns
from tests.fakes.lock import FakeLock
from tests.postgres import running_postgres

TENANT, ORIGIN = "acme", "lethe.test/benchmarks"
PAGE = 4096
GROUP = 64
CALLERS = 16
SYNC = "fdatasync of 4 KiB"


@dataclass(frozen=True)
class Counts:
    """How much a side does in its turn."""

    rounds: int
    singles: int
    groups: int
    queued: int


FULL = Counts(rounds=7, singles=300, groups=20, queued=2048)
QUICK = Counts(rounds=1, singles=2, groups=1, queued=5)


async def run(*, quick: bool) -> list[Table]:
    """Return a table for committing and one for sequencing."""
    counts = QUICK if quick else FULL
    notes: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lethe-bench-")))
        disk = stack.enter_context(Disk.in_(home))
        books = {"SQLite": await stack.enter_async_context(_sqlite(home))}
        try:
            server = stack.enter_context(running_postgres())
        except (pytest.skip.Exception, pytest.fail.Exception) as missing:
            notes.append(f"PostgreSQL was not measured: {missing.msg}")
        else:
            books["PostgreSQL"] = await stack.enter_async_context(_open(await server.create("bench")))
        committing: dict[str, Side] = {SYNC: lambda: disk.rate(counts.singles)}
        raw = stack.enter_context(BareSqlite.in_(home))
        committing["bare sqlite3, one row a commit"] = lambda: raw.rate(counts.singles)
        sequencing: dict[str, Side] = {SYNC: lambda: disk.rate(counts.singles)}
        for name, book in books.items():
            committing |= {
                f"{name}, one leaf a transaction": book.singles(counts.singles, 1),
                f"{name}, the same from {CALLERS} callers": book.singles(counts.singles, CALLERS),
                f"{name}, {GROUP} leaves a transaction": book.groups(counts.groups),
            }
            sequencing[f"{name}, {counts.queued} queued leaves"] = book.sequencing(counts.queued)
        for side in committing.values():
            await side()  # statements compiled, connections made
        for book in books.values():
            await book.sequence.run()
        seen = await take_turns(committing, counts.rounds)
        for book in books.values():
            await book.sequence.run()  # the queue is empty again
        seen_too = await take_turns(sequencing, counts.rounds)
    return [
        table("commit leaves, encoding included", "leaves/s", SYNC, seen, notes),
        table("sequence leaves into the tree", "leaves/s", SYNC, seen_too, notes),
    ]


@dataclass
class Disk:
    """A file that grows by 4 KiB and is synced each time."""

    descriptor: int

    @classmethod
    @contextlib.contextmanager
    def in_(cls, home: Path):
        descriptor = os.open(home / "growing", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        try:
            yield cls(descriptor)
        finally:
            os.close(descriptor)

    async def rate(self, count: int) -> float:
        block = os.urandom(PAGE)
        begun = time.perf_counter()
        for _ in range(count):
            os.write(self.descriptor, block)
            os.fdatasync(self.descriptor)
        return count / (time.perf_counter() - begun)


@dataclass
class BareSqlite:
    """One table and one index in WAL with FULL: what SQLite itself takes for a durable row."""

    connection: sqlite3.Connection
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    @classmethod
    @contextlib.contextmanager
    def in_(cls, home: Path):
        connection = sqlite3.connect(home / "bare.db", isolation_level=None)
        for statement in (
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
            "CREATE TABLE leaf (id TEXT PRIMARY KEY, line BLOB, queued_at TEXT)",
            "CREATE INDEX by_time ON leaf (queued_at)",
        ):
            connection.execute(statement)
        with contextlib.closing(connection):
            yield cls(connection)

    async def rate(self, count: int) -> float:
        line = os.urandom(300)
        begun = time.perf_counter()
        for _ in range(count):
            number = next(self.numbers)
            self.connection.execute("INSERT INTO leaf VALUES (?, ?, ?)", (f"{number:032x}", line, number))
        return count / (time.perf_counter() - begun)


@dataclass
class Book:
    """Records, and the pen and the sequencer that work on them as in the gateway."""

    records: Records
    ledger: Ledger
    sequence: Sequence

    def singles(self, count: int, callers: int) -> Side:
        """Return a side that commits leaves one by one, from so many callers at once."""

        async def side() -> float:
            each = -(-count // callers)

            async def caller() -> None:
                for _ in range(each):
                    await self.records.transact(self._write)

            begun = time.perf_counter()
            await asyncio.gather(*(caller() for _ in range(callers)))
            return each * callers / (time.perf_counter() - begun)

        return side

    def groups(self, count: int) -> Side:
        """Return a side that commits leaves sixty-four at a time."""

        async def side() -> float:
            begun = time.perf_counter()
            for _ in range(count):
                await self.records.transact(self._write_group)
            return count * GROUP / (time.perf_counter() - begun)

        return side

    def sequencing(self, count: int) -> Side:
        """Return a side that sequences so many leaves, which are queued before the clock starts."""

        async def side() -> float:
            for start in range(0, count, GROUP):
                await self.records.transact(partial(self._write_group, size=min(GROUP, count - start)))
            begun = time.perf_counter()
            moved = await self.sequence.run()
            assert moved == count
            return count / (time.perf_counter() - begun)

        return side

    def _write_group(self, tx: Transaction, size: int = GROUP) -> None:
        for _ in range(size):
            self._write(tx)

    def _write(self, tx: Transaction) -> None:
        fields = {"obj": "ab" * 16, "cat": "original", "exp": 1_800_000_000_000, "pur": "generate"}
        self.ledger.record(tx, TENANT, "object.sealed", None, **fields)


@contextlib.asynccontextmanager
async def _open(url: str) -> AsyncIterator[Book]:
    await migrate(url)
    records, clock = open_records(url), SystemClock()
    try:
        signers = {ORIGIN: (Signer(ORIGIN, os.urandom(32)),)}
        ledger = Ledger(clock, {TENANT: ORIGIN})
        yield Book(records, ledger, Sequence(records, FakeLock(), signers, clock, ledger))
    finally:
        await records.close()


def _sqlite(home: Path) -> contextlib.AbstractAsyncContextManager[Book]:
    return _open(f"sqlite://{home / 'lethe.db'}")
