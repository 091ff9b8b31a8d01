"""What the gateway does breaks no rule that an auditor replays, whatever happens to it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from audit.payloads import Payload
from audit.replay import ReplayReport, Tally, replay
from gateway.errors import PolicyDenied
from gateway.ports.records import Leaf, SealedPayload, StoredObject, Subject
from policy.coded import recompute
from tests.world import APP, ORIGIN, World


async def replayed(w: World) -> ReplayReport:
    """Return what an auditor finds in the whole log, to whom no payload is open."""
    await w.flows.sequence.run()
    leaves = sorted((leaf for leaf in w.records.all(Leaf) if leaf.log == ORIGIN), key=lambda leaf: leaf.seq)
    places = {leaf.event_id: leaf.seq for leaf in leaves}
    payloads = [
        Payload(places[one.event_id], one.slot, "erased", by=places[one.erased_by])
        if one.erased_by
        else Payload(places[one.event_id], one.slot, "withheld")
        for one in w.records.all(SealedPayload)
        if one.log == ORIGIN
    ]
    sources = {pack.digest: pack.source_bytes for pack in w.flows.packs.values()}
    rows = [(leaf.seq, json.loads(leaf.line)) for leaf in leaves]
    return replay(rows, payloads, sources, recompute)


async def tick(w: World) -> None:
    w.clock.advance(timedelta(seconds=1))


async def test_a_picture_from_consent_to_the_end_of_its_term() -> None:
    w = World()
    await w.ready("ann", "ben")
    await tick(w)
    job = await w.portrait("ann")
    await tick(w)
    await w.released(job.job_id)
    await w.agree_to_terms("ben")
    with pytest.raises(PolicyDenied):
        await w.upload("ben")
    assert (await replayed(w)).promises["destroyed_in_time"] == Tally(kept=1, pending=1)
    end = next(row.expires_at for row in w.records.all(StoredObject))
    w.clock.advance(end - w.clock.now() + timedelta(minutes=1))
    await w.settle()
    report = await replayed(w)
    assert report.violations == ()
    assert (report.verdict, report.coded, report.not_replayable) == ("kept", 3, 0)
    assert report.promises["destroyed_in_time"] == Tally(kept=2)
    assert report.promises["released_with_permission"] == Tally(kept=1)
    forwarded = report.promises["forwarded_with_consent"]
    # While the clock stands still, events of one instant have no order.
    assert forwarded in (Tally(kept=1), Tally(unclear=1))


async def test_a_withdrawal_a_restriction_and_an_erasure() -> None:
    w = World()
    await w.ready("ann", "ben", "cem")
    await w.portrait("ann")
    await tick(w)
    waiting = await w.upload("ben")
    await tick(w)
    await w.flows.consents.withdraw(APP, subject_id="ben", purpose="generate")
    assert w.job(waiting.job.job_id).state == "cancelled"
    with pytest.raises(PolicyDenied):
        await w.upload("ben")
    await tick(w)
    await w.consent("ben")
    await tick(w)
    await w.portrait("ben")
    handle = await w.handle("cem")
    subject = next(row for row in w.records.all(Subject) if row.handle == handle)
    await w.records.transact(lambda tx: tx.put(replace(subject, state="restricted")))
    with pytest.raises(PolicyDenied):
        await w.upload("cem")
    await tick(w)
    await w.erase("ann")
    await w.settle()
    report = await replayed(w)
    assert report.violations == ()
    assert (report.verdict, report.coded) == ("kept", 7)
    assert report.promises["erased_on_approval"] == Tally(kept=1)


async def test_a_sweeper_that_was_down_for_a_day_is_found() -> None:
    w = World()
    await w.ready("ann")
    await w.portrait("ann")
    w.clock.advance(timedelta(days=400))
    await w.flows.sweep.run()
    assert {violation.rule for violation in (await replayed(w)).violations} == {"destroyed_late"}
