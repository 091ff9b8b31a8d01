"""What fails again and again is tried after longer pauses, set aside with an alarm, and in nobody's way."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from gateway import compose
from gateway.caller import Caller
from gateway.debts import EPOCH, FIRST_PAUSE, FORGET, LONGEST_PAUSE, OBJECT, UNCLAIMED
from gateway.errors import KeyServiceUnavailable, LetheError, MessageInvalid, StoreUnavailable
from gateway.flows.retention import HoldDraft
from gateway.ports.keys import Epoch
from gateway.ports.records import ClosedEpoch, Debt, Job, StoredObject, Transaction
from tests.unit.flows.test_replay import replayed
from tests.world import APP, OFFICER, OTHER_TENANT, TENANT, World

STRANGER = replace(OFFICER, tenant=OTHER_TENANT)


class Alarmed(World):
    """A world that notes its alarms, tries things three times, and breaks for single things."""

    def __init__(self) -> None:
        self.alarms: list[tuple[str, ...]] = []
        super().__init__()
        sweeping = self.settings.sweep.model_copy(update={"tries": 3})
        self.settings = self.settings.model_copy(update={"sweep": sweeping})
        self.broken: set[str] = set()
        delete, destroy, forget = self.objects.delete, self.keys.destroy_epoch, self.backend.forget

        async def deleting(object_id: str) -> None:
            if object_id in self.broken:
                raise StoreUnavailable
            await delete(object_id)

        async def destroying(epoch: Epoch) -> None:
            if str(epoch) in self.broken:
                raise KeyServiceUnavailable
            await destroy(epoch)

        async def forgetting(pseudonym: str) -> None:
            if pseudonym in self.broken:
                raise StoreUnavailable
            await forget(pseudonym)

        self.objects.delete = deleting  # type: ignore[method-assign]
        self.keys.destroy_epoch = destroying  # type: ignore[method-assign]
        self.backend.forget = forgetting  # type: ignore[method-assign]
        self.flows = self.process()

    def process(self) -> compose.Flows:
        made = compose.flows(
            self.settings, self.outside, self.signers, lambda *words: self.alarms.append(words)
        )
        made.backends.known["studio"] = self.backend.facts
        return made

    @property
    def owed(self) -> list[Debt]:
        return self.records.all(Debt)

    async def sweep_after(self, pause: timedelta) -> None:
        self.clock.advance(pause + timedelta(seconds=1))
        await self.flows.sweep.run()


@pytest.fixture
async def w() -> Alarmed:
    made = Alarmed()
    await made.ready("ann", "bob")
    return made


async def two_doomed(w: Alarmed) -> tuple[str, str]:
    """Return two results; the bytes of the first cannot be removed when their term is over."""
    first, second = await w.portrait("ann"), await w.portrait("bob")
    w.broken.add(first.result_object)
    end = max(row.expires_at for row in w.records.all(StoredObject))
    w.clock.advance(end - w.clock.now())
    await w.sweep_after(timedelta(0))
    return first.result_object, second.result_object


async def test_one_object_that_cannot_be_removed_holds_up_no_other(w: Alarmed) -> None:
    stuck, _ = await two_doomed(w)
    assert set(w.objects.held) == {stuck}
    (debt,) = w.owed
    assert (debt.kind, debt.item, debt.tenant, debt.tries, debt.code) == (
        OBJECT,
        stuck,
        TENANT,
        1,
        "STORE_UNAVAILABLE",
    )
    assert debt.retry_at == w.clock.now() + FIRST_PAUSE
    assert w.alarms == []
    w.check()


async def test_it_rests_for_its_pause_and_the_pause_doubles(w: Alarmed) -> None:
    await two_doomed(w)
    await w.flows.sweep.run()
    assert [debt.tries for debt in w.owed] == [1]
    await w.sweep_after(FIRST_PAUSE)
    (debt,) = w.owed
    assert (debt.tries, debt.retry_at) == (2, w.clock.now() + 2 * FIRST_PAUSE)


async def test_after_so_many_tries_it_is_set_aside_with_an_alarm_and_a_leaf(w: Alarmed) -> None:
    stuck, _ = await two_doomed(w)
    for _ in range(4):
        await w.sweep_after(LONGEST_PAUSE)
    (debt,) = w.owed
    assert (debt.tries, debt.retry_at) == (3, None)
    assert w.alarms == [("debt_set_aside", OBJECT)]
    assert [(leaf["obj"], leaf["ntry"]) for leaf in w.events("object.stuck")] == [(stuck, 3)]
    assert (await replayed(w)).violations == ()


async def test_an_officer_has_it_taken_up_again(w: Alarmed) -> None:
    stuck, _ = await two_doomed(w)
    for _ in range(3):
        await w.sweep_after(LONGEST_PAUSE)
    assert (await w.flows.sweep.outlook(OFFICER)).owed == 1
    assert (await w.flows.sweep.outlook(STRANGER)).owed == 0
    w.broken.clear()
    found, _ = await w.flows.sweep.run_for(OFFICER, "REPAIRED")
    assert found.owed == 1
    assert w.owed == []
    assert w.objects.held == {}
    assert stuck not in {row.object_id for row in w.records.all(StoredObject)}


async def test_what_succeeds_later_is_owed_no_more(w: Alarmed) -> None:
    await two_doomed(w)
    w.broken.clear()
    await w.sweep_after(FIRST_PAUSE)
    assert w.owed == []
    assert w.objects.held == {}


async def test_a_store_that_is_out_is_no_debt_of_its_objects(w: Alarmed) -> None:
    await w.portrait("ann")
    w.clock.advance(timedelta(days=60))
    w.objects.faults.is_down = True
    with pytest.raises(StoreUnavailable):
        await w.flows.sweep.run()
    assert w.owed == []
    w.objects.faults.is_down = False
    await w.flows.sweep.run()
    assert w.objects.held == {}


async def test_unclaimed_bytes_that_cannot_be_removed_hold_up_no_others(w: Alarmed) -> None:
    async def piece() -> object:
        yield b"cut off"

    names = [f"{number:032x}" for number in range(3)]
    for name in names:
        await w.objects.put(name, piece())
    w.broken.add(names[0])
    await w.sweep_after(timedelta(hours=1))
    assert set(w.objects.held) == {names[0]}
    assert [(debt.kind, debt.item, debt.tenant) for debt in w.owed] == [(UNCLAIMED, names[0], "")]
    w.broken.clear()
    await w.sweep_after(FIRST_PAUSE)
    assert (w.owed, w.objects.held) == ([], {})


async def test_an_erasure_is_certified_though_bytes_were_owed(w: Alarmed) -> None:
    """What is owed names an object: once that is gone, nothing of it may be found."""
    stuck, _ = await two_doomed(w)
    assert w.owed
    w.broken.clear()
    await w.erase("ann")
    assert w.owed == []
    assert stuck not in w.objects.held
    assert len(w.events("subject.erased")) == 1


# --- epochs -------------------------------------------------------------------------------------


async def test_an_epoch_that_cannot_be_rolled_holds_up_no_other(w: Alarmed) -> None:
    epochs = [epoch for epoch in await w.keys.epochs() if epoch.tenant == TENANT]
    assert len(epochs) > 1

    def close(tx: Transaction) -> None:
        tx.add(*(ClosedEpoch(str(epoch), w.clock.now()) for epoch in epochs))

    await w.records.transact(close)
    w.broken.add(str(epochs[0]))
    w.clock.advance(timedelta(hours=13))
    assert await w.flows.rotation.retire() == len(epochs) - 1
    assert [(debt.kind, debt.item) for debt in w.owed] == [(EPOCH, str(epochs[0]))]
    assert set(epochs) & set(await w.keys.epochs()) == {epochs[0]}
    for _ in range(3):
        w.clock.advance(LONGEST_PAUSE)
        await w.flows.rotation.retire()
    assert w.alarms == [("debt_set_aside", EPOCH)]
    w.broken.clear()
    await w.flows.sweep.run_for(OFFICER, "REPAIRED")
    assert await w.flows.rotation.retire() == 1
    assert w.owed == []


async def test_what_another_has_seen_to_is_owed_no_more(w: Alarmed) -> None:
    gone = [
        Debt(
            EPOCH,
            f"{TENANT}/content/2020-01/0",
            TENANT,
            "",
            3,
            "KEY_SERVICE_UNAVAILABLE",
            w.clock.now(),
            None,
        ),
        Debt(UNCLAIMED, "0" * 32, "", "", 3, "STORE_UNAVAILABLE", w.clock.now(), None),
    ]
    await w.records.transact(lambda tx: tx.add(*gone))
    await w.flows.sweep.run()
    await w.flows.rotation.retire()
    assert w.owed == []


async def test_a_key_service_that_is_out_is_no_debt_of_an_epoch(w: Alarmed) -> None:
    (epoch, *_) = [epoch for epoch in await w.keys.epochs() if epoch.tenant == TENANT]
    await w.records.transact(lambda tx: tx.add(ClosedEpoch(str(epoch), w.clock.now())))
    w.clock.advance(timedelta(hours=13))
    real = w.keys.epochs
    calls: list[int] = []

    async def epochs() -> list[Epoch]:
        calls.append(1)
        if len(calls) > 1:
            w.keys.faults.is_down = True
        return await real()

    w.keys.epochs = epochs  # type: ignore[method-assign]
    with pytest.raises(KeyServiceUnavailable):
        await w.flows.rotation.retire()
    assert w.owed == []


async def test_only_epochs_that_stand_are_read(w: Alarmed) -> None:
    """Rows of epochs that are gone stay for ever: they must not be read at each sweep."""
    gone = [ClosedEpoch(f"{TENANT}/content/2020-01/{roll}", w.clock.now()) for roll in range(300)]
    await w.records.transact(lambda tx: tx.add(*gone))
    w.clock.advance(timedelta(days=2))
    read: list[object] = []
    real = w.records.transact

    async def transact(work: object) -> object:
        result = await real(work)  # type: ignore[arg-type]
        if isinstance(result, list):
            read.extend(row for row in result if isinstance(row, ClosedEpoch))
        return result

    w.records.transact = transact  # type: ignore[method-assign]
    assert await w.flows.rotation.retire() == 0
    assert read == []


# --- backends that do not forget -----------------------------------------------------------------


async def erased_while_owed(w: Alarmed) -> Job:
    """Return a job of an erased subject of which the backend has not confirmed that it forgot it."""
    job = (await w.upload("ann")).job
    w.broken.add(job.backend_job)
    await w.work()
    object.__setattr__(w.flows.erasure, "forget_wait", timedelta(seconds=0.05))
    await w.erase("ann")
    return job


async def test_a_backend_is_asked_on_after_an_erasure_until_it_confirms(w: Alarmed) -> None:
    """GDPR Art. 17(1), 28(3)(g)."""
    job = await erased_while_owed(w)
    assert [leaf["nowed"] for leaf in w.events("subject.erased")] == [1]
    (debt,) = w.owed
    assert (debt.kind, debt.item) == (FORGET, f"studio/{job.backend_job}")
    assert job.job_id not in debt.item
    assert await w.flows.generate.settle() == 0
    w.broken.clear()
    assert await w.flows.generate.settle() == 0  # it rests
    w.clock.advance(FIRST_PAUSE)
    assert await w.flows.generate.settle() == 1
    assert w.owed == []
    (said,) = w.events("forget.ended")
    (erased,) = w.events("subject.erased")
    assert (said["dsr"], said["how"], said["ntry"]) == (erased["dsr"], "confirmed", 2)
    assert (await replayed(w)).violations == ()


async def test_a_backend_that_never_confirms_is_given_up_with_an_alarm(w: Alarmed) -> None:
    await erased_while_owed(w)
    for _ in range(5):
        await w.flows.generate.settle()
        w.clock.advance(LONGEST_PAUSE)
    assert [(leaf["how"], leaf["ntry"]) for leaf in w.events("forget.ended")] == [("given_up", 3)]
    assert w.alarms == [("debt_set_aside", FORGET)]


async def test_a_backend_that_is_not_configured_any_more_is_given_up_too(w: Alarmed) -> None:
    await erased_while_owed(w)
    w.outside = replace(w.outside, backends={})
    w.flows = w.process()
    for _ in range(3):
        await w.flows.generate.settle()
        w.clock.advance(LONGEST_PAUSE)
    assert [leaf["how"] for leaf in w.events("forget.ended")] == ["given_up"]


# --- what people see -----------------------------------------------------------------------------


async def test_debts_are_listed_in_pages_to_their_tenant(w: Alarmed) -> None:
    made = [
        Debt(kind, f"{number:032x}", tenant, "", 1, "STORE_UNAVAILABLE", w.clock.now(), None)
        for kind in (OBJECT, UNCLAIMED, FORGET)
        for number, tenant in enumerate((TENANT, TENANT, OTHER_TENANT, ""))
    ]
    await w.records.transact(lambda tx: tx.add(*made))
    wanted = sorted((debt.kind, debt.item) for debt in made if debt.tenant in {TENANT, ""})
    for size in (1, 2, 4, 100):
        assert await listed(w, OFFICER, size) == wanted


async def listed(w: Alarmed, caller: Caller, size: int) -> list[tuple[str, str]]:
    found, token = [], ""
    while True:
        page = await w.flows.retention.debts(caller, size, token)
        assert len(page.items) <= size
        found += [(debt.kind, debt.item) for debt in page.items]
        token = page.next_token
        if not token:
            return found


async def test_a_sweep_by_an_officer_destroys_what_is_due_and_says_why(w: Alarmed) -> None:
    await w.portrait("ann")
    (kept,) = w.records.all(StoredObject)
    w.clock.advance(kept.expires_at - w.clock.now() + timedelta(minutes=1))
    before = await w.flows.sweep.outlook(OFFICER)
    assert (before.due, before.held) == (1, 0)
    assert w.events("retention.swept") == []
    found, receipt = await w.flows.sweep.run_for(OFFICER, "COMPLAINT")
    assert (found.due, receipt.origin) == (1, "lethe.test/0a")
    assert [(leaf["rc"], leaf["nobj"]) for leaf in w.events("retention.swept")] == [("COMPLAINT", 1)]
    assert w.count(StoredObject) == 0
    assert (await w.flows.sweep.outlook(OFFICER)).due == 0
    assert (await replayed(w)).violations == ()


async def test_the_outlook_counts_what_a_hold_keeps(w: Alarmed) -> None:
    await w.portrait("ann")
    await w.portrait("bob")
    await w.flows.retention.place(OFFICER, HoldDraft("ann", "GDPR Art. 17(3)(e)"))
    w.clock.advance(timedelta(days=60))
    found = await w.flows.sweep.outlook(OFFICER)
    assert (found.due, found.held) == (2, 1)
    await w.flows.sweep.run()
    found = await w.flows.sweep.outlook(OFFICER)
    assert (found.due, found.held) == (1, 1)


async def test_a_sweep_without_a_reason_is_refused_and_changes_nothing(w: Alarmed) -> None:
    await w.portrait("ann")
    w.clock.advance(timedelta(days=60))
    with pytest.raises(MessageInvalid):
        await w.flows.sweep.run_for(OFFICER, "")
    assert w.count(StoredObject) == 1


async def test_a_loss_at_any_call_of_a_failing_sweep_keeps_the_debt_and_the_leaf_together() -> None:
    for at in range(24):
        w = Alarmed()
        await w.ready("ann", "bob")
        await two_doomed(w)
        w.records.fail_next("lost_reply" if at % 2 else "lost", after=at // 2)
        for _ in range(5):
            try:
                await w.sweep_after(LONGEST_PAUSE)
            except LetheError:
                continue
        assert len(w.events("object.stuck")) == 1
        assert [debt.retry_at for debt in w.owed] == [None]
        assert set(w.alarms) <= {("debt_set_aside", OBJECT)}


async def test_what_is_held_of_a_subject_comes_in_pages(w: Alarmed) -> None:
    """GDPR Art. 15(1)."""
    for _ in range(3):
        await w.portrait("ann")
    whole = await w.flows.subjects.stored_data(APP, "ann")
    names = [held.name for held in whole.items]
    assert names == sorted(names)
    assert whole.next_token == ""
    found, token = [], ""
    while True:
        page = await w.flows.subjects.stored_data(APP, "ann", 2, token)
        found += [held.name for held in page.items]
        token = page.next_token
        if not token:
            break
    assert found == names
    of_ann = (await w.flows.subjects.stored_data(APP, "ann", 2)).next_token
    with pytest.raises(MessageInvalid):
        await w.flows.subjects.stored_data(APP, "bob", 2, of_ann)
