"""The same questions to every implementation of the records: in memory, SQLite, PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import random
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Boolean, Connection, LargeBinary, event

from gateway.adapters.disk import Reserve, free_bytes
from gateway.adapters.sql.postgres import PostgresDatabase, PostgresLimits
from gateway.adapters.sql.records import open_database, open_records, sqlite_path
from gateway.adapters.sql.registry import MAPPED, ROWS
from gateway.adapters.sql.schema import SchemaMismatch, migrate
from gateway.adapters.sql.table import NAMES, Table
from gateway.adapters.sql.types import Instant, JsonList, JsonMapping, Whole, Words
from gateway.errors import DiskReserve, StoreUnavailable
from gateway.ports import records as port
from gateway.ports.records import (
    SUBJECT_TABLES,
    Checkpoint,
    ClosedEpoch,
    Consent,
    Dsr,
    Duplicate,
    Job,
    Leaf,
    Missing,
    Notice,
    PackText,
    Record,
    Records,
    Signal,
    SubjectKey,
    Tile,
    Transaction,
)
from tests.fakes.records import KEYS, UNIQUE, MemoryRecords
from tests.needs import missing
from tests.postgres import Postgres, running_postgres

T = TypeVar("T")

KINDS = [
    thing
    for thing in vars(port).values()
    if isinstance(thing, type) and issubclass(thing, Record) and thing is not Record
]

NOON = datetime(2026, 3, 4, 12, 0, 0, 123457, tzinfo=UTC)
BOTH = ["sqlite", "postgres"]
ALL = ["memory", *BOTH]


# --- what is asked ---------------------------------------------------------------------------


@dataclass
class Place:
    """Records somewhere, and how that place is broken and mended."""

    records: Records
    stop: Callable[[], None]
    start: Callable[[], None]
    name: str
    url: str = ""


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    with running_postgres() as running:
        yield running


@pytest.fixture(scope="session")
def migrated_postgres(server: Postgres) -> str:
    async def prepare() -> str:
        url = await server.create("records")
        await migrate(url)
        return url

    return _elsewhere(prepare)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "lethe.db"
    _elsewhere(lambda: migrate(f"sqlite://{path}"))
    return path


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    (tmp_path / "db").mkdir()
    copy = shutil.copy(migrated_sqlite, tmp_path / "db" / "lethe.db")
    return f"sqlite://{copy}"


def _elsewhere(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `work` on a loop in another thread: a fixture may be asked for while a test's loop runs."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(work())).result()


@pytest.fixture
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    found = _PLACES[request.param](request)
    try:
        yield found
    finally:
        found.start()
        if found.name == "postgres":
            await found.records.transact(_forget_all)
        await found.records.close()


def _memory(_request: pytest.FixtureRequest) -> Place:
    records = MemoryRecords()

    def switch(is_down: bool) -> Callable[[], None]:
        return lambda: setattr(records, "is_down", is_down)

    return Place(records, switch(True), switch(False), "memory")


def _sqlite(request: pytest.FixtureRequest) -> Place:
    url = request.getfixturevalue("sqlite_url")
    directory = sqlite_path(url).parent
    away = directory.with_name("away")

    def stop() -> None:
        directory.rename(away)

    def start() -> None:
        if away.exists():
            away.rename(directory)

    return Place(open_records(url), stop, start, "sqlite", url)


def _postgres(request: pytest.FixtureRequest) -> Place:
    url = request.getfixturevalue("migrated_postgres")
    server: Postgres = request.getfixturevalue("server")

    def start() -> None:
        if not server.is_running:
            server.start()

    return Place(open_records(url), server.stop, start, "postgres", url)


_PLACES = {"memory": _memory, "sqlite": _sqlite, "postgres": _postgres}
everywhere = pytest.mark.parametrize("place", ALL, indirect=True)
in_databases = pytest.mark.parametrize("place", BOTH, indirect=True)


def _forget_all(tx: Transaction) -> None:
    for kind in KINDS:
        tx.remove(*tx.find(kind))


def node(index: int, value: int = 0, *, log: str = "l", level: int = 0) -> Tile:
    return Tile(log, level, index, value.to_bytes(8, "big"))


def value_of(found: Tile | None) -> int:
    assert found is not None
    return int.from_bytes(found.hashes, "big")


def leaf(name: str, seq: int | None = None, *, log: str = "l") -> Leaf:
    return Leaf(name, log, "ty", b"line", b"hash", NOON, seq)


def key(name: str, **changes: Any) -> SubjectKey:
    made = SubjectKey(name, "t", "h", "content", "2026-03", "e", b"wrapped", NOON)
    return replace(made, **changes)


def sample(kind: type[Record], number: int = 1) -> Record:
    """Return a record with a telling value in every field."""
    values: dict[str, Any] = {}
    for place, field in enumerate(fields(kind)):
        values[field.name] = {
            "str": f"{field.name} {number} äß日本\U0001f642",
            "int": number * 1000 + place,
            "bool": place % 2 == 0,
            "bytes": bytes(range(256)) + bytes([number]),
            "datetime": NOON + timedelta(microseconds=place + number),
            "tuple": ("b", "a", ""),
            "Mapping": {"z": 1, "a": [True, None, {"deep": "ü"}], "": "\0"},
        }[str(field.type).replace(" | None", "").split("[")[0]]
    return kind(**values)


async def all_of(records: Records, kind: type[Record]) -> list[Any]:
    return await records.transact(lambda tx: tx.find(kind))


async def add(records: Records, *some: Record) -> None:
    await records.transact(lambda tx: tx.add(*some))


# --- values ----------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("kind", KINDS)
async def test_a_record_comes_back_as_it_was(place: Place, kind: type[Record]) -> None:
    record = sample(kind)
    await add(place.records, record, sample(kind, 2))
    bound = [getattr(record, name) for name in KEYS[kind]]
    assert record == await place.records.transact(lambda tx: tx.get(kind, *bound))


@everywhere
@pytest.mark.parametrize("kind", [kind for kind in KINDS if any("None" in str(f.type) for f in fields(kind))])
async def test_a_null_comes_back_as_none(place: Place, kind: type[Record]) -> None:
    empty = {field.name: None for field in fields(kind) if "None" in str(field.type)}
    record = replace(sample(kind), **empty)
    await add(place.records, record)
    assert [record] == await all_of(place.records, kind)
    assert [record] == await place.records.transact(lambda tx: tx.find(kind, equal=empty))


@everywhere
async def test_an_instant_is_exact_to_the_microsecond_and_in_utc(place: Place) -> None:
    there = timezone(timedelta(hours=5, minutes=45))
    instants = [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 10, 25, 2, 30, 0, 1, tzinfo=there),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ]
    await add(place.records, *[ClosedEpoch(str(n), at) for n, at in enumerate(instants)])
    found = await place.records.transact(lambda tx: tx.find(ClosedEpoch, order_by=["epoch"]))
    assert instants == [epoch.closed_at for epoch in found]
    assert {UTC} == {epoch.closed_at.tzinfo for epoch in found}


@everywhere
@pytest.mark.parametrize(
    "record",
    [
        ClosedEpoch("e", NOON.replace(tzinfo=None)),
        ClosedEpoch("nul\0", NOON),
        ClosedEpoch("canary \ud800", NOON),
        node(1 << 63),
        key("k", tenant=None),
    ],
    ids=["naive", "nul", "surrogate", "65 bits", "null"],
)
async def test_a_value_that_no_database_holds_is_refused(place: Place, record: Record) -> None:
    with pytest.raises(ValueError) as refusal:
        await add(place.records, record)
    assert "canary" not in str(refusal.value)
    assert await all_of(place.records, type(record)) == []


@everywhere
async def test_a_mebibyte_of_bytes_and_an_empty_one_are_kept(place: Place) -> None:
    big = random.Random(1).randbytes(1 << 20)
    await add(place.records, PackText("a", "p", "v", big), PackText("b", "p", "v", b""))
    assert [big, b""] == [
        pack.body for pack in await place.records.transact(lambda tx: tx.find(PackText, order_by=["digest"]))
    ]


@everywhere
async def test_equal_mappings_and_tuples_are_found_whatever_their_order(place: Place) -> None:
    shown = {"a": 1, "b": 2}
    made = sample(Notice)
    assert isinstance(made, Notice)
    notice = replace(made, purposes=("x", "y"), shown=shown)
    await add(place.records, notice)
    turned = dict(reversed(shown.items()))
    found = await place.records.transact(
        lambda tx: tx.find(Notice, equal={"shown": turned, "purposes": ("x", "y")})
    )
    assert [notice] == found
    assert isinstance(found[0].purposes, tuple)
    assert await place.records.transact(lambda tx: tx.find(Notice, equal={"purposes": ("y", "x")})) == []


# --- verbs -----------------------------------------------------------------------------------


@everywhere
async def test_what_is_absent_is_none(place: Place) -> None:
    assert await place.records.transact(lambda tx: tx.get(Tile, "l", 0, 1)) is None


@everywhere
async def test_a_key_must_be_whole(place: Place) -> None:
    with pytest.raises(ValueError):
        await place.records.transact(lambda tx: tx.get(Tile, "l", 0))


@everywhere
async def test_a_taken_key_is_a_duplicate_and_nothing_is_kept(place: Place) -> None:
    await add(place.records, node(1, 1))
    with pytest.raises(Duplicate):
        await add(place.records, node(2), node(1, 2))
    assert [node(1, 1)] == await all_of(place.records, Tile)


@everywhere
async def test_the_same_key_twice_in_one_call_is_a_duplicate(place: Place) -> None:
    with pytest.raises(Duplicate):
        await add(place.records, node(1), node(1))


@everywhere
async def test_a_place_in_a_log_is_given_once_and_none_may_wait_together(place: Place) -> None:
    await add(place.records, leaf("a", 0), leaf("b"), leaf("c"), leaf("d", 0, log="other"))
    with pytest.raises(Duplicate):
        await place.records.transact(lambda tx: tx.put(leaf("b", 0)))
    with pytest.raises(Duplicate):
        await add(place.records, leaf("e", 0))
    assert await place.records.transact(lambda tx: tx.count(Leaf)) == 4


@everywhere
async def test_a_duplicate_does_not_quote_the_row(place: Place) -> None:
    await add(place.records, key("canary-id", handle="canary-handle"))
    with pytest.raises(Duplicate) as refusal:
        await add(place.records, key("canary-id", handle="canary-handle"))
    shown = str(refusal.value) + repr(refusal.value)
    assert "canary" not in shown
    assert refusal.value.__cause__ is None


@everywhere
async def test_a_swallowed_duplicate_still_keeps_nothing(place: Place) -> None:
    await add(place.records, node(1))

    def work(tx: Transaction) -> None:
        tx.add(node(2))
        with pytest.raises(Duplicate):
            tx.add(node(1))
        with pytest.raises(Duplicate):
            tx.add(node(3))

    with pytest.raises(Duplicate):
        await place.records.transact(work)
    assert [node(1)] == await all_of(place.records, Tile)


@everywhere
async def test_put_replaces_and_refuses_what_is_missing(place: Place) -> None:
    await add(place.records, node(1, 1), node(2, 2))
    await place.records.transact(lambda tx: tx.put(node(1, 9)))
    assert [
        value_of(found)
        for found in await place.records.transact(lambda tx: tx.find(Tile, order_by=["index"]))
    ] == [9, 2]
    with pytest.raises(Missing):
        await place.records.transact(lambda tx: tx.put(node(3)))


@everywhere
async def test_putting_the_same_again_is_not_missing(place: Place) -> None:
    await add(place.records, node(1, 1))
    await place.records.transact(lambda tx: tx.put(node(1, 1)))
    assert await all_of(place.records, Tile) == [node(1, 1)]


@everywhere
async def test_a_caught_missing_leaves_the_transaction_whole(place: Place) -> None:
    def work(tx: Transaction) -> None:
        with pytest.raises(Missing):
            tx.put(node(1))
        tx.add(node(1))

    await place.records.transact(work)
    assert [node(1)] == await all_of(place.records, Tile)


@everywhere
async def test_remove_takes_many_kinds_and_forgives_what_is_gone(place: Place) -> None:
    await add(place.records, node(1), leaf("a"), node(2), leaf("b"))
    await place.records.transact(lambda tx: tx.remove(node(1), leaf("a"), node(7), node(2), leaf("b")))
    await place.records.transact(lambda tx: tx.remove())
    assert await all_of(place.records, Tile) + await all_of(place.records, Leaf) == []


@everywhere
async def test_a_transaction_sees_its_own_changes(place: Place) -> None:
    def work(tx: Transaction) -> list[int]:
        tx.add(node(1, 1), node(2, 2))
        tx.put(node(1, 5))
        tx.remove(node(2))
        tx.add(node(2, 6))
        return [value_of(tx.get(Tile, "l", 0, 1)), value_of(tx.get(Tile, "l", 0, 2)), tx.count(Tile)]

    assert await place.records.transact(work) == [5, 6, 2]


@everywhere
async def test_a_transaction_cannot_be_used_after_its_end(place: Place) -> None:
    kept = await place.records.transact(lambda tx: tx)
    with pytest.raises(RuntimeError):
        kept.count(Tile)


# --- questions -------------------------------------------------------------------------------


@everywhere
async def test_every_condition_must_hold(place: Place) -> None:
    await add(
        place.records, *[leaf(f"{n}", n, log="a" if n % 2 else "b") for n in range(8)], leaf("w", log="a")
    )

    def ask(tx: Transaction, **conditions: Any) -> list[str]:
        return [found.event_id for found in tx.find(Leaf, order_by=["event_id"], **conditions)]

    def work(tx: Transaction) -> None:
        assert ask(tx, equal={"log": "a"}) == ["1", "3", "5", "7", "w"]
        assert ask(tx, equal={"log": "a", "seq": None}) == ["w"]
        assert ask(tx, equal={"log": "b", "seq": None}) == []
        assert ask(tx, below={"seq": 3}) == ["0", "1", "2", "3"]
        assert ask(tx, above={"seq": 3}) == ["4", "5", "6", "7"]
        assert ask(tx, equal={"log": "a"}, above={"seq": 1}, below={"seq": 5}) == ["3", "5"]
        assert ask(tx, among={"seq": [4, 1, 99, None]}) == ["1", "4"]
        assert ask(tx, among={"seq": (4, 1), "log": ["b"]}) == ["4"]
        assert ask(tx, among={"seq": []}) == []
        assert tx.count(Leaf, equal={"log": "a"}) == 5
        assert tx.count(Leaf, equal={"seq": None}) == 1
        assert tx.count(Leaf) == 9

    await place.records.transact(work)


@everywhere
async def test_instants_and_booleans_can_be_asked_for(place: Place) -> None:
    job = sample(Job)
    assert isinstance(job, Job)
    waiting = replace(job, job_id="w", lease_until=None, is_cancel_requested=False)
    held = replace(job, job_id="h", lease_until=NOON, is_cancel_requested=True)
    await add(place.records, waiting, held)

    def work(tx: Transaction) -> None:
        there = NOON.astimezone(timezone(timedelta(hours=9)))
        assert [held] == tx.find(Job, below={"lease_until": there})
        assert [held] == tx.find(Job, equal={"lease_until": there})
        assert tx.find(Job, above={"lease_until": NOON}) == []
        assert [held] == tx.find(Job, equal={"is_cancel_requested": True})
        assert [waiting] == tx.find(Job, equal={"is_cancel_requested": False})

    await place.records.transact(work)


@everywhere
async def test_text_sorts_by_code_point_in_every_place(place: Place) -> None:
    names = [
        "B",
        "a",
        "Z",
        "_",
        "ä",
        "z",
        "aa",
        "A",
        "é",
        "e\u0301",
        "\uffff",
        "\U0001f642",
        "-",
        "1",
        "10",
        "2",
    ]
    await add(place.records, *[leaf(name) for name in names])

    def work(tx: Transaction) -> None:
        assert sorted(names) == [found.event_id for found in tx.find(Leaf, order_by=["event_id"])]
        assert sorted(names)[::-1] == [found.event_id for found in tx.find(Leaf, order_by=["-event_id"])]
        over = sorted(name for name in names if name > "a")
        assert over == [
            found.event_id for found in tx.find(Leaf, above={"event_id": "a"}, order_by=["event_id"])
        ]

    await place.records.transact(work)


@everywhere
async def test_order_goes_field_by_field_and_null_comes_first(place: Place) -> None:
    await add(place.records, leaf("a", 2), leaf("b"), leaf("c", 1), leaf("d"))

    def order(tx: Transaction, *names: str) -> str:
        return "".join(found.event_id for found in tx.find(Leaf, order_by=names))

    def work(tx: Transaction) -> None:
        assert order(tx, "seq", "event_id") == "bdca"
        assert order(tx, "seq", "-event_id") == "dbca"
        assert order(tx, "-seq", "event_id") == "acbd"
        assert order(tx, "log", "event_id") == "abcd"
        assert "".join(found.event_id for found in tx.find(Leaf, above={"seq": 0}, order_by=["seq"])) == "ca"

    await place.records.transact(work)


@everywhere
async def test_a_limit_takes_the_first(place: Place) -> None:
    await add(place.records, *[node(n) for n in range(5)])

    def work(tx: Transaction) -> None:
        assert [found.index for found in tx.find(Tile, order_by=["-index"], limit=2)] == [4, 3]
        assert tx.find(Tile, limit=0) == []
        assert len(tx.find(Tile, limit=99)) == 5

    await place.records.transact(work)


@everywhere
@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        ({"equal": {"no_such": 1}}, KeyError),
        ({"order_by": ["no_such"]}, KeyError),
        ({"order_by": ["index; DROP TABLE node"]}, KeyError),
        ({"limit": -1}, ValueError),
        ({"below": {"index": None}}, ValueError),
        ({"equal": {"index": 1 << 70}}, ValueError),
        ({"equal": {"log": "\0"}}, ValueError),
    ],
)
async def test_a_senseless_question_is_refused(place: Place, asked: Any, refusal: type[Exception]) -> None:
    with pytest.raises(refusal):
        await place.records.transact(lambda tx: tx.find(Tile, **asked))
    await add(place.records, node(1))


HOSTILE = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)


@everywhere
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.sets(HOSTILE, min_size=1, max_size=5), other=HOSTILE)
async def test_any_text_is_only_text(place: Place, names: set[str], other: str) -> None:
    def work(tx: Transaction) -> None:
        tx.remove(*tx.find(ClosedEpoch))
        tx.add(*[ClosedEpoch(name, NOON) for name in names])
        assert sorted(names) == [found.epoch for found in tx.find(ClosedEpoch, order_by=["epoch"])]
        assert (other in names) == (tx.get(ClosedEpoch, other) is not None)
        assert int(other in names) == tx.count(ClosedEpoch, equal={"epoch": other})

    await place.records.transact(work)


# --- all or nothing --------------------------------------------------------------------------


class Refused(Exception):
    pass


class Halted(BaseException):
    pass


@everywhere
@pytest.mark.parametrize("error", [Refused("x"), KeyError("x"), OSError("x"), Halted("x")])
async def test_an_exception_rolls_back_and_passes_through_unchanged(
    place: Place, error: BaseException
) -> None:
    await add(place.records, node(1, 1))

    def work(tx: Transaction) -> None:
        tx.put(node(1, 2))
        tx.add(node(2))
        raise error

    with pytest.raises(type(error)) as caught:
        await place.records.transact(work)
    assert caught.value is error
    assert [node(1, 1)] == await all_of(place.records, Tile)


@everywhere
async def test_a_stop_iteration_does_not_hang_the_caller(place: Place) -> None:
    async with asyncio.timeout(20):
        with pytest.raises(RuntimeError):
            await place.records.transact(lambda tx: next(iter(tx.find(Tile))))


@everywhere
async def test_increments_that_race_are_never_lost(place: Place) -> None:
    await add(place.records, node(1, 0))

    async def one() -> None:
        for _ in range(8):
            await place.records.transact(
                lambda tx: tx.put(node(1, value_of(tx.get(Tile, "l", 0, 1)) + 1)),
            )

    await asyncio.gather(*[one() for _ in range(4)])
    assert value_of((await all_of(place.records, Tile))[0]) == 32


@everywhere
async def test_two_who_look_before_they_leap_do_not_both_leap(place: Place) -> None:
    """Write skew: each reads what the other changes."""
    for turn in range(6):
        await place.records.transact(_forget_all)
        await add(place.records, node(1, 1), node(2, 1))

        def leave(tx: Transaction, index: int) -> None:
            if sum(value_of(found) for found in tx.find(Tile)) > 1:
                tx.put(node(index, 0))

        await asyncio.gather(*[place.records.transact(partial(leave, index=index)) for index in (1, 2)])
        assert sum(value_of(found) for found in await all_of(place.records, Tile)) == 1, turn


@everywhere
async def test_of_many_who_add_the_same_key_one_succeeds(place: Place) -> None:
    outcomes = await asyncio.gather(
        *[add(place.records, node(1, n)) for n in range(6)], return_exceptions=True
    )
    assert outcomes.count(None) == 1
    assert sum(isinstance(outcome, Duplicate) for outcome in outcomes) == 5


@everywhere
async def test_whoever_looks_first_is_never_told_of_a_duplicate(place: Place) -> None:
    def work(tx: Transaction) -> str:
        if tx.get(Tile, "l", 0, 1) is None:
            tx.add(node(1))
            return "made"
        return "found"

    outcomes = await asyncio.gather(*[place.records.transact(work) for _ in range(6)])
    assert sorted(outcomes) == ["found"] * 5 + ["made"]


@in_databases
async def test_two_openings_of_one_database_exclude_each_other(place: Place) -> None:
    other = open_records(place.url)
    try:
        await add(place.records, node(1, 0))

        async def one(records: Records) -> None:
            for _ in range(5):
                await records.transact(lambda tx: tx.put(node(1, value_of(tx.get(Tile, "l", 0, 1)) + 1)))

        await asyncio.gather(one(place.records), one(other))
        assert value_of((await all_of(other, Tile))[0]) == 10
    finally:
        await other.close()


# --- cancellation ----------------------------------------------------------------------------


@everywhere
async def test_a_cancelled_caller_leaves_all_or_nothing_and_no_lock(place: Place) -> None:
    """Whenever the cancellation comes, the next transaction finds a whole state and is not kept waiting."""
    for turns in range(12):
        pair = (node(2 * turns), node(2 * turns + 1))

        def work(tx: Transaction, pair: tuple[Tile, Tile] = pair) -> None:
            tx.add(pair[0])
            tx.add(pair[1])

        task = asyncio.create_task(place.records.transact(work))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(10):
        await add(place.records, node(1000))
        found = {stored.index for stored in await all_of(place.records, Tile)}
    assert 1000 in found
    assert all((2 * turn in found) == (2 * turn + 1 in found) for turn in range(12))


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_a_transaction_that_has_begun_is_finished_though_nobody_waits(place: Place) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def work(tx: Transaction) -> None:
        tx.add(node(1))
        begun.set()
        assert may_end.wait(10)
        tx.add(node(2))

    task = asyncio.create_task(place.records.transact(work))
    await asyncio.to_thread(begun.wait, 10)
    queued = asyncio.create_task(add(place.records, node(3)))
    await asyncio.sleep(0)
    for one in (task, queued):
        one.cancel()
    await asyncio.gather(task, queued, return_exceptions=True)
    may_end.set()
    assert {1, 2} == {stored.index for stored in await all_of(place.records, Tile)}


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
async def test_a_storm_of_cancellations_leaks_no_connection(place: Place) -> None:
    records = open_records(place.url, postgres=PostgresLimits(connections=2, wait_s=5))
    try:
        for turn in range(3):
            tasks = [asyncio.create_task(add(records, node(100 * turn + n))) for n in range(20)]
            await add(records, node(100 * turn + 99))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*[add(records, node(1000 + n)) for n in range(4)])
        assert {1000, 1001, 1002, 1003} <= {stored.index for stored in await all_of(records, Tile)}
    finally:
        await records.close()


# --- a database that fails -------------------------------------------------------------------


@everywhere
async def test_a_dead_database_is_unavailable_and_recovers(place: Place) -> None:
    await add(place.records, node(1))
    place.stop()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await add(place.records, node(2))
    with pytest.raises(StoreUnavailable):
        await place.records.scour()
    place.start()
    await add(place.records, node(3))
    assert {1, 3} == {stored.index for stored in await all_of(place.records, Tile)}


@everywhere
async def test_closed_records_are_unavailable_and_closing_again_is_no_error(place: Place) -> None:
    records = open_records(place.url) if place.url else MemoryRecords()
    await records.close()
    await records.close()
    with pytest.raises(StoreUnavailable):
        await add(records, node(1))


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
async def test_a_restart_between_two_transactions_is_not_noticed(place: Place) -> None:
    await add(place.records, node(1))
    place.stop()
    place.start()
    await add(place.records, node(2))
    assert len(await all_of(place.records, Tile)) == 2


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
async def test_a_server_killed_in_the_middle_keeps_nothing_of_it(place: Place, server: Postgres) -> None:
    await add(place.records, node(1))

    def work(tx: Transaction) -> None:
        tx.add(node(2))
        server.kill()
        tx.add(node(3))

    with pytest.raises(StoreUnavailable):
        await place.records.transact(work)
    place.start()
    assert [node(1)] == await all_of(place.records, Tile)


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
async def test_a_server_that_ends_our_session_is_asked_once_more(place: Place) -> None:
    admin = await asyncpg.connect(place.url)
    ended: list[int] = []
    try:
        await add(place.records, node(1))
        found = await admin.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'lethe' AND datname = current_database()"
        )
        ended += [1 for row in found if row[0]]
        await add(place.records, node(2))
    finally:
        await admin.close()
    assert ended
    assert len(await all_of(place.records, Tile)) == 2


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
async def test_no_connection_in_time_is_unavailable(place: Place) -> None:
    database = PostgresDatabase(place.url, PostgresLimits(connections=1, wait_s=0.01))
    try:
        await database._gate.acquire()
        with pytest.raises(StoreUnavailable) as refusal:
            await database.run(lambda _connection: None)
        assert refusal.value.detail == "pool_exhausted"
        database._gate.release()
    finally:
        await database.close()


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
async def test_a_statement_that_takes_too_long_is_unavailable(place: Place) -> None:
    """Another session holds the row's lock."""
    records = open_records(place.url, postgres=PostgresLimits(statement_s=0.2))
    admin = await asyncpg.connect(place.url)
    try:
        await add(records, node(1))
        async with admin.transaction():
            await admin.execute("LOCK TABLE tile IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(StoreUnavailable) as refusal:
                await records.transact(lambda tx: tx.put(node(1, 2)))
        assert refusal.value.detail == "sqlstate_57014"
        assert [node(1)] == await all_of(records, Tile)
    finally:
        await admin.close()
        await records.close()


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
async def test_the_socket_serves_as_well_as_tcp(place: Place, server: Postgres) -> None:
    records = open_records(server.socket_url_of("records"))
    try:
        await add(records, node(1))
        assert await all_of(place.records, Tile) == [node(1)]
    finally:
        await records.close()


async def test_a_full_disk_is_unavailable_and_leaves_nothing_half_done(tmp_path: Path) -> None:
    with _small_disk(tmp_path / "small") as (directory, limit):
        url = f"sqlite://{directory}/lethe.db"
        await migrate(url)
        records = open_records(url)
        try:
            await limit(records)
            await add(records, PackText("first", "p", "v", b"x"))

            def work(tx: Transaction) -> None:
                tx.remove(PackText("first", "p", "v", b"x"))
                for n in range(64):
                    tx.add(PackText(f"big {n}", "p", "v", bytes(1 << 18)))

            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    await records.transact(work)
            assert [pack.digest for pack in await all_of(records, PackText)] == ["first"]
            await add(records, PackText("second", "p", "v", b"y"))
        finally:
            await records.close()
        check = sqlite3.connect(sqlite_path(url))
        assert check.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        check.close()


async def test_the_reserve_is_room_enough_to_rewrite_the_file(tmp_path: Path) -> None:
    """An erasure does that; `Reserve` keeps the file's own size once more, and something beside it."""
    beside = 256 << 10
    with _small_disk(tmp_path / "small") as (directory, _):
        if free_bytes(directory) > 8 << 20:
            missing("a small file system", "run as root, where tmpfs may be mounted")
        url = f"sqlite://{directory}/lethe.db"
        await migrate(url)
        records = open_records(url)
        try:
            await add(records, *[PackText(f"{n}", "p", "v", os.urandom(1 << 17)) for n in range(6)])
            await records.scour()
            reserve = Reserve(sqlite_path(url), beside)
            reserve.need_room()
            ballast = free_bytes(directory) - sqlite_path(url).stat().st_size - beside
            (directory / "ballast").write_bytes(bytes(ballast + 4096))
            with pytest.raises(DiskReserve):
                reserve.need_room()
            await records.transact(lambda tx: tx.put(PackText("0", "p", "v", os.urandom(1 << 17))))
            await records.scour()
            assert len(await all_of(records, PackText)) == 6
        finally:
            await records.close()


class _small_disk:  # noqa: N801  # used as a statement
    """A file system of 4 MiB where we may mount one, else a database that may not grow."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._is_mounted = False

    def __enter__(self) -> tuple[Path, Callable[[Any], Awaitable[None]]]:
        self._directory.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(self._directory)]
        done = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
        self._is_mounted = done

        async def limit(records: Any) -> None:
            if not done:

                def shrink(connection: Connection) -> None:
                    connection.connection.execute("PRAGMA max_page_count = 200")

                await records._database.run(shrink)

        return self._directory, limit

    def __exit__(self, *_error: object) -> None:
        if self._is_mounted:
            subprocess.run(["umount", str(self._directory)], check=True)


async def test_a_broken_file_is_unavailable_and_a_mended_one_is_not(sqlite_url: str) -> None:
    path = sqlite_path(sqlite_url)
    whole = path.read_bytes()
    path.write_bytes(b"this is no database" * 1000)
    records = open_records(sqlite_url)
    try:
        with pytest.raises(StoreUnavailable):
            await add(records, node(1))
        path.write_bytes(whole)
        await add(records, node(1))
    finally:
        await records.close()


async def test_a_page_that_rotted_is_unavailable(sqlite_url: str) -> None:
    path = sqlite_path(sqlite_url)
    records = open_records(sqlite_url)
    await add(records, *[PackText(str(n), "p", "v", bytes(2000)) for n in range(50)])
    await records.close()
    content = bytearray(path.read_bytes())
    for page in range(4096 * 2, len(content), 4096):
        content[page : page + 64] = b"\xff" * 64
    path.write_bytes(content)
    records = open_records(sqlite_url)
    try:
        with pytest.raises(StoreUnavailable):
            await all_of(records, PackText)
    finally:
        await records.close()


async def test_another_writer_is_waited_for_and_then_reported(sqlite_url: str) -> None:
    records = open_records(sqlite_url, busy_timeout_s=0.05)
    other = sqlite3.connect(sqlite_path(sqlite_url), isolation_level=None)
    try:
        await add(records, node(1))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable) as refusal:
            await add(records, node(2))
        assert refusal.value.detail == "sqlite_busy"
        other.execute("ROLLBACK")
        await add(records, node(3))
    finally:
        other.close()
        await records.close()


async def test_of_a_truncated_journal_whole_commits_are_left_and_in_their_order(
    sqlite_url: str, tmp_path: Path
) -> None:
    """The last ones are gone, as after a restore: what was signed of them the checkpoint lock knows."""
    path, commits = sqlite_path(sqlite_url), 12
    records = open_records(sqlite_url)
    try:
        for number in range(commits):
            await add(records, *[PackText(f"{number:02}/{part}", "p", "v", bytes(500)) for part in range(3)])
        whole = path.read_bytes()
        journal = path.with_name(f"{path.name}-wal").read_bytes()
    finally:
        await records.close()
    left: list[int] = []
    for at in range(0, len(journal) + 1, max(1, len(journal) // 25)):
        cut = tmp_path / f"{at}.db"
        cut.write_bytes(whole)
        cut.with_name(f"{cut.name}-wal").write_bytes(journal[:at])
        records = open_records(f"sqlite://{cut}")
        try:
            found = sorted(pack.digest for pack in await all_of(records, PackText))
            await add(records, PackText("later", "p", "v", b"z"))
        finally:
            await records.close()
        assert found == [f"{number:02}/{part}" for number in range(len(found) // 3) for part in range(3)]
        with contextlib.closing(sqlite3.connect(cut)) as check:
            assert check.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        left.append(len(found) // 3)
    assert left == sorted(left)
    assert (left[0], len(set(left)) > 2, left[-1] >= commits - 1) == (0, True, True)


async def test_a_file_that_was_replaced_is_noticed(sqlite_url: str) -> None:
    """SQLite itself would go on writing into the file that nobody can open any more."""
    path = sqlite_path(sqlite_url)
    records = open_records(sqlite_url)
    backup = path.with_name("backup")
    try:
        backup.write_bytes(path.read_bytes())
        await add(records, node(1))
        for name in ("", "-wal", "-shm"):
            path.with_name(path.name + name).unlink()
        with pytest.raises(StoreUnavailable):
            await add(records, node(2))
        backup.rename(path)
        await add(records, node(3))
        assert [node(3)] == await all_of(records, Tile)
    finally:
        await records.close()


async def test_the_fake_loses_a_commit_or_only_its_reply() -> None:
    records = MemoryRecords()
    records.fail_next("lost")
    with pytest.raises(StoreUnavailable):
        await add(records, node(1))
    records.fail_next("lost_reply", after=1)
    await add(records, node(2))
    with pytest.raises(StoreUnavailable):
        await add(records, node(3))
    await add(records, node(4))
    assert [stored.index for stored in records.all(Tile)] == [2, 3, 4]


# --- traces ----------------------------------------------------------------------------------


async def test_deleted_secrets_are_in_no_file_after_scouring(sqlite_url: str) -> None:
    """Rows come, change and go for a while; then every byte of the directory is searched."""
    dice = random.Random(7)
    records = open_records(sqlite_url)
    live: dict[str, SubjectKey] = {}
    gone: list[bytes] = []

    def turn(tx: Transaction) -> None:
        fresh = [
            key(
                dice.randbytes(16).hex(),
                handle=dice.randbytes(32).hex(),
                wrapped=dice.randbytes(60 + n % 900),
            )
            for n in range(dice.randrange(60))
        ]
        tx.add(*fresh)
        live.update({made.key_id: made for made in fresh})
        for name in dice.sample(sorted(live), min(len(live), 20)):
            gone.extend([live[name].wrapped, str(live[name].handle).encode()])
            live[name] = replace(live[name], handle=None, wrapped=dice.randbytes(dice.randrange(300)))
            tx.put(live[name])
        for name in dice.sample(sorted(live), min(len(live), 20)):
            removed = live.pop(name)
            gone.extend([removed.wrapped, name.encode()])
            gone.extend([removed.handle.encode()] if removed.handle else [])
            tx.remove(removed)

    try:
        for _ in range(60):
            await records.transact(turn)
        before = _bytes_of(sqlite_path(sqlite_url).parent)
        await records.scour()
        after = _bytes_of(sqlite_path(sqlite_url).parent)
        secrets = [secret for secret in gone if len(secret) >= 16]
        assert len(secrets) > 2000
        assert any(secret in before for secret in secrets), "there was nothing to scour"
        assert [secret for secret in secrets if secret in after] == []
        assert all(found.wrapped in after for found in live.values())
        assert sorted(live) == [
            found.key_id
            for found in await records.transact(lambda tx: tx.find(SubjectKey, order_by=["key_id"]))
        ]
    finally:
        await records.close()


def _bytes_of(directory: Path) -> bytes:
    return b"".join(found.read_bytes() for found in sorted(directory.iterdir()))


@everywhere
async def test_scouring_harms_nothing(place: Place) -> None:
    await add(place.records, sample(Consent), sample(Dsr))
    await place.records.scour()
    await place.records.scour()
    assert [sample(Consent)] == await all_of(place.records, Consent)
    assert [sample(Dsr)] == await all_of(place.records, Dsr)


async def test_another_reader_makes_scouring_say_so(sqlite_url: str) -> None:
    records = open_records(sqlite_url, busy_timeout_s=0.05)
    await add(records, node(1))
    reader = sqlite3.connect(sqlite_path(sqlite_url), isolation_level=None)
    try:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM tile").fetchall()
        with pytest.raises(StoreUnavailable):
            await records.scour()
        reader.execute("ROLLBACK")
        await records.scour()
    finally:
        reader.close()
        await records.close()


async def test_only_the_owner_may_read_the_files(sqlite_url: str) -> None:
    records = open_records(sqlite_url)
    try:
        await add(records, node(1))
        directory = sqlite_path(sqlite_url).parent
        modes = {found.name: found.stat().st_mode & 0o777 for found in directory.iterdir()}
        assert modes == {"lethe.db": 0o600, "lethe.db-wal": 0o600, "lethe.db-shm": 0o600}
    finally:
        await records.close()


async def test_sqlite_runs_with_the_settings_that_durability_and_erasure_need(sqlite_url: str) -> None:
    database = open_database(sqlite_url)
    wanted = {
        "journal_mode": "wal",
        "synchronous": 2,
        "secure_delete": 1,
        "foreign_keys": 1,
        "trusted_schema": 0,
        "temp_store": 2,
        "busy_timeout": 5000,
    }

    def ask(connection: Connection) -> dict[str, Any]:
        return {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in wanted}

    try:
        assert wanted == await database.run(lambda connection: _in_transaction(connection, ask))
    finally:
        await database.close()


async def test_postgres_runs_serialisable_and_bounded(migrated_postgres: str) -> None:
    database = open_database(migrated_postgres)
    names = [
        "transaction_isolation",
        "statement_timeout",
        "idle_in_transaction_session_timeout",
        "synchronous_commit",
    ]

    def ask(connection: Connection) -> list[str]:
        return [str(connection.exec_driver_sql(f"SHOW {name}").scalar_one()) for name in names]

    try:
        found = await database.run(lambda connection: _in_transaction(connection, ask))
        assert found == ["serializable", "30s", "30s", "on"]
    finally:
        await database.close()


def _in_transaction(connection: Connection, ask: Callable[[Connection], Any]) -> Any:
    with connection.begin():
        return ask(connection)


# --- schema ----------------------------------------------------------------------------------


def test_every_record_kind_has_a_table_and_every_table_a_record() -> None:
    assert set(KINDS) == set(ROWS)
    assert {mapped.table.name for mapped in MAPPED.values()} == set(Table.metadata.tables)


@pytest.mark.parametrize("kind", KINDS)
def test_record_and_table_agree_field_for_field(kind: type[Record]) -> None:
    table = MAPPED[kind].table
    assert [field.name for field in fields(kind)] == [column.name for column in table.columns]
    types = {
        "str": Words,
        "int": Whole,
        "bool": Boolean,
        "bytes": LargeBinary,
        "datetime": Instant,
        "tuple": JsonList,
        "Mapping": JsonMapping,
    }
    for field in fields(kind):
        said = str(field.type)
        column = table.columns[field.name]
        assert types[said.replace(" | None", "").split("[")[0]] is type(column.type), field.name
        assert ("None" in said) == column.nullable, field.name


@pytest.mark.parametrize("kind", KINDS)
def test_fake_and_table_agree_on_keys(kind: type[Record]) -> None:
    assert KEYS[kind] == MAPPED[kind].key
    unique = [
        tuple(column.name for column in constraint.columns)  # type: ignore[attr-defined]
        for constraint in MAPPED[kind].table.constraints
        if constraint.__visit_name__ == "unique_constraint"
    ]
    assert ([UNIQUE[kind]] if kind in UNIQUE else []) == unique


def test_the_subject_tables_are_those_with_a_handle() -> None:
    assert {kind for kind in KINDS if any(f.name == "handle" for f in fields(kind))} == set(SUBJECT_TABLES)


def test_every_constraint_has_a_name() -> None:
    assert {"pk", "ix", "uq", "ck", "fk"} == set(NAMES)
    for table in Table.metadata.tables.values():
        assert all(constraint.name for constraint in table.constraints)


@pytest.mark.parametrize("where", BOTH)
async def test_models_and_migrated_schema_do_not_differ(where: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue({"sqlite": "sqlite_url", "postgres": "migrated_postgres"}[where])
    database = open_database(url)

    def compare(connection: Connection) -> tuple[Any, Mapping[str, Any]]:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        names = {
            name: [index["name"] for index in _inspect(connection).get_indexes(name)]
            for name in Table.metadata.tables
        }
        return compare_metadata(context, Table.metadata), names

    try:
        differences, indexes = await database.run(lambda connection: _in_transaction(connection, compare))
    finally:
        await database.close()
    assert differences == []
    assert "ix_leaf_waiting" in indexes["leaf"]


def _inspect(connection: Connection) -> Any:
    from sqlalchemy import inspect

    return inspect(connection)


@pytest.mark.parametrize("where", BOTH)
async def test_a_schema_is_missing_then_right_then_behind_or_newer(
    where: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if where == "sqlite":
        url = f"sqlite://{tmp_path}/new.db"
    else:
        url = await request.getfixturevalue("server").create("fresh")

    async def state() -> str:
        records = open_records(url)
        try:
            await records.check_schema()
        except SchemaMismatch as mismatch:
            return f"{mismatch.state}: {mismatch}"
        finally:
            await records.close()
        return "right"

    assert (await state()).startswith("missing: ")
    assert "lethe migrate" in await state()
    await migrate(url)
    assert await state() == "right"
    await migrate(url)  # again: nothing happens
    assert await state() == "right"

    database = open_database(url)

    def stamp(connection: Connection) -> None:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'from the future'")

    await database.run(lambda connection: _in_transaction(connection, stamp))
    await database.close()
    assert (await state()).startswith("newer: ")
    with pytest.raises(SchemaMismatch):
        await migrate(url)


async def test_two_migrations_at_once_wait_for_each_other(server: Postgres) -> None:
    url = await server.create("contended")
    await asyncio.gather(*[migrate(url) for _ in range(3)])
    records = open_records(url)
    try:
        await records.check_schema()
    finally:
        await records.close()


async def test_opening_creates_nothing(tmp_path: Path) -> None:
    records = open_records(f"sqlite://{tmp_path}/none.db")
    try:
        with pytest.raises(StoreUnavailable):
            await add(records, node(1))
    finally:
        await records.close()
    assert _names(tmp_path) == []


@pytest.mark.parametrize(
    "url", ["mysql://x/y", "sqlite://relative.db", "sqlite://", "sqlite:///", "sqlite:///a?mode=ro", ""]
)
def test_a_url_that_is_none_of_ours_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        open_records(url)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///srv/a.db", "/srv/a.db"),
        ("sqlite:////srv/a.db", "/srv/a.db"),
        ("sqlite:///srv/a%20b%3F.db", "/srv/a b?.db"),
    ],
)
def test_three_slashes_and_four_mean_the_same_path(url: str, path: str) -> None:
    assert Path(path) == sqlite_path(url)


async def test_a_path_with_signs_of_a_uri_is_only_a_path(tmp_path: Path) -> None:
    directory = tmp_path / "a b#c"
    directory.mkdir()
    url = f"sqlite://{tmp_path}/a%20b%23c/x%3Fmode=memory.db"
    await migrate(url)
    assert _names(directory) == ["x?mode=memory.db"]


def _names(directory: Path) -> list[str]:
    return sorted(found.name for found in directory.iterdir())


def test_the_sample_fills_every_field() -> None:
    assert json.dumps([str(sample(kind)) for kind in KINDS])
    assert all(dataclasses.is_dataclass(kind) for kind in KINDS)
    assert isinstance(sample(Signal), Signal)
    assert isinstance(sample(Checkpoint), Checkpoint)


# --- one commit for several (SQLite) ----------------------------------------------------------


async def test_transactions_that_wait_beside_each_other_share_a_commit(sqlite_url: str) -> None:
    """As many syncs as there are groups, not as many as there are callers."""
    records = open_records(sqlite_url)
    held = threading.Event()
    commits: list[None] = []
    try:
        await records.transact(lambda tx: tx.count(Tile))  # connected
        connection = records._database._connection  # type: ignore[attr-defined]  # a test reaches inside
        event.listen(connection, "commit", lambda _connection: commits.append(None))
        first = asyncio.create_task(records.transact(lambda _tx: held.wait(10)))
        await asyncio.sleep(0)
        others = [
            asyncio.create_task(records.transact(lambda tx, number=number: tx.add(node(number))))
            for number in range(200)
        ]
        await asyncio.sleep(0)
        held.set()
        await asyncio.gather(first, *others)
        assert len(await all_of(records, Tile)) == 200
        assert len(commits) <= 5
    finally:
        await records.close()


async def test_one_of_a_group_that_fails_takes_nothing_of_the_others_with_it(sqlite_url: str) -> None:
    records = open_records(sqlite_url)
    held = threading.Event()

    def work(tx: Transaction, number: int) -> int:
        tx.add(node(number))
        if number % 3 == 0:
            raise LookupError(number)
        if number % 3 == 1:
            tx.add(node(number))  # taken
        return number

    try:
        first = asyncio.create_task(records.transact(lambda _tx: held.wait(10)))
        await asyncio.sleep(0)
        tasks = [asyncio.create_task(records.transact(partial(work, number=number))) for number in range(30)]
        await asyncio.sleep(0)
        held.set()
        await first
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        kinds_of = [type(outcome) for outcome in outcomes]
        assert kinds_of == [LookupError, Duplicate, int] * 10
        assert {found.index for found in await all_of(records, Tile)} == set(range(2, 30, 3))
    finally:
        await records.close()


STEPS = st.one_of(
    st.tuples(st.sampled_from(["leaf", "tile", "read_leaf", "take_leaf"]), st.integers(0, 5)),
    st.tuples(st.sampled_from(["leaves", "tiles", "fail"]), st.just(0)),
)


def _script(tx: Transaction, steps: list[tuple[str, int]]) -> list[Any]:
    seen: list[Any] = []
    for verb, number in steps:
        if verb == "leaf":
            tx.add(replace(sample(Leaf), event_id=str(number), log=str(number), seq=None))
        elif verb == "tile":
            tx.add(node(number))
        elif verb == "read_leaf":
            seen.append(tx.get(Leaf, str(number)) is not None)
        elif verb == "take_leaf":
            found = tx.get(Leaf, str(number))
            if found is not None:
                tx.remove(found)
        elif verb == "fail":
            raise LookupError
        else:
            seen.append(tx.count(Leaf if verb == "leaves" else Tile))
    return seen


@given(st.lists(st.lists(STEPS, max_size=6), min_size=2, max_size=6))
@example([[("leaf", 1)], [("leaves", 0), ("fail", 0)]])
@example([[("leaf", 1)], [("leaf", 2), ("tile", 1), ("fail", 0)]])
@example([[("leaf", 1), ("leaf", 1)], [("leaves", 0)]])
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_group_does_what_its_transactions_do_one_after_the_other(
    sqlite_url: str, scripts: list[list[tuple[str, int]]]
) -> None:
    """Rows that a group inserts late are seen by who reads them, and go with who wrote them."""
    records, model = open_records(sqlite_url), MemoryRecords()
    held = threading.Event()
    try:
        await records.transact(lambda tx: [tx.discard(kind, equal={}) for kind in (Leaf, Tile)])
        first = asyncio.create_task(records.transact(lambda _tx: held.wait(10)))
        await asyncio.sleep(0)
        tasks = [asyncio.create_task(records.transact(partial(_script, steps=steps))) for steps in scripts]
        await asyncio.sleep(0)
        held.set()
        await first
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for steps, outcome in zip(scripts, outcomes, strict=True):
            (expected,) = await asyncio.gather(
                model.transact(partial(_script, steps=steps)), return_exceptions=True
            )
            # A duplicate is told at the latest when the transaction ends.
            failures = {type(expected), type(outcome)}
            assert expected == outcome or failures <= {LookupError, Duplicate}
        for kind in (Leaf, Tile):
            assert {str(one) for one in await all_of(records, kind)} == {
                str(one) for one in await all_of(model, kind)
            }
    finally:
        await records.close()


async def test_a_group_whose_commit_fails_fails_whole(sqlite_url: str) -> None:
    """What one saw of another is no more durable than the other."""
    records = open_records(sqlite_url)
    held, begun = threading.Event(), threading.Event()
    commits: list[None] = []

    def hold_up(_tx: Transaction) -> None:
        begun.set()
        held.wait(10)

    def fail(_connection: Connection) -> None:
        commits.append(None)
        if len(commits) == 2:  # that of the group
            raise OSError("the disk is gone")

    try:
        await records.transact(lambda tx: tx.count(Tile))
        connection = records._database._connection  # type: ignore[attr-defined]  # likewise
        event.listen(connection, "commit", fail)
        first = asyncio.create_task(records.transact(hold_up))
        await asyncio.to_thread(begun.wait, 10)
        tasks = [
            asyncio.create_task(records.transact(lambda tx, number=number: tx.add(node(number))))
            for number in range(5)
        ]
        await asyncio.sleep(0)
        held.set()
        await first
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 5, outcomes
        event.remove(connection, "commit", fail)
        assert await all_of(records, Tile) == []
        await records.transact(lambda tx: tx.add(node(9)))
    finally:
        await records.close()


# --- looking everywhere ----------------------------------------------------------------------

NEEDLE = bytes.fromhex("c0ffee00" * 8)


async def seen(records: Records, *needles: bytes, skip: Any = ()) -> set[str]:
    found = await records.search(needles, skip=skip)
    return {f"{one.table}.{one.column}" for one in found.seen}


@everywhere
@pytest.mark.parametrize("kind", KINDS)
async def test_a_search_sees_every_column_of_every_table(place: Place, kind: type[Record]) -> None:
    for field in fields(kind):
        text = NEEDLE.hex()
        value: Any = {
            "str": f"before {text} behind",
            "bytes": b"\0" + text.encode() + b"\xff",
            "tuple": ("a", text),
            "Mapping": {"deep": [{text: 1}]},
        }.get(str(field.type).replace(" | None", "").split("[")[0])
        if value is None:
            continue  # an instant, a number, a flag
        record = replace(sample(kind), **{field.name: value})
        await add(place.records, record)
        assert {f"{_table(kind)}.{field.name}"} == await seen(place.records, text.encode())
        assert set() == await seen(place.records, text.encode(), skip={(kind, field.name)})
        await place.records.transact(lambda tx, gone=record: tx.remove(gone))
    assert set() == await seen(place.records, NEEDLE.hex().encode())


def _table(kind: type[Record]) -> str:
    return MAPPED[kind].table.name


@everywhere
async def test_a_search_sees_bytes_and_numbers_and_any_of_many_needles(place: Place) -> None:
    await add(place.records, replace(sample(Leaf), line=b"\0" * 1000 + NEEDLE, seq=77_777))
    others = [os.urandom(16) for _ in range(2000)]
    assert set() == await seen(place.records, *others)
    assert {"leaf.line"} == await seen(place.records, *others, NEEDLE)
    assert {"leaf.seq"} == await seen(place.records, b"77777")
    assert set() == await seen(place.records)


@everywhere
async def test_a_search_for_nothing_is_refused(place: Place) -> None:
    with pytest.raises(ValueError, match="nothing is looked for"):
        await place.records.search([b""])


@everywhere
async def test_a_search_of_a_database_that_is_away_is_no_answer(place: Place) -> None:
    place.stop()
    with pytest.raises(StoreUnavailable):
        await place.records.search([NEEDLE])


@in_databases
async def test_a_search_sees_a_table_that_the_code_does_not_know(place: Place) -> None:
    odd = '"odd ""name"', '"a | column"'
    await _raw(place, f"CREATE TABLE {odd[0]} (id integer PRIMARY KEY, {odd[1]} varchar(99), note text)")
    try:
        await _raw(place, f"INSERT INTO {odd[0]} VALUES (1, '{NEEDLE.hex()}', NULL)")  # noqa: S608 - ours
        found = await place.records.search([NEEDLE.hex().encode()])
        assert [(one.table, one.column, one.is_known) for one in found.seen] == [
            ('odd "name', "a | column", False)
        ]
        assert found.tables > len(KINDS)
        assert found.unread == 0
    finally:
        await _raw(place, f"DROP TABLE {odd[0]}")


@in_databases
async def test_who_writes_is_not_held_up_by_a_search(place: Place) -> None:
    """Each write goes on while the search is under way, and the search comes to its end all the same."""
    await add(place.records, *[leaf(f"{number:05}") for number in range(3000)])
    needles = [os.urandom(32) for _ in range(400)]
    searching = asyncio.create_task(place.records.search(needles))
    written = 0
    while not searching.done():
        await add(place.records, leaf(f"new {written}"))
        written += 1
    assert frozenset() == (await searching).seen
    assert written >= 3


async def _raw(place: Place, statement: str) -> None:
    """Do something to the database behind the records' back."""
    if place.name == "sqlite":
        with contextlib.closing(sqlite3.connect(sqlite_path(place.url), isolation_level=None)) as connection:
            connection.execute(statement)
        return
    connection = await asyncpg.connect(place.url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
