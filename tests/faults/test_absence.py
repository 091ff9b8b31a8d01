"""Something is hidden from an erasure: no certificate comes, its place is named; once repaired, it comes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest

from gateway import compose
from gateway.adapters.sql.records import open_records, sqlite_path
from gateway.adapters.sql.schema import migrate
from gateway.errors import LetheError, StoreUnavailable
from gateway.flows.dsr import DsrDraft
from gateway.flows.erasure import NOTES
from gateway.ports.keys import Epoch
from gateway.ports.records import (
    Certificate,
    Consent,
    Dsr,
    Records,
    StoredObject,
    Subject,
    SubjectKey,
    Transaction,
    kinds,
)
from gateway.vault.keys import KeyCache
from tests import invariants
from tests.doors import When, around
from tests.fakes.keys import FakeKeys
from tests.fakes.records import MemoryRecords
from tests.postgres import Postgres
from tests.world import LEASE, OFFICER, SECOND, TENANT, World

R = TypeVar("R")


class LyingKeys(FakeKeys):
    """Says that it destroyed an epoch, or put up a fence, and did not, while `lies`."""

    lies = False
    forgets_fences = False

    async def destroy_epoch(self, epoch: Epoch) -> None:
        if not self.lies:
            await super().destroy_epoch(epoch)

    async def fence(self, handle: str) -> None:
        if not self.forgets_fences:
            await super().fence(handle)


class StubbornCache(KeyCache):
    """Keeps what it is to drop, while `stays`."""

    stays = True

    def evict(self, handle: str) -> None:
        if not self.stays:
            super().evict(handle)


@dataclass
class Yard:
    """A world over memory, SQLite or PostgreSQL, and what was said of it."""

    w: World
    records: Records
    raw: Callable[[str], Awaitable[None]]
    blob: tuple[str, str] = ("", "")
    """How bytes are written in SQL, and the type of their column."""
    alarms: list[tuple[str, ...]] = field(default_factory=list)
    flows: compose.Flows = field(init=False)

    def __post_init__(self) -> None:
        self.w.keys = LyingKeys()
        self.w.outside = replace(self.w.outside, records=self.records, keys=self.w.keys)
        self.flows = self.process()

    def process(self) -> compose.Flows:
        made = compose.flows(
            self.w.settings,
            around(self.w.outside, self.w.trip),
            self.w.signers,
            lambda name, *places: self.alarms.append((name, *places)),
        )
        made.backends.known["studio"] = self.w.backend.facts
        self.w.flows = made
        return made

    @property
    def keys(self) -> LyingKeys:
        assert isinstance(self.w.keys, LyingKeys)
        return self.w.keys

    async def rows(self) -> invariants.Rows:
        return await self.records.transact(invariants.everything)

    async def approved(self, subject: str) -> str:
        opened, _ = await self.flows.dsrs.create(OFFICER, DsrDraft(subject, "erasure"))
        seen = await self.flows.dsrs.preview(SECOND, opened.dsr_id)
        await self.flows.dsrs.approve(SECOND, opened.dsr_id, seen.etag)
        return opened.dsr_id

    async def dsr(self, dsr_id: str) -> Dsr:
        found = await self.records.transact(lambda tx: tx.get(Dsr, dsr_id))
        assert found is not None
        return found

    async def found(self) -> list[list[str]]:
        return [event["where"] for event in invariants.events(await self.rows())["erasure.incomplete"]]

    async def refused(self, dsr_id: str, where: set[str], named: set[str] | None = None) -> None:
        """The request is not fulfilled, and whoever should know where it stands does."""
        dsr = await self.dsr(dsr_id)
        assert (dsr.state, dsr.reason_code, dsr.certificate_id) == ("running", "ERASURE_INCOMPLETE", "")
        assert await self.found() == [sorted(where)]
        assert set(self.alarms) == {("erasure_incomplete", *sorted(named or where))}
        assert (await self.rows())[Certificate] == []
        said = json.dumps([str(self.alarms), str(await self.found()), dict(dsr.counts)])
        assert await self.w.handle("ann") not in said

    async def certified(self, dsr_id: str) -> None:
        dsr = await self.dsr(dsr_id)
        assert (dsr.state, dsr.reason_code) == ("fulfilled", "")
        assert NOTES.isdisjoint(dsr.counts)
        rows = await self.rows()
        invariants.check(rows)
        handle = await self.w.handle("ann")
        invariants.check_gone(rows, handle)
        assert frozenset() == (await self.records.search([handle.encode(), bytes.fromhex(handle)])).seen
        invariants.check_bytes(rows, self.w.objects.held)
        (certificate,) = [c for c in rows[Certificate] if c.dsr_id == dsr_id]
        searched = json.loads(json.loads(certificate.opening)["payload"])["searched"]
        assert searched["tables"] >= len(list(kinds()))
        assert (searched["objects"], searched["found"]) == (2, 0)
        assert searched["epochs"] >= 3

    async def later(self, times: int = 1) -> None:
        for _ in range(times):
            self.w.clock.advance(timedelta(hours=2))
            await self.w.carry_out()


@pytest.fixture(scope="module")
def postgres_url(postgres: Postgres) -> str:
    return _elsewhere(lambda: _prepared(postgres))


async def _prepared(server: Postgres) -> str:
    url = await server.create("absence")
    await migrate(url)
    return url


def _elsewhere(work: Callable[[], Coroutine[Any, Any, R]]) -> R:
    """Run `work` on a loop in another thread: a fixture may be asked for while a test's loop runs."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(work())).result()


