"""Subject keys are wrapped anew, and what wrapped them before is gone for good."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import pytest

from gateway.errors import KeyServiceUnavailable, StoreUnavailable
from gateway.ports.keys import Epoch, EpochDestroyed
from gateway.ports.records import Consent, StoredObject, SubjectKey
from tests.unit.flows.test_hold import hold, pass_terms
from tests.unit.flows.test_replay import replayed
from tests.world import OFFICER, OTHER_TENANT, World


@pytest.fixture
async def w() -> World:
    world = World()
    await world.ready("ann", "bob")
    return world


async def test_a_rotation_leaves_every_key_and_no_epoch_of_before(w: World) -> None:
    job = await w.portrait("ann")
    before = await w.keys.epochs()
    rows = {row.key_id: row for row in w.records.all(SubjectKey)}
    rehearsed, receipt = await w.flows.rotation.rotate(OFFICER, rehearse=True)
    assert (rehearsed, receipt) == (len(rows), None)
    assert await w.keys.epochs() == before
    moved, receipt = await w.flows.rotation.rotate(OFFICER)
    assert moved == len(rows)
    assert receipt is not None
    assert not {*before} & {*await w.keys.epochs()}
    for row in w.records.all(SubjectKey):
        assert row.wrapped != rows[row.key_id].wrapped
        with pytest.raises(EpochDestroyed):
            await w.keys.wrap(Epoch.parse(rows[row.key_id].epoch), bytes(32), b"")
    assert await w.process().release.run(OFFICER, job.job_id)
    (said,) = w.events("key.rotated")
    assert (said["nkey"], said["nepo"]) == (moved, len(before))
    assert (await replayed(w)).violations == ()


async def test_another_tenants_epochs_stay(w: World) -> None:
    other = Epoch(OTHER_TENANT, "content", "2030-01", 0)
    await w.keys.create_epoch(other)
    await w.flows.rotation.rotate(OFFICER)
    assert other in await w.keys.epochs()


async def test_a_rotation_that_broke_off_is_gone_on_with(w: World) -> None:
    await w.portrait("ann")
    before = await w.keys.epochs()
    w.trip.calls.clear()
    await w.flows.rotation.rotate(OFFICER, rehearse=True)
    for at in range(0, 40, 7):
        w.trip.lose(at, "after")
        with contextlib.suppress(KeyServiceUnavailable, StoreUnavailable):
            await w.flows.rotation.rotate(OFFICER)
        w.trip.act = None
    moved, _ = await w.flows.rotation.rotate(OFFICER)
    assert moved == w.count(SubjectKey)
    assert not {*before} & {*await w.keys.epochs()}
    assert await w.portrait("ann")


async def test_the_key_of_a_proof_that_ended_dies_within_the_bound(w: World) -> None:
    """Its row goes at the end of its term; a copy of it opens until the epoch's key is gone."""
    await w.portrait("ann")
    await w.erase("ann")
    (kept,) = [row for row in w.records.all(Consent) if row.handle is None]
    (key,) = [row for row in w.records.all(SubjectKey) if row.key_id == kept.key_id]
    assert kept.keep_until is not None
    w.clock.advance(kept.keep_until - w.clock.now() + timedelta(minutes=1))
    await w.flows.sweep.run()
    assert key.key_id not in {row.key_id for row in w.records.all(SubjectKey)}
    assert await w.flows.rotation.retire() == 0
    assert Epoch.parse(key.epoch) in await w.keys.epochs()
    w.clock.advance(timedelta(hours=12))
    assert await w.flows.rotation.retire() == 1
    assert Epoch.parse(key.epoch) not in await w.keys.epochs()
    assert await w.flows.rotation.retire() == 0
    assert len(w.events("key.rotated")) == 1
    await w.portrait("bob")


async def test_without_the_key_service_nothing_is_rotated(w: World) -> None:
    before = w.records.all(SubjectKey)
    w.trip.lose(0, "before")
    with pytest.raises(KeyServiceUnavailable):
        await w.flows.rotation.rotate(OFFICER)
    assert w.records.all(SubjectKey) == before
    assert w.events("key.rotated") == []


class TestMonthsThatAreOver:
    """What was kept for a month dies with the month's epoch key, also in old copies of the database."""

    async def test_the_keys_go_and_old_copies_of_their_rows_open_nothing(self, w: World) -> None:
        await w.portrait("ann")
        await w.portrait("bob")
        copies = content_keys(w)
        epochs = {copy.epoch for copy in copies}
        assert len(copies) == 2 * len(epochs)  # of two people, for the months of original and result
        await pass_month(w)
        assert content_keys(w) == []
        w.clock.advance(timedelta(hours=12))
        await w.flows.rotation.retire()
        assert not epochs & {*map(str, await w.keys.epochs())}
        for copy in copies:
            with pytest.raises(EpochDestroyed):
                await w.keys.unwrap(Epoch.parse(copy.epoch), copy.wrapped, b"")
        assert (await replayed(w)).violations == ()

    async def test_what_a_hold_keeps_is_wrapped_anew_and_opens(self, w: World) -> None:
        job = await w.portrait("ann")
        await w.portrait("bob")
        placed = await hold(w)
        (kept,) = [row for row in w.records.all(StoredObject) if row.object_id == job.result_object]
        await pass_month(w)
        assert [key.key_id for key in content_keys(w)] == [kept.key_id]
        w.clock.advance(timedelta(hours=12))
        assert await w.flows.rotation.retire()
        (held,) = [row for row in w.records.all(StoredObject) if row.object_id == job.result_object]
        assert await w.process().upload.safe.open(held)
        before = content_keys(w)
        await w.flows.sweep.run()
        w.clock.advance(timedelta(hours=12))
        assert await w.flows.rotation.retire() == 0
        assert content_keys(w) == before
        await w.flows.retention.release(OFFICER, placed.hold_id)
        await w.flows.sweep.run()
        await w.flows.sweep.run()
        assert content_keys(w) == []

    async def test_pages_of_keys_are_all_looked_at(self, w: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gateway.flows.sweep.EXPIRE_BATCH", 1)
        await w.portrait("ann")
        await w.portrait("bob")
        await pass_month(w)
        assert content_keys(w) == []

    async def test_an_erasure_does_not_leave_them_to_the_bound(self, w: World) -> None:
        """Its certificate says that nothing sealed opens any more: so must it be for what has just ended."""
        await w.portrait("ann")
        epochs = {Epoch.parse(copy.epoch) for copy in content_keys(w)}
        await pass_month(w)
        assert epochs <= {*await w.keys.epochs()}
        await w.erase("ann")
        assert not epochs & {*await w.keys.epochs()}


def content_keys(w: World) -> list[SubjectKey]:
    return [row for row in w.records.all(SubjectKey) if row.cls == "content"]


async def pass_month(w: World) -> None:
    """Let the month be over in which the last picture ends, and the sweeper come on time."""
    await pass_terms(w)
    w.clock.advance(timedelta(days=33))
    await w.flows.sweep.run()
