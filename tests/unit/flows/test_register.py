"""The register: what is due next, what became of a year's requests, and the letters."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gateway.errors import MessageInvalid, NotFound, StateConflict
from gateway.flows.register import Figures
from gateway.ports.records import Dsr
from policy.letter import Kind
from tests.world import OFFICER, STRANGER, World


@pytest.fixture
async def w() -> World:
    made = World()
    await made.ready("ann", "bob")
    return made


async def due(w: World, before: str = "", size: int = 50) -> list[str]:
    token, found = "", []
    while True:
        page = await w.flows.register.due(OFFICER, before, size, token)
        found += [dsr.dsr_id for dsr in page.items]
        token = page.next_token
        if not token:
            return found


@pytest.mark.parametrize("size", [1, 2, 50])
async def test_what_is_due_first_comes_first_and_what_is_answered_does_not_come(w: World, size: int) -> None:
    later = await w.open("ann", "access")
    sooner = await w.open("ann", "access", received_at=w.clock.now() - timedelta(days=9))
    longest = await w.open("bob", "access", received_at=w.clock.now() - timedelta(days=20))
    await w.flows.dsrs.extend(OFFICER, longest.dsr_id, "NUMBER")
    over = await w.open("bob", "erasure")
    await w.flows.dsrs.cancel(OFFICER, over.dsr_id)
    assert await due(w, size=size) == [sooner.dsr_id, later.dsr_id, longest.dsr_id]
    assert await due(w, sooner.due_on, size) == [sooner.dsr_id]
    assert (await w.flows.register.due(STRANGER, "", 50, "")).items == ()


async def test_a_day_that_is_none_is_refused(w: World) -> None:
    with pytest.raises(MessageInvalid):
        await due(w, "2026-02-30")


async def test_alarms_count_what_is_due_in_so_many_days(w: World) -> None:
    opened = await w.open("ann", "access")
    assert await w.flows.register.left() == {0: 0, 3: 0, 7: 0}
    last = datetime.fromisoformat(f"{opened.due_on}T12:00:00+00:00")
    for days, counted in ((7, {0: 0, 3: 0, 7: 1}), (3, {0: 0, 3: 1, 7: 1}), (-1, {0: 1, 3: 1, 7: 1})):
        w.clock.advance(last - timedelta(days=days) - w.clock.now())
        assert await w.flows.register.left() == counted
    await w.flows.dsrs.cancel(OFFICER, opened.dsr_id)
    assert await w.flows.register.left() == {0: 0, 3: 0, 7: 0}


async def test_figures_count_what_was_received_complied_with_and_denied_and_the_median_days(w: World) -> None:
    """11 CCR 7102(a)."""
    since = w.clock.now()
    opened = [await w.open("ann", "restriction") for _ in range(4)]
    for number, dsr in enumerate(opened[:3]):
        w.clock.advance(timedelta(days=number + 1))
        if number == 2:
            await w.flows.dsrs.refuse(OFFICER, dsr.dsr_id, "GDPR_12_5_EXCESSIVE")
        else:
            await w.approve(dsr.dsr_id)
            await w.carry_out()
    until = w.clock.now()
    await w.open("bob", "restriction", received_at=until)
    figures = await w.flows.register.figures(OFFICER, since, until, "")
    assert figures == [Figures("restriction", 4, 2, 0, 1, 0, 1, 0, 0, 3.0)]
    assert await w.flows.register.figures(OFFICER, since, until, "ccpa") == []
    assert await w.flows.register.figures(STRANGER, since, until, "") == []


async def test_the_next_letter_follows_the_state(w: World) -> None:
    opened = await w.open("ann", "access", received_at=datetime(2026, 3, 9, 23, 30, tzinfo=UTC))
    register, dsr_id = w.flows.register, opened.dsr_id
    letter = await register.letter(OFFICER, dsr_id, "", "en")
    assert letter.kind is Kind.ACKNOWLEDGEMENT
    assert opened.due_on in letter.text
    await w.flows.dsrs.extend(OFFICER, dsr_id, "COMPLEXITY")
    letter = await register.letter(OFFICER, dsr_id, "", "de-AT")
    assert (letter.kind, letter.language) == (Kind.EXTENSION, "de")
    assert "COMPLEXITY" in letter.text
    assert w.dsr(dsr_id).due_on in letter.text
    await w.flows.dsrs.refuse(OFFICER, dsr_id, "GDPR_12_5_EXCESSIVE")
    letter = await register.letter(OFFICER, dsr_id, "", "xx")
    assert (letter.kind, letter.language) == (Kind.REFUSAL, "en")
    assert "GDPR_12_5_EXCESSIVE" in letter.text
    assert "GDPR Art. 12(3)-(6)" in letter.cites
    with pytest.raises(StateConflict):
        await register.letter(OFFICER, dsr_id, "completion", "en")
    with pytest.raises(NotFound):
        await register.letter(STRANGER, dsr_id, "", "en")


async def test_a_letter_names_nobody_and_does_not_tell_the_erased_from_the_unknown(w: World) -> None:
    done = await w.request("ann", "access")
    await w.carry_out()
    letter = await w.flows.register.letter(OFFICER, done.dsr_id, "", "fr")
    assert letter.kind is Kind.COMPLETION
    assert "ann" not in letter.text.split()
    assert (await w.handle("ann")) not in letter.text
    nothing = replace(w.dsr(done.dsr_id), outcome="nothing_held")
    await w.records.transact(lambda tx: tx.put(nothing))
    assert "aucune donnée" in (await w.flows.register.letter(OFFICER, done.dsr_id, "", "fr")).text


async def test_the_file_of_an_erasure_leaves_the_list_with_its_certificate(w: World) -> None:
    done = await w.erase("ann")
    assert w.dsr(done.dsr_id).due_key is None
    assert await due(w) == []
    letter = await w.flows.register.letter(OFFICER, done.dsr_id, "", "en")
    assert "certificate" in letter.text
    assert all(dsr.answered_at for dsr in w.records.all(Dsr))
