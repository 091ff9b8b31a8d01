"""Keys made beside an erasure leave nothing though their maker is killed; and what opening one costs."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from gateway.errors import KeyServiceUnavailable, SubjectBlocked
from gateway.ports.records import Dsr, SubjectKey
from tests.world import TENANT, World

GRACE = timedelta(days=1)


@pytest.fixture
def w() -> World:
    return World()


async def obtained_late(w: World, cls: str, *, is_killed: bool) -> None:
    """Ask for a key; once the fence said no, let a whole erasure pass, and the maker go on or be killed."""
    handle = await w.handle("ann")
    custody = w.flows.upload.people.custody
    passed, may_go_on = asyncio.Event(), asyncio.Event()
    asked = w.keys.is_fenced

    async def slowly(of: str) -> bool:
        answer = await asked(of)
        if of == handle and not passed.is_set():
            passed.set()
            await may_go_on.wait()
        elif of == handle and is_killed:
            raise asyncio.CancelledError
        return answer

    w.keys.is_fenced = slowly  # type: ignore[method-assign] # the fault that is tried
    obtaining = asyncio.create_task(custody.obtain(TENANT, handle, cls))
    await passed.wait()
    w.keys.is_fenced = asked  # type: ignore[method-assign] # the erasure asks as ever
    await w.erase("ann")
    assert await w.keys.is_fenced(handle)
    w.keys.is_fenced = slowly  # type: ignore[method-assign] # and the maker goes on
    may_go_on.set()
    (raised,) = await asyncio.gather(obtaining, return_exceptions=True)
    w.keys.is_fenced = asked  # type: ignore[method-assign] # for what follows
    assert isinstance(raised, asyncio.CancelledError if is_killed else SubjectBlocked)


@pytest.mark.parametrize("cls", ["content", "dsr"])
async def test_a_key_made_beside_an_erasure_is_taken_back(w: World, cls: str) -> None:
    await w.ready("ann")
    await obtained_late(w, cls, is_killed=False)
    handle = await w.handle("ann")
    assert [key for key in w.records.all(SubjectKey) if key.handle == handle] == []


@pytest.mark.parametrize("cls", ["content", "dsr"])
async def test_a_key_whose_maker_was_killed_beside_an_erasure_is_swept(w: World, cls: str) -> None:
    await w.ready("ann", "bob")
    await obtained_late(w, cls, is_killed=True)
    handle = await w.handle("ann")
    others = [key for key in w.records.all(SubjectKey) if key.handle != handle]
    assert len(w.records.all(SubjectKey)) == len(others) + 1
    await w.flows.sweep.run()
    assert len(w.records.all(SubjectKey)) == len(others) + 1  # a call may still be under way
    w.clock.advance(GRACE)
    await w.flows.sweep.run()
    assert others == w.records.all(SubjectKey)


async def test_keys_of_an_erasure_under_way_are_not_swept_before_it_noted_their_epochs(w: World) -> None:
    await w.ready("ann")
    await w.request("ann")
    handle = await w.handle("ann")
    await w.keys.fence(handle)
    held = [key for key in w.records.all(SubjectKey) if key.handle == handle]
    w.clock.advance(GRACE)
    await w.flows.sweep.run()
    assert held
    assert held == [key for key in w.records.all(SubjectKey) if key.handle == handle]
    await w.carry_out()
    assert [dsr.state for dsr in w.records.all(Dsr)] == ["fulfilled"]


async def test_every_page_of_keys_is_looked_at_in_its_turn(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.flows.sweep.STRAYS", 2)
    await w.ready("ann", "bob", "carl")
    await obtained_late(w, "content", is_killed=True)
    handle = await w.handle("ann")
    w.clock.advance(GRACE)
    for _ in range(len(w.records.all(SubjectKey)) // 2 + 2):
        await w.flows.sweep.run()
    assert [key for key in w.records.all(SubjectKey) if key.handle == handle] == []


async def test_a_subject_key_costs_one_call_of_the_root_in_a_cache_window(w: World) -> None:
    await w.ready("ann")
    custody = w.flows.upload.people.custody
    (key,) = [key for key in w.records.all(SubjectKey) if key.cls == "profile"]
    custody.cache.clear()
    w.trip.calls.clear()
    opened = await asyncio.gather(*(custody.open(key) for _ in range(20)))
    assert len({*opened, await custody.open(key)}) == 1
    assert w.trip.calls.count("keys.unwrap") == 1
    w.clock.advance(custody.cache.ttl)
    assert await custody.open(key) == opened[0]
    assert w.trip.calls.count("keys.unwrap") == 2


async def test_who_waits_for_a_key_hears_that_it_does_not_open_and_the_next_asks_again(w: World) -> None:
    await w.ready("ann")
    custody = w.flows.upload.people.custody
    (key,) = [key for key in w.records.all(SubjectKey) if key.cls == "profile"]
    custody.cache.clear()
    w.trip.lose(0, "before")
    told = await asyncio.gather(*(custody.open(key) for _ in range(3)), return_exceptions=True)
    assert [KeyServiceUnavailable] * 3 == [type(fault) for fault in told]
    assert len(await custody.open(key)) == 32