@pytest.fixture(scope="module")
def sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("absence") / "lethe.db"
    _elsewhere(lambda: migrate(f"sqlite://{path}"))
    return path


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def yard(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Yard]:
    """Ann and Bob consented, and each has a portrait."""
    if request.param == "memory":
        memory = MemoryRecords()
        made = Yard(World(), memory, _nowhere)
    elif request.param == "sqlite":
        url = f"sqlite://{shutil.copy(request.getfixturevalue('sqlite_file'), tmp_path / 'lethe.db')}"
        made = Yard(
            World(), open_records(url), lambda sql: asyncio.to_thread(_on_sqlite, url, sql), ("X'{}'", "BLOB")
        )
    else:
        url = request.getfixturevalue("postgres_url")
        made = Yard(World(), open_records(url), lambda sql: _on_postgres(url, sql), ("'\\x{}'", "bytea"))
    await made.w.ready("ann", "bob")
    for subject in ("ann", "bob"):
        await made.w.upload(subject)
        await made.w.work()
    try:
        yield made
    finally:
        if request.param == "postgres":
            await made.records.transact(_forget_all)
        await made.records.close()


async def _nowhere(_sql: str) -> None:
    raise NotImplementedError


def _on_sqlite(url: str, sql: str) -> None:
    with contextlib.closing(sqlite3.connect(sqlite_path(url), isolation_level=None)) as connection:
        connection.execute(sql)


