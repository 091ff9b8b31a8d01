"""No personal data without an eraser."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import fields
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from gateway.holdings import Holding, in_order
from gateway.ledger import Ledger
from gateway.ports.records import SUBJECT_TABLES, Consent, Job, Record, StoredObject, SubjectKey, kinds
from policy.erasure import ErasurePlan, Kept, plan
from policy.terms import KeyClass
from tests import invariants
from tests.fakes.clock import NOON, FrozenClock
from tests.world import APP, TENANT, World

HOLDINGS = in_order(Ledger(FrozenClock(), {})).each


def _carries_a_subject(kind: type[Record]) -> bool:
    return "handle" in {field.name for field in fields(kind)}


def test_each_record_kind_is_listed_once() -> None:
    assert Counter(kinds()).most_common(1)[0][1] == 1
    assert len({kind.__name__ for kind in kinds()}) == len(list(kinds()))


def test_every_kind_with_a_handle_is_a_subject_table() -> None:
    assert {kind for kind in kinds() if _carries_a_subject(kind)} == set(SUBJECT_TABLES)


@pytest.mark.parametrize("kind", SUBJECT_TABLES)
def test_every_subject_table_has_exactly_one_owner(kind: type[Record]) -> None:
    """GDPR Art. 17(1): whatever is held can be let go of."""
    assert [kind in holding.kinds for holding in HOLDINGS].count(True) == 1


@pytest.mark.parametrize("holding", HOLDINGS, ids=lambda holding: type(holding).__name__)
def test_a_holding_owns_only_what_carries_a_subject(holding: Holding) -> None:
    assert set(holding.kinds) <= set(SUBJECT_TABLES)


def test_jobs_go_first_so_that_no_new_copy_is_made() -> None:
    assert HOLDINGS[0].kinds == (Job,)


PLANS = st.lists(st.sampled_from(list(KeyClass)), unique=True).map(
    lambda kept: ErasurePlan(
        tuple(cls for cls in KeyClass if cls not in kept),
        tuple(Kept(cls, "GDPR Art. 17(3)(e)", NOON) for cls in kept),
    )
)
STEPS = st.lists(
    st.sampled_from(["upload", "portrait", "signal", "dsr", "withdraw", "consent", "cancel"]), max_size=6
)


@given(steps=STEPS, chosen=PLANS)
@effort(max_examples=40, deadline=None)
def test_after_an_erasure_no_record_of_any_kind_carries_the_handle(
    steps: list[str], chosen: ErasurePlan
) -> None:
    async def run() -> None:
        w = World()
        await w.ready("ann", "bob")
        await w.portrait("bob")
        for step in steps:
            await _do(w, step)
        handle = await w.handle("ann")
        bobs = _rows_of(w, await w.handle("bob"))
        holdings = w.flows.erasure.holdings
        first = await w.records.transact(lambda tx: holdings.erase(tx, TENANT, handle, chosen))
        invariants.check_gone(w.rows, handle)
        again = await w.records.transact(lambda tx: holdings.erase(tx, TENANT, handle, chosen))
        assert set(again.values()) == {0}
        assert first["njob"] >= 0
        assert await w.records.transact(lambda tx: holdings.locate(tx, TENANT, handle)) == []
        assert _rows_of(w, await w.handle("bob")) == bobs

    asyncio.run(run())


async def _do(w: World, step: str) -> None:
    if step == "upload":
        await w.upload("ann")
    elif step == "portrait":
        await w.portrait("ann")
    elif step == "signal":
        await w.flows.consents.signal(APP, "ann", gpc=True, limit_spi=False)
    elif step == "dsr":
        await w.request("ann")
    elif step == "withdraw":
        await w.flows.consents.withdraw(APP, subject_id="ann", purpose="generate")
        await _consent_again(w)
    elif step == "consent":
        await _consent_again(w)
    else:
        for job in w.records.all(Job):
            await w.flows.jobs.cancel(APP, job.job_id)


async def _consent_again(w: World) -> None:
    w.clock.advance(timedelta(seconds=1))
    await w.consent("ann")


def _rows_of(w: World, handle: str) -> list[Record]:
    return [
        row for kind in SUBJECT_TABLES for row in w.records.all(kind) if getattr(row, "handle", "") == handle
    ]


async def test_kept_keys_and_consents_stay_without_the_handle_and_until_their_term() -> None:
    """GDPR Art. 17(3)(b), (e)."""
    w = World()
    await w.ready("ann")
    handle = await w.handle("ann")
    chosen = plan((w.flows.packs["gdpr"],), KeyClass, w.clock.now())
    await w.records.transact(lambda tx: w.flows.erasure.holdings.erase(tx, TENANT, handle, chosen))
    (key,) = w.records.all(SubjectKey)
    (consent,) = w.records.all(Consent)
    assert (key.cls, key.handle, consent.handle) == ("evidence", None, None)
    assert consent.keep_until == next(kept.until for kept in chosen.keep if kept.cls is KeyClass.EVIDENCE)


async def test_a_destroyed_object_that_waits_for_the_sweeper_is_not_forgotten() -> None:
    w = World()
    await w.ready("ann")
    job = await w.portrait("ann")
    w.objects.faults.is_down = True
    await w.flows.jobs.delete(APP, job.job_id)
    (left,) = w.records.all(StoredObject)
    assert left.state == "destroyed"
    handle = await w.handle("ann")
    chosen = plan((w.flows.packs["gdpr"],), KeyClass, w.clock.now())
    await w.records.transact(lambda tx: w.flows.erasure.holdings.erase(tx, TENANT, handle, chosen))
    invariants.check_gone(w.rows, handle)
