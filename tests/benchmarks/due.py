"""Pages of the due list, of open requests by the day their answer is due, in both databases."""

from __future__ import annotations

import contextlib
import itertools
import random
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.sql.records import open_records
from gateway.adapters.sql.schema import migrate
from gateway.caller import Caller, Role
from gateway.dsrs import due_key
from gateway.flows.register import Register
from gateway.ports.records import Dsr, Records
from tests.benchmarks.measure import Side, Table, table, take_turns
from tests.postgres import running_postgres

OFFICER = Caller("acme", "officer", Role.PRIVACY_OFFICER, is_person=True)
PAGE = 50
BATCH = 500
FIRST, MIDDLE = "the first page", "a page in the middle"


@dataclass(frozen=True)
class Counts:
    """How many requests are open, and how many pages a side reads in its turn."""

    rounds: int
    open: int
    pages: int


FULL = Counts(rounds=5, open=100_000, pages=40)
QUICK = Counts(rounds=1, open=300, pages=2)


async def run(*, quick: bool) -> list[Table]:
    """Return one table: milliseconds for a page of fifty."""
    counts = QUICK if quick else FULL
    notes = [f"{counts.open} open requests; a page of {PAGE}; to be at most 50 ms"]
    sides: dict[str, Side] = {}
    async with contextlib.AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lethe-bench-")))
        urls = {"SQLite": f"sqlite://{home / 'lethe.db'}"}
        try:
            urls["PostgreSQL"] = await stack.enter_context(running_postgres()).create("due")
        except (pytest.skip.Exception, pytest.fail.Exception) as missing:
            notes.append(f"PostgreSQL was not measured: {missing.msg}")
        for name, url in urls.items():
            records = await stack.enter_async_context(_filled(url, counts.open))
            register = Register(records, {}, {}, SystemClock())
            middle = await _token(register, counts.open // 2)
            sides[f"{name}, {FIRST}"] = _pages(register, counts.pages, "")
            sides[f"{name}, {MIDDLE}"] = _pages(register, counts.pages, middle)
        for side in sides.values():
            await side()  # statements compiled, connections made
        seen = await take_turns(sides, counts.rounds)
    return [table("list what is due next", "ms a page", f"SQLite, {FIRST}", seen, notes)]


def _pages(register: Register, count: int, token: str) -> Side:
    async def side() -> float:
        begun = time.perf_counter()
        for _ in range(count):
            page = await register.due(OFFICER, "", PAGE, token)
            assert page.items
        return (time.perf_counter() - begun) / count * 1000

    return side


async def _token(register: Register, place: int) -> str:
    """Return the token of the page at about that place."""
    token = ""
    for _ in range(max(1, place // 1000)):
        page = await register.due(OFFICER, "", min(1000, place), token)
        token = page.next_token
    return token


@contextlib.asynccontextmanager
async def _filled(url: str, number: int) -> AsyncIterator[Records]:
    await migrate(url)
    records = open_records(url)
    try:
        numbers = itertools.count()
        for start in range(0, number, BATCH):
            some = [_request(next(numbers)) for _ in range(min(BATCH, number - start))]
            await records.transact(lambda tx, some=some: tx.add(*some))  # type: ignore[misc]  # bound now
        yield records
    finally:
        await records.close()


def _request(number: int) -> Dsr:
    chance = random.Random(number)
    received_at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number * 60)
    due_on = (date(2026, 2, 1) + timedelta(days=chance.randrange(90))).isoformat()
    dsr_id = f"{chance.getrandbits(128):032x}"
    return Dsr(
        dsr_id=dsr_id,
        tenant=OFFICER.tenant,
        handle=f"{chance.getrandbits(256):064x}",
        kind="access",
        regime="gdpr",
        state=chance.choice(["received", "identity_pending", "verified", "approved"]),
        step=0,
        opened_by="app",
        approved_by="",
        reason_code="",
        received_at=received_at,
        due_on=due_on,
        extended_due_on="",
        internal_target_on=due_on,
        counts={},
        certificate_id="",
        lease_owner="",
        lease_until=None,
        created_at=received_at,
        updated_at=received_at,
        policy={"gdpr": f"{chance.getrandbits(256):064x}"},
        due_key=due_key(due_on, dsr_id),
    )