async def _on_postgres(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def _forget_all(tx: Transaction) -> None:
    for kind in kinds():
        tx.remove(*tx.find(kind))


def _all_of(tx: Transaction, kind: Any, handle: str) -> list[Any]:
    return tx.find(kind, equal={"tenant": TENANT, "handle": handle})


async def respell(yard: Yard, kind: Any, handle: str) -> None:
    """Write the handle in capitals, so that nobody finds the rows by it."""

    def write(tx: Transaction) -> None:
        tx.put(*(replace(row, handle=handle.upper()) for row in _all_of(tx, kind, handle)))

    await yard.records.transact(write)


async def test_without_a_fault_the_certificate_says_what_was_searched(yard: Yard) -> None:
    dsr_id = await yard.approved("ann")
    await yard.w.carry_out()
    await yard.certified(dsr_id)
    assert [] == await yard.found() == yard.alarms


async def test_an_object_under_another_spelling_of_the_handle_is_found_and_then_removed(yard: Yard) -> None:
    await respell(yard, StoredObject, await yard.w.handle("ann"))
    dsr_id = await yard.approved("ann")
    await yard.w.carry_out()
    await yard.refused(dsr_id, {"object_store", "stored_object"})
    await yard.later()
    await yard.certified(dsr_id)


async def test_an_object_whose_row_was_lost_is_found_through_the_log_and_then_removed(yard: Yard) -> None:
    handle = await yard.w.handle("ann")
    await yard.records.transact(lambda tx: tx.remove(*_all_of(tx, StoredObject, handle)))
    dsr_id = await yard.approved("ann")
    await yard.w.carry_out()
    await yard.refused(dsr_id, {"object_store"})
    await yard.later()
    await yard.certified(dsr_id)


@pytest.mark.parametrize("spelling", ["text", "capitals", "bytes"])
async def test_a_table_that_nobody_knows_is_searched(yard: Yard, spelling: str) -> None:
    """What it is called is told to operators, and not to the log, which is for ever."""
    handle = await yard.w.handle("ann")
    is_memory = isinstance(yard.records, MemoryRecords)
    if is_memory:
        forms = {"text": handle.encode(), "capitals": handle.upper().encode(), "bytes": bytes.fromhex(handle)}
        yard.records.unlisted["old_copy"] = [b"x" + forms[spelling]]  # type: ignore[attr-defined]  # seen above
    else:
        form, kind = yard.blob
        values = {"text": f"'{handle}'", "capitals": f"'{handle.upper()}'", "bytes": form.format(handle)}
        await yard.raw(f"CREATE TABLE old_copy (a integer, b {kind if spelling == 'bytes' else 'text'})")
        await yard.raw(f"INSERT INTO old_copy VALUES (1, {values[spelling]})")  # noqa: S608 - a test's own
    try:
        dsr_id = await yard.approved("ann")
        await yard.w.carry_out()
        await yard.refused(dsr_id, {"other_table"}, {"old_copy"})
        await yard.later(times=3)
        await yard.refused(dsr_id, {"other_table"}, {"old_copy"})
        assert len(yard.alarms) == 4
    finally:
        if is_memory:
            yard.records.unlisted.clear()  # type: ignore[attr-defined]  # likewise
        else:
            await yard.raw("DROP TABLE old_copy")
    await yard.later()
    await yard.certified(dsr_id)


async def test_a_row_that_no_step_can_reach_waits_for_a_person(yard: Yard) -> None:
    handle = await yard.w.handle("ann")
    await respell(yard, Consent, handle)
    dsr_id = await yard.approved("ann")
    await yard.w.carry_out()
    await yard.refused(dsr_id, {"consent"})
    await yard.later(times=2)
    await yard.refused(dsr_id, {"consent"})

    def mend(tx: Transaction) -> None:
        tx.put(*(replace(row, handle=handle) for row in _all_of(tx, Consent, handle.upper())))

    await yard.records.transact(mend)
    # The row never went through (1), so its withdrawal has no leaf; here only its handle is of interest.
    await yard.later()
    assert (await yard.dsr(dsr_id)).state == "fulfilled"
    invariants.check_gone(await yard.rows(), handle)


async def test_an_epoch_that_was_said_to_be_destroyed_and_stands_is_found(yard: Yard) -> None:
    yard.keys.lies = True
    dsr_id = await yard.approved("ann")
    await yard.w.carry_out()
    await yard.refused(dsr_id, {"epoch_key"})
    yard.keys.lies = False
    await yard.later()
    await yard.certified(dsr_id)


async def test_a_fence_that_was_said_to_be_up_and_is_not_is_found_and_put_up_again(yard: Yard) -> None:
    yard.keys.forgets_fences = True
    dsr_id = await yard.approved("ann")
    await yard.w.carry_out()
    await yard.refused(dsr_id, {"fence"})
    yard.keys.forgets_fences = False
    await yard.later()
    await yard.certified(dsr_id)


async def test_a_cache_that_kept_a_key_is_found(yard: Yard) -> None:
    cache = StubbornCache(16, timedelta(days=1), yard.w.clock)
    handle = await yard.w.handle("ann")
    (key, *_) = await yard.records.transact(lambda tx: _all_of(tx, SubjectKey, handle))
    cache.put(key.key_id, handle, bytes(32))
    erasure = yard.flows.erasure
    stubborn = replace(
        erasure,
        custody=replace(erasure.custody, cache=cache),
        absence=replace(erasure.absence, cache=cache),
    )
    yard.w.flows = replace(yard.flows, erasure=stubborn)
    dsr_id = await yard.approved("ann")
    await yard.w.carry_out()
    await yard.refused(dsr_id, {"key_cache"})
    cache.stays = False
    await yard.later()
    await yard.certified(dsr_id)


async def test_another_set_of_places_is_another_event_and_the_same_is_not(yard: Yard) -> None:
    yard.keys.lies = yard.keys.forgets_fences = True
    dsr_id = await yard.approved("ann")
    await yard.w.carry_out()
    await yard.later(times=2)
    yard.keys.lies = False
    await yard.later(times=2)
    assert sorted(await yard.found()) == [["epoch_key", "fence"], ["fence"]]
    yard.keys.forgets_fences = False
    await yard.later()
    await yard.certified(dsr_id)


async def test_it_is_tried_again_after_a_pause_that_grows(yard: Yard) -> None:
    yard.keys.lies = True
    await yard.approved("ann")
    await yard.w.carry_out()
    for pause in (LEASE, LEASE * 2, LEASE * 4):
        tried = len(yard.alarms)
        yard.w.clock.advance(pause - timedelta(seconds=1))
        await yard.w.carry_out()
        assert len(yard.alarms) == tried
        yard.w.clock.advance(timedelta(seconds=1))
        await yard.w.carry_out()
        assert len(yard.alarms) == tried + 1


async def test_another_request_of_the_same_subject_gets_no_certificate_before(yard: Yard) -> None:
    """It has no handle any more, so that it could not look for itself."""
    yard.keys.lies = True
    # Both arrived at the same instant: then the id says which is carried out first.
    first, second = sorted([await yard.approved("ann"), await yard.approved("ann")])
    await yard.w.carry_out()
    await yard.later()
    assert [(await yard.dsr(one)).state for one in (first, second)] == ["running", "running"]
    yard.keys.lies = False
    await yard.later(times=2)
    await yard.certified(first)
    assert (await yard.dsr(second)).state == "fulfilled"


async def test_what_is_looked_for_survives_a_restart_and_is_not_found_itself(yard: Yard) -> None:
    """Between (2) and the certificate the handle lies nowhere in clear."""
    yard.keys.lies = True
    dsr_id = await yard.approved("ann")
    await yard.w.carry_out()
    handle = await yard.w.handle("ann")
    assert frozenset() == (await yard.records.search([handle.encode(), bytes.fromhex(handle)])).seen
    assert "sought" in (await yard.dsr(dsr_id)).counts
    yard.process()
    await respell(yard, Subject, handle)  # nothing is there any more
    await yard.later()
    assert await yard.found() == [["epoch_key"]]
    yard.keys.lies = False
    yard.process()
    await yard.later()
    await yard.certified(dsr_id)


async def test_many_erasures_beside_the_traffic_of_others_raise_no_false_alarm(yard: Yard) -> None:
    going = [f"going-{number}" for number in range(6)]
    for subject in going:
        await yard.w.know(subject)
        await yard.w.consent(subject)
        await yard.w.upload(subject)
    await yard.w.work()
    requests = [await yard.approved(subject) for subject in going]

    async def traffic(number: int) -> None:
        for turn in range(3):
            await yard.w.know(f"guest-{number}-{turn}")
            await yard.w.consent(f"guest-{number}-{turn}")
            await yard.w.upload(f"guest-{number}-{turn}")
            await yard.flows.generate.run_one()
            with contextlib.suppress(LetheError):  # who is being erased gets nothing, and leaves nothing
                await yard.w.upload(going[number])

    # A database may say that there were too many conflicts; who is refused tries again.
    work = (yard.w.carry_out(), yard.w.carry_out(), *map(traffic, range(4)))
    faults = await asyncio.gather(*work, return_exceptions=True)
    assert all(fault is None or isinstance(fault, LetheError) for fault in faults), faults
    for _ in range(4):
        with contextlib.suppress(StoreUnavailable):
            await yard.later()
    assert {(await yard.dsr(one)).state for one in requests} == {"fulfilled"}
    assert [] == yard.alarms == await yard.found()


class Dies(Exception):
    """The process ends here."""


@pytest.mark.parametrize("when", ["before", "after"])
async def test_killed_at_any_call_the_hidden_object_is_still_found_before_the_certificate(when: When) -> None:
    async def hidden() -> tuple[Yard, str]:
        made = Yard(World(), MemoryRecords(), _nowhere)
        await made.w.ready("ann", "bob")
        await made.w.upload("ann")
        await made.w.work()
        handle = await made.w.handle("ann")
        await made.records.transact(lambda tx: tx.remove(*_all_of(tx, StoredObject, handle)))
        dsr_id = await made.approved("ann")
        made.w.trip.calls.clear()
        return made, dsr_id

    smooth, dsr_id = await hidden()
    await smooth.w.carry_out()
    await smooth.later()
    await smooth.certified(dsr_id)

    def die(_point: str) -> None:
        raise Dies

    calls = list(smooth.w.trip.calls)
    for at, point in [(at, point) for at, point in enumerate(calls) if point not in calls[:at]]:
        made, dsr_id = await hidden()
        made.w.trip.do(at, when, die)
        with contextlib.suppress(Dies):
            await made.w.carry_out()
            await made.later()
        made.process()
        await made.later(times=3)
        try:
            await made.certified(dsr_id)
            assert await made.found() == [["object_store"]]
        except AssertionError as fault:
            raise AssertionError(f"{at}: {point} {when}") from fault
