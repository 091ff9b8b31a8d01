"""Recipients are told of what a request changed, by hand, and the file says how far each of them is."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from gateway.dsrs import recipient_id
from gateway.errors import MessageInvalid, NotFound, StateConflict
from gateway.flows.tenant import TenantDraft
from gateway.ports.records import Certificate, Dsr
from tests.unit.flows.test_replay import replayed
from tests.world import OFFICER, STRANGER, TENANT, World

MAILER = {"name": "Mailer Inc", "role": "processor", "country": "US", "channel": "their form"}
RECIPIENTS = {
    "mailer": MAILER,
    "ads": {"name": "Ads Ltd", "role": "third_party", "country": "GB", "channel": "by letter"},
}


@pytest.fixture
async def w() -> World:
    made = World()
    await made.ready("ann", "bob")
    await made.flows.tenants.update(OFFICER, TenantDraft({"recipients": RECIPIENTS}))
    return made


async def note(w: World, dsr: Dsr, code: str, outcome: str, ground: str = "") -> tuple[Dsr, Any]:
    """Note how far a recipient is, a second after what was before: the log orders by time."""
    w.clock.advance(timedelta(seconds=1))
    return await w.flows.propagation.note(OFFICER, dsr.dsr_id, code, outcome, ground)


async def owed(w: World) -> list[str]:
    return [dsr.dsr_id for dsr in (await w.flows.register.owed(OFFICER, 50, "")).items]


def states(dsr: Dsr) -> dict[str, str]:
    return {code: one["state"] for code, one in dsr.recipients.items()}


async def test_from_the_approval_on_each_recipient_is_told_and_acknowledges_or_is_excused(w: World) -> None:
    """GDPR Art. 19."""
    opened = await w.open("ann", "erasure")
    assert opened.recipients == {}
    with pytest.raises(MessageInvalid):
        await note(w, opened, "mailer", "told")
    await w.approve(opened.dsr_id)
    assert await owed(w) == [opened.dsr_id]
    await note(w, opened, "mailer", "told")
    await w.carry_out()  # whose data it was is not known any more; the rest can still be noted
    assert await owed(w) == [opened.dsr_id]
    done, _ = await note(w, opened, "mailer", "acknowledged")
    assert states(done) == {"mailer": "acknowledged", "ads": "due"}
    done, receipt = await note(w, opened, "ads", "excused", "disproportionate")
    assert (states(done)["ads"], await owed(w)) == ("excused", [])
    assert receipt is not None
    again, receipt = await note(w, opened, "ads", "excused", "disproportionate")
    assert (again, receipt) == (done, None)
    (approved,), noted = w.events("dsr.approved"), w.events("dsr.propagated")
    ids = {code: recipient_id(TENANT, code) for code in RECIPIENTS}
    assert approved["rcp"] == sorted(ids.values())
    assert [(one["rcp"], one["out"], one.get("why")) for one in noted] == [
        (ids["mailer"], "told", None),
        (ids["mailer"], "acknowledged", None),
        (ids["ads"], "excused", "disproportionate"),
    ]
    assert (await replayed(w)).violations == ()
    w.check()


async def test_the_certificate_says_how_many_have_confirmed_and_the_figures_and_letter_follow(
    w: World,
) -> None:
    request = await w.request("ann")
    await note(w, request, "mailer", "told")
    await note(w, request, "mailer", "acknowledged")
    await w.carry_out()
    (certificate,) = w.records.all(Certificate)
    said = json.loads(json.loads(certificate.opening)["payload"])
    assert [said[f"recipients_{how}"] for how in ("confirmed", "excused", "unconfirmed")] == [1, 0, 1]
    (figures,) = await w.flows.register.figures(
        OFFICER, request.received_at, w.clock.now() + timedelta(days=1), ""
    )
    assert (figures.recipients_confirmed, figures.recipients_unconfirmed) == (1, 1)
    letter = (await w.flows.register.letter(OFFICER, request.dsr_id, "", "en")).text
    assert "confirmed that they were told of it: Mailer Inc." in letter
    assert "will still be told of it: Ads Ltd." in letter
    await note(w, request, "ads", "excused", "never_received")
    assert "Ads Ltd" not in (await w.flows.register.letter(OFFICER, request.dsr_id, "", "en")).text


async def test_only_those_whom_a_law_names_are_to_be_told(w: World) -> None:
    """11 CCR 7023, 7026(f)(2): of a correction processors, of an opt-out third parties."""
    await w.know("cal", "US-CA")
    opt_out = await w.open("cal", "opt_out", regime="ccpa")
    assert states(opt_out) == {"ads": "due"}
    assert await owed(w) == [opt_out.dsr_id]
    access = await w.request("bob", "access")
    assert access.recipients == {}
    (approved, other) = w.events("dsr.approved")
    assert ("rcp" in approved, "rcp" in other) == (True, False)


async def test_who_is_a_recipient_is_as_it_stood_at_the_approval(w: World) -> None:
    request = await w.request("ann", "restriction")
    await w.flows.tenants.update(OFFICER, TenantDraft({"recipients": {}}))
    assert (await w.request("bob", "restriction")).recipients == {}
    noted, _ = await note(w, request, "mailer", "told")
    assert noted.recipients["mailer"]["name"] == "Mailer Inc"


async def test_what_does_not_follow_is_refused(w: World) -> None:
    request = await w.request("ann", "restriction")
    with pytest.raises(NotFound):
        await w.flows.propagation.note(STRANGER, request.dsr_id, "mailer", "told")
    for code, outcome, ground, rule in (
        ("nobody", "told", "", "recipient.unknown"),
        ("mailer", "excused", "", "ground.unknown"),
        ("mailer", "excused", "not_appropriate", "ground.unknown"),
        ("mailer", "told", "impossible", "ground.not_excused"),
    ):
        with pytest.raises(MessageInvalid) as refusal:
            await note(w, request, code, outcome, ground)
        assert refusal.value.violations[0][1] == rule
    with pytest.raises(StateConflict) as conflict:
        await note(w, request, "mailer", "acknowledged")
    assert conflict.value.detail == "due"
    await w.flows.dsrs.cancel(OFFICER, request.dsr_id)
    assert await owed(w) == []
    with pytest.raises(StateConflict) as conflict:
        await note(w, request, "mailer", "told")
    assert conflict.value.detail == "cancelled"
    assert w.events("dsr.propagated") == []
