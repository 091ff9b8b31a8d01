"""How late a key dies after the end of its object's term, where a thousand terms end each second."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.objects_local import FileObjects
from gateway.adapters.sql.records import open_records
from gateway.adapters.sql.schema import migrate
from gateway.debts import Debts
from gateway.flows.sweep import Sweep
from gateway.judge import Judge
from gateway.ledger import Ledger
from gateway.ports.records import Leaf, Records, StoredObject, Transaction
from tests.benchmarks.measure import Row, Spread, Table
from tests.fakes.keys import FakeKeys
from tests.postgres import running_postgres

TENANT, ORIGIN = "acme", "lethe.test/benchmarks"
EVERY_S = 5.0
"""As in the gateway (`compose.EXPIRE_S`)."""

CHUNK = 500
WINDOWS = 5
PAUSE = "pause between two looks"


@dataclass(frozen=True)
class Offer:
    """So many terms end in each second, for so many seconds; the sweeper comes that often."""

    per_s: int
    seconds: int
    every_s: float


FULL = Offer(per_s=1000, seconds=60, every_s=EVERY_S)
QUICK = Offer(per_s=50, seconds=1, every_s=0.2)


async def run(*, quick: bool) -> list[Table]:
    """Return a table of lateness, in seconds from the promised end to the leaf `object.destroyed`."""
    offer = QUICK if quick else FULL
    notes = [f"{offer.per_s} terms end each second for {offer.seconds} s, in {WINDOWS} windows"]
    rows = [Row(PAUSE, Spread.of([offer.every_s]), None)]
    async with contextlib.AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lethe-bench-")))
        urls = {"SQLite": f"sqlite://{home / 'lethe.db'}"}
        try:
            server = stack.enter_context(running_postgres())
        except (pytest.skip.Exception, pytest.fail.Exception) as missing:
            notes.append(f"PostgreSQL was not measured: {missing.msg}")
        else:
            urls["PostgreSQL"] = await server.create("sweep")
        for name, url in urls.items():
            async with _swept(url, home / name) as (records, sweep):
                rows += await _measure(name, records, sweep, offer, notes)
    return [Table("how late keys are destroyed", "s", PAUSE, rows, notes)]


async def _measure(name: str, records: Records, sweep: Sweep, offer: Offer, notes: list[str]) -> list[Row]:
    """Let terms end while the sweeper comes, and return how late each key died."""
    total = offer.per_s * offer.seconds
    # Rows are made before the first term ends: making them is not what is measured.
    lead = timedelta(seconds=1 + total / 2000)
    first = datetime.now(UTC) + lead
    for start in range(0, total, CHUNK):
        some = range(start, min(start + CHUNK, total))
        await records.transact(partial(_store, first=first, numbers=some, per_s=offer.per_s))
    if first < datetime.now(UTC):
        notes.append(f"{name}: rows took longer to make than planned, so the first terms were over at once")
    await asyncio.sleep(max(0.0, (first - datetime.now(UTC)).total_seconds()))
    destroyed, busy = 0, 0.0
    while destroyed < total:
        begun = time.perf_counter()
        destroyed += await sweep.expire()
        spent = time.perf_counter() - begun
        busy += spent
        await asyncio.sleep(max(0.0, offer.every_s - spent))
    begun = time.perf_counter()
    await sweep.run()
    reaping = time.perf_counter() - begun
    notes.append(
        f"{name}: {total / busy:.0f} keys a second of work; rows without bytes: {total / reaping:.0f}/s"
    )
    late = await _lateness(records, first, offer.per_s)
    assert len(late) == total
    late.sort()  # by when the term ended
    size = len(late) // WINDOWS
    windows = [[spent for _, spent in late[at * size : (at + 1) * size]] for at in range(WINDOWS)]
    return [
        _told(f"{name}, {label}", [statistics.quantiles(one, n=100)[cut] for one in windows], offer)
        for label, cut in (("p50", 49), ("p99", 98))
    ]


def _told(name: str, values: list[float], offer: Offer) -> Row:
    return Row(name, Spread.of(values), Spread.of([value / offer.every_s for value in values]))


def _store(tx: Transaction, first: datetime, numbers: range, per_s: int) -> None:
    tx.add(*(_row(number, first + timedelta(seconds=number / per_s)) for number in numbers))


def _row(number: int, end: datetime) -> StoredObject:
    return StoredObject(
        object_id=f"{number:032x}",
        tenant=TENANT,
        handle=f"{number % 1000:064x}",
        key_id=f"{number % 1000:032x}",
        job_id=f"{number:032x}",
        kind="output",
        purpose="generate",
        image_type="jpeg",
        width=64,
        height=80,
        size_bytes=1 << 16,
        wrapped_dek=os.urandom(60),
        state="live",
        created_at=end - timedelta(days=30),
        expires_at=end,
    )


async def _lateness(records: Records, first: datetime, per_s: int) -> list[tuple[int, float]]:
    """Return each object's number, and how long after its end its key died by the log, in seconds."""
    found: list[tuple[int, float]] = []
    after = ""
    while rows := await records.transact(partial(_ends, after=after)):
        for leaf in rows:
            number = int(leaf.line.partition(b'"obj":"')[2][:32], 16)
            end = first + timedelta(seconds=number / per_s)
            found.append((number, (leaf.queued_at - end).total_seconds()))
        after = rows[-1].event_id
    return found


def _ends(tx: Transaction, after: str) -> list[Leaf]:
    return tx.find(
        Leaf, equal={"ty": "object.destroyed"}, above={"event_id": after}, order_by=("event_id",), limit=5000
    )


@contextlib.asynccontextmanager
async def _swept(url: str, folder: Path) -> AsyncIterator[tuple[Records, Sweep]]:
    await migrate(url)
    await asyncio.to_thread(folder.mkdir, mode=0o700)
    records, clock = open_records(url), SystemClock()
    ledger = Ledger(clock, {TENANT: ORIGIN})
    objects = FileObjects(folder, reserve_bytes=0)
    try:
        judge, debts = Judge({}, {}, ledger), Debts(records, clock, 12)
        yield records, Sweep(records, objects, ledger, clock, timedelta(minutes=10), FakeKeys(), judge, debts)
    finally:
        await records.close()
