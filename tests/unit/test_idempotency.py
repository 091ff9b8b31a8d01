"""Answered request_ids (AIP-155)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gateway.errors import IdempotencyConflict
from gateway.idempotency import TERM, Idempotency, Ticket
from gateway.ports.records import Remembered
from tests.fakes.clock import FrozenClock
from tests.fakes.keys import FakeKeys
from tests.fakes.records import MemoryRecords


class Desk:
    def __init__(self) -> None:
        self.clock, self.records = FrozenClock(), MemoryRecords()
        self.idempotency = Idempotency(FakeKeys(), self.clock)

    async def ticket(
        self, content: bytes = b"a portrait", request_id: str = "1", tenant: str = "acme"
    ) -> Ticket:
        made = await self.idempotency.ticket(tenant, "CreateJob", request_id, content)
        assert made is not None
        return made

    async def recall(self, ticket: Ticket | None) -> str | None:
        return await self.records.transact(lambda tx: self.idempotency.recall(tx, ticket))

    async def remember(self, ticket: Ticket | None, resource: str = "the job") -> None:
        await self.records.transact(lambda tx: self.idempotency.remember(tx, ticket, resource))


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_a_call_without_a_request_id_is_never_remembered(desk: Desk) -> None:
    assert await desk.idempotency.ticket("acme", "CreateJob", "", b"") is None
    await desk.remember(None)
    assert await desk.recall(None) is None
    assert desk.records.all(Remembered) == []


async def test_the_same_call_is_recalled_and_another_is_not(desk: Desk) -> None:
    await desk.remember(await desk.ticket())
    assert await desk.recall(await desk.ticket()) == "the job"
    assert await desk.recall(await desk.ticket(request_id="2")) is None
    assert await desk.recall(await desk.ticket(tenant="other")) is None


async def test_other_content_under_the_same_id_is_a_conflict(desk: Desk) -> None:
    await desk.remember(await desk.ticket())
    with pytest.raises(IdempotencyConflict):
        await desk.recall(await desk.ticket(b"another portrait"))


async def test_an_answer_is_forgotten_after_a_day_and_its_id_may_be_used_again(desk: Desk) -> None:
    await desk.remember(await desk.ticket())
    desk.clock.advance(TERM - timedelta(microseconds=1))
    assert await desk.recall(await desk.ticket()) == "the job"
    desk.clock.advance(timedelta(microseconds=1))
    other = await desk.ticket(b"another portrait")
    assert await desk.recall(other) is None
    await desk.remember(other, "another job")
    assert await desk.recall(other) == "another job"


async def test_the_content_itself_is_not_kept(desk: Desk) -> None:
    await desk.remember(await desk.ticket(b"ann@example.org"))
    assert "ann" not in repr(desk.records.all(Remembered))
