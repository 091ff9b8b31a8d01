"""Requests from the letter to the decision: who may ask for what, how sure one is, and by when."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.errors import (
    ExtensionRefused,
    HoldActive,
    IdentityRequired,
    LetheError,
    MandateRequired,
    MessageInvalid,
    NotFound,
    PolicyUnavailable,
    PreviewStale,
    StateConflict,
    SubjectUnknown,
)
from gateway.flows.dsr import PREVIEW_TERM, DsrDraft
from gateway.flows.retention import HoldDraft
from gateway.flows.tenant import TenantDraft
from gateway.paging import seal_token
from gateway.people import Profile
from gateway.ports.records import Dsr, PackText
from policy.pack import parse_pack
from tests.unit.flows.test_replay import replayed
from tests.world import APP, OFFICER, SECOND, TENANT, World


@pytest.fixture
async def w() -> World:
    made = World()
    await made.ready("ann", "bob")
    return made


async def refusal(
    kind: type[LetheError], w: World, subject: str = "ann", what: str = "access", **more: Any
) -> Any:
    with pytest.raises(kind) as refused:
        await w.open(subject, what, **more)
    return refused.value


# --- opening -------------------------------------------------------------------------------------


async def test_unknown_erased_and_being_erased_are_answered_alike(w: World) -> None:
    """Whether there once was such a person is not told."""
    await w.erase("ann")
    await w.request("bob")
    await w.flows.erasure._bar(w.records.all(Dsr)[-1])
    answers = [await refusal(SubjectUnknown, w, subject) for subject in ("nobody", "ann", "bob")]
    assert len({(str(answer), answer.detail, *answer.metadata.items()) for answer in answers}) == 1


async def test_an_agent_without_a_mandate_of_the_regime_is_refused(w: World) -> None:
    """11 CCR 7063; EDPB 01/2022 paras 79-90."""
    for mandate in ("", "my_word"):
        refused = await refusal(MandateRequired, w, is_by_agent=True, mandate=mandate, regime="ccpa")
        assert refused.metadata["mandates"] == "signed_permission power_of_attorney guardian"
    opened = await w.open("ann", "access", is_by_agent=True, mandate="signed_permission", regime="ccpa")
    assert opened.mandate == "signed_permission"


async def test_a_day_of_receipt_that_cannot_be_is_refused(w: World) -> None:
    now = w.clock.now()
    for received_at, why in ((now + timedelta(seconds=1), "future"), (now - timedelta(days=3651), "too_far")):
        refused = await refusal(MessageInvalid, w, received_at=received_at)
        assert refused.violations == (("receive_time", f"time.{why}"),)


async def test_a_mandate_without_an_agent_is_refused(w: World) -> None:
    assert (await refusal(MessageInvalid, w, mandate="mandate")).violations == (
        ("mandate", "mandate.not_for_kind"),
    )


@pytest.mark.parametrize(
    ("kind", "regime"),
    [("portability", "pipeda"), ("restriction", "ccpa"), ("complaint", "gdpr"), ("appeal", "ccpa")],
)
async def test_a_right_that_the_regime_has_not_is_refused(w: World, kind: str, regime: str) -> None:
    refused = await refusal(MessageInvalid, w, what=kind, regime=regime)
    assert refused.violations == (("kind", "kind.no_right"),)


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"purposes": ("train",)}, "purposes"),
        ({"correction": Profile("ann")}, "correction"),
        ({"about": "0" * 32}, "about"),
    ],
)
async def test_what_belongs_to_another_kind_is_refused(w: World, more: dict[str, Any], field: str) -> None:
    assert (await refusal(MessageInvalid, w, **more)).violations == ((field, f"{field}.not_for_kind"),)


async def test_a_correction_says_what_is_right(w: World) -> None:
    assert (await refusal(MessageInvalid, w, what="correction")).violations == (
        ("correction", "correction.required"),
    )


async def test_the_rule_books_are_pinned_and_stand_in_the_leaf(w: World) -> None:
    opened = await w.open("ann", "access")
    (leaf,) = w.events("dsr.received")
    assert dict(opened.policy) == {pack["id"]: pack["sha256"] for pack in leaf["pol"]}
    assert opened.policy["gdpr"] == w.flows.packs["gdpr"].digest


async def test_a_request_is_decided_by_the_rule_book_it_was_submitted_under(w: World) -> None:
    """A ground that came later refuses nobody who asked before."""
    old = w.flows.packs["gdpr"]
    new = parse_pack(old.source_bytes.replace(b'"GDPR_15_4_OTHERS"', b'"GDPR_99_NEW"'))
    await w.records.transact(lambda tx: tx.add(PackText(old.digest, old.id, old.version, old.source_bytes)))
    opened = await w.open("ann", "access")
    w.flows = replace(w.flows, dsrs=replace(w.flows.dsrs, packs={**w.flows.packs, "gdpr": new}))
    with pytest.raises(MessageInvalid):
        await w.flows.dsrs.refuse(OFFICER, opened.dsr_id, "GDPR_99_NEW")
    refused, _ = await w.flows.dsrs.refuse(OFFICER, opened.dsr_id, "GDPR_15_4_OTHERS")
    assert refused.state == "refused"


async def test_an_erasure_keeps_what_the_rule_book_of_its_day_kept(w: World) -> None:
    """A rule that came later, or a move of the person, changes nothing of what was asked before."""
    old = w.flows.packs["gdpr"]
    new = parse_pack(old.source_bytes.replace(b'- class: "evidence"', b'- class: "audit"', 1))
    assert {keep.cls for keep in new.rules.keep_at_erasure} == {"audit", "dsr"}
    await w.records.transact(lambda tx: tx.add(PackText(old.digest, old.id, old.version, old.source_bytes)))
    opened = await w.open("ann", "erasure")
    judge = replace(w.flows.dsrs.judge, packs={**w.flows.packs, "gdpr": new})
    w.flows = replace(
        w.flows,
        dsrs=replace(w.flows.dsrs, judge=judge, packs=judge.packs),
        erasure=replace(w.flows.erasure, judge=judge),
    )
    await w.flows.subjects.upsert(APP, Profile("ann", residence="BR"))
    seen = await w.flows.dsrs.preview(OFFICER, opened.dsr_id)
    assert {kept.cls for kept in seen.plan.keep} == {"evidence", "dsr"}
    assert not any("LGPD" in kept.rule for kept in seen.plan.keep)
    await w.flows.dsrs.approve(SECOND, opened.dsr_id, seen.etag)
    await w.carry_out()
    (leaf,) = w.events("subject.erased")
    assert [kept["cls"] for kept in leaf["kept"]] == [kept.cls for kept in seen.plan.keep]
    assert "audit" in leaf["cls"]


async def test_a_rule_book_that_is_nowhere_any_more_decides_nothing(w: World) -> None:
    opened = await w.open("ann", "erasure")
    await w.records.transact(lambda tx: tx.put(replace(w.dsr(opened.dsr_id), policy={"gdpr": "0" * 64})))
    for act in (w.flows.dsrs.preview, w.flows.dsrs.approve, w.flows.dsrs.cancel):
        with pytest.raises(PolicyUnavailable):
            await act(OFFICER, opened.dsr_id)


async def test_a_second_request_for_the_same_is_linked_and_each_keeps_its_own_proof(w: World) -> None:
    first = await w.open("ann", "access")
    await w.flows.dsrs.verify(OFFICER, first.dsr_id, "two_data_points")
    second = await w.open("ann", "access")
    assert second.duplicate_of == first.dsr_id
    assert (second.verified_by, w.dsr(first.dsr_id).verified_by) == ("", "two_data_points")
    assert (await w.open("ann", "erasure")).duplicate_of == ""
    assert (await w.open("ann", "access")).duplicate_of == first.dsr_id


async def test_an_answered_request_has_no_duplicates(w: World) -> None:
    first = await w.open("ann", "access")
    await w.flows.dsrs.cancel(OFFICER, first.dsr_id)
    assert (await w.open("ann", "access")).duplicate_of == ""


# --- clocks --------------------------------------------------------------------------------------


async def test_the_acknowledgement_is_counted_in_business_days_where_the_law_sits(w: World) -> None:
    """11 CCR 7021(a); law.md C03."""
    w.clock.advance(datetime(2026, 8, 3, 16, tzinfo=UTC) - w.clock.now())
    opened = await w.open("ann", "access", regime="ccpa")
    days = (opened.ack_on, opened.due_on, opened.extended_due_on)
    assert days == ("2026-08-17", "2026-09-17", "2026-11-01")
    assert (await w.open("ann", "access", regime="gdpr")).ack_on == ""


async def test_the_time_is_extended_once_and_counted_from_receipt(w: World) -> None:
    """GDPR Art. 12(3)."""
    opened = await w.open("ann", "access")
    longer, _ = await w.flows.dsrs.extend(OFFICER, opened.dsr_id, "COMPLEXITY")
    assert longer.due_on == opened.extended_due_on > opened.due_on
    (received,), (extended,) = w.events("dsr.received"), w.events("dsr.extended")
    assert (extended["rc"], extended["due"] > received["due"]) == ("COMPLEXITY", True)
    with pytest.raises(ExtensionRefused) as refused:
        await w.flows.dsrs.extend(OFFICER, opened.dsr_id, "COMPLEXITY")
    assert refused.value.detail == "extended_before"


async def test_an_extension_after_the_first_limit_is_void(w: World) -> None:
    opened = await w.open("ann", "access")
    w.clock.advance(datetime.fromisoformat(f"{opened.due_on}T23:59:59+00:00") - w.clock.now())
    w.clock.advance(timedelta(days=1))
    with pytest.raises(ExtensionRefused) as refused:
        await w.flows.dsrs.extend(OFFICER, opened.dsr_id, "COMPLEXITY")
    assert refused.value.detail == "too_late"
    assert w.events("dsr.extended") == []


async def test_an_extension_needs_a_reason_of_the_regime_and_is_told_which(w: World) -> None:
    """PIPEDA s. 8(4)."""
    opened = await w.open("ann", "access", regime="pipeda")
    with pytest.raises(ExtensionRefused) as refused:
        await w.flows.dsrs.extend(OFFICER, opened.dsr_id, "COMPLEXITY")
    assert refused.value.detail == "reason_unknown"
    assert "CONSULTATIONS" in refused.value.metadata["reasons"].split()


async def test_what_the_law_does_not_extend_is_not(w: World) -> None:
    opened = await w.open("ann", "opt_out", regime="ccpa")
    with pytest.raises(ExtensionRefused) as refused:
        await w.flows.dsrs.extend(OFFICER, opened.dsr_id, "REASONABLY_NECESSARY")
    assert refused.value.detail == "no_extension"


async def asking(w: World) -> Dsr:
    """Return an access request under UK law, received on 1 October 2026 (law.md U04)."""
    facts = {"time_zone": "Europe/London", "calendar": "UK-EAW"}
    await w.flows.tenants.update(OFFICER, TenantDraft(facts))
    at(w, "2026-10-01T09:00:00+01:00")
    return await w.open("ann", "access", regime="uk_gdpr")


def at(w: World, moment: str) -> None:
    w.clock.advance(datetime.fromisoformat(moment) - w.clock.now())


async def test_the_days_from_a_question_to_its_answer_do_not_count(w: World) -> None:
    """UK GDPR Art. 12A; law.md U04, U-17: both days included."""
    opened = await asking(w)
    assert opened.due_on == "2026-11-02"
    at(w, "2026-10-05T17:00:00+01:00")
    paused, receipt = await w.flows.dsrs.pause(OFFICER, opened.dsr_id)
    assert (paused.due_on, receipt is None) == (opened.due_on, False)
    assert (await w.flows.dsrs.pause(OFFICER, opened.dsr_id))[1] is None
    with pytest.raises(StateConflict) as conflict:
        await w.flows.dsrs.extend(OFFICER, opened.dsr_id, "COMPLEXITY")
    assert conflict.value.detail == "paused"
    at(w, "2026-10-09T08:00:00+01:00")
    goes, _ = await w.flows.dsrs.resume(OFFICER, opened.dsr_id)
    assert (goes.due_on, goes.extended_due_on) == ("2026-11-06", "2027-01-06")
    assert (await w.flows.dsrs.resume(OFFICER, opened.dsr_id))[1] is None
    at(w, "2026-10-09T17:00:00+01:00")  # asked again on the day of the answer, which counts once
    await w.flows.dsrs.pause(OFFICER, opened.dsr_id)
    at(w, "2026-10-10T08:00:00+01:00")
    assert (await w.flows.dsrs.resume(OFFICER, opened.dsr_id))[0].due_on == "2026-11-09"  # a Saturday rolls
    at(w, "2026-10-11T08:00:00+01:00")
    longer, _ = await w.flows.dsrs.extend(OFFICER, opened.dsr_id, "COMPLEXITY")
    assert longer.due_on == "2027-01-07"
    assert [w.dsr(opened.dsr_id).due_key, *[e["due"] for e in w.events("dsr.extended")]] == [
        f"2027-01-07 {opened.dsr_id}",
        int(datetime(2027, 1, 8, tzinfo=UTC).timestamp() * 1000) - 1,
    ]
    assert (await replayed(w)).violations == ()


async def test_while_the_clock_stands_no_time_is_over_and_replaying_it_says_so(w: World) -> None:
    opened = await asking(w)
    at(w, "2026-10-30T09:00:00+00:00")
    await w.flows.dsrs.pause(OFFICER, opened.dsr_id)
    at(w, "2026-12-01T09:00:00+00:00")
    assert (await replayed(w)).promises["answered_in_time"].pending == 1
    goes, _ = await w.flows.dsrs.resume(OFFICER, opened.dsr_id)
    assert goes.due_on > "2026-12-01" > opened.due_on
    await w.flows.dsrs.refuse(OFFICER, opened.dsr_id, "GDPR_12_5_EXCESSIVE")
    report = await replayed(w)
    assert (report.violations, report.promises["answered_in_time"].kept) == ((), 1)


async def test_what_the_law_does_not_pause_or_what_is_too_late_is_not_paused(w: World) -> None:
    opened = await asking(w)
    other = await w.open("bob", "erasure", regime="uk_gdpr")
    elsewhere = await w.open("bob", "access")
    for dsr in (other, elsewhere):
        with pytest.raises(StateConflict) as conflict:
            await w.flows.dsrs.pause(OFFICER, dsr.dsr_id)
        assert conflict.value.detail == "no_pause"
    at(w, "2026-11-03T09:00:00+00:00")
    with pytest.raises(StateConflict) as conflict:
        await w.flows.dsrs.pause(OFFICER, opened.dsr_id)
    assert conflict.value.detail == "too_late"
    approved = await w.approve(opened.dsr_id)
    with pytest.raises(StateConflict) as conflict:
        await w.flows.dsrs.pause(OFFICER, approved.dsr_id)
    assert conflict.value.detail == "approved"
    assert w.events("dsr.paused") == []


# --- identity ------------------------------------------------------------------------------------


async def test_what_the_regime_needs_must_be_shown_before_an_approval(w: World) -> None:
    """11 CCR 7024(a), 7062."""
    opened = await w.open("ann", "access", regime="ccpa")
    with pytest.raises(IdentityRequired) as refused:
        await w.approve(opened.dsr_id)
    assert refused.value.metadata == {
        "needed": "high",
        "methods": "three_data_points_declaration reauthentication",
    }
    with pytest.raises(MessageInvalid) as weak:
        await w.flows.dsrs.verify(OFFICER, opened.dsr_id, "two_data_points")
    assert weak.value.violations == (("method", "method.too_weak"),)
    await w.flows.dsrs.verify(OFFICER, opened.dsr_id, "reauthentication")
    approved = await w.approve(opened.dsr_id)
    assert approved.state == "approved"


async def test_no_more_is_asked_than_is_needed(w: World) -> None:
    """GDPR Art. 12(6)."""
    opened = await w.open("ann", "access")
    assert (await w.flows.dsrs.show(OFFICER, opened.dsr_id))[1] == ()
    with pytest.raises(MessageInvalid) as refused:
        await w.flows.dsrs.verify(OFFICER, opened.dsr_id, "three_data_points_declaration")
    assert refused.value.violations == (("method", "method.asks_too_much"),)


async def test_a_check_that_fails_is_counted_and_from_then_on_identity_must_be_shown(w: World) -> None:
    opened = await w.open("ann", "erasure")
    for number in (1, 2):
        doubted, _ = await w.flows.dsrs.verify(OFFICER, opened.dsr_id, "account_session", is_shown=False)
        assert (doubted.state, doubted.failures) == ("identity_pending", number)
    with pytest.raises(IdentityRequired) as refused:
        await w.approve(opened.dsr_id)
    assert refused.value.metadata["needed"] == "reasonable"
    await w.flows.dsrs.verify(OFFICER, opened.dsr_id, "two_data_points")
    approved = await w.approve(opened.dsr_id)
    assert approved.state == "approved"
    assert [event["out"] for event in w.events("dsr.verified")] == ["not_shown", "not_shown", "shown"]


async def test_a_later_failure_takes_an_earlier_proof_back(w: World) -> None:
    opened = await w.open("ann", "erasure", regime="ccpa")
    await w.flows.dsrs.verify(OFFICER, opened.dsr_id, "reauthentication")
    doubted, _ = await w.flows.dsrs.verify(OFFICER, opened.dsr_id, "reauthentication", is_shown=False)
    assert doubted.verified_by == ""
    with pytest.raises(IdentityRequired):
        await w.approve(opened.dsr_id)


async def test_a_power_of_attorney_ends_the_consumers_own_verification(w: World) -> None:
    """11 CCR 7063."""
    more = {"regime": "ccpa", "is_by_agent": True}
    signed = await w.open("ann", "erasure", mandate="signed_permission", **more)
    with pytest.raises(IdentityRequired):
        await w.approve(signed.dsr_id)
    attorney = await w.open("ann", "erasure", mandate="power_of_attorney", **more)
    assert (await w.approve(attorney.dsr_id)).state == "approved"


async def test_an_unknown_method_is_refused(w: World) -> None:
    opened = await w.open("ann", "access")
    with pytest.raises(MessageInvalid) as refused:
        await w.flows.dsrs.verify(OFFICER, opened.dsr_id, "identity_card")
    assert refused.value.violations == (("method", "method.unknown"),)


async def test_for_an_opt_out_nobody_is_asked_who_they_are(w: World) -> None:
    """11 CCR 7026."""
    opened = await w.open("ann", "opt_out", regime="ccpa")
    with pytest.raises(StateConflict):
        await w.flows.dsrs.verify(OFFICER, opened.dsr_id, "account_session", is_shown=False)


async def test_only_where_the_law_says_so_does_proof_start_the_clock_again(w: World) -> None:
    """UK GDPR Art. 12A restarts; GDPR (U-06) and 11 CCR 7021(b) do not."""
    gdpr, target = w.flows.packs["gdpr"], b'target: "month_target"'
    again = b'\n    restart: ["identity"]'
    restarting = parse_pack(gdpr.source_bytes.replace(target, target + again, 1))
    assert restarting.rules.events["request"].restart == ("identity",)
    for pack, moves in ((gdpr, False), (restarting, True)):
        judge = replace(w.flows.dsrs.judge, packs={**w.flows.packs, "gdpr": pack})
        flows = replace(w.flows.dsrs, judge=judge, packs=judge.packs)
        opened, _ = await flows.create(OFFICER, DsrDraft("ann", "erasure"))
        await flows.verify(OFFICER, opened.dsr_id, "account_session", is_shown=False)
        w.clock.advance(timedelta(days=5))
        shown, _ = await flows.verify(OFFICER, opened.dsr_id, "two_data_points")
        assert (shown.due_on > opened.due_on) is moves
        assert ("due" in w.events("dsr.verified")[-1]) is moves


# --- preview and approval ------------------------------------------------------------------------


async def test_a_stale_approval_is_told_what_came_and_what_went(w: World) -> None:
    first = await w.portrait("ann")
    opened = await w.open("ann", "erasure")
    seen = await w.flows.dsrs.preview(OFFICER, opened.dsr_id)
    second = await w.portrait("ann")
    await w.flows.subjects.delete_object(APP, first.result_object)
    with pytest.raises(PreviewStale) as refused:
        await w.flows.dsrs.approve(SECOND, opened.dsr_id, seen.etag)
    assert refused.value.detail == "changed"
    assert f"objects/{second.result_object}" in refused.value.metadata["added"]
    assert refused.value.metadata["gone"] == f"objects/{first.result_object}"
    assert w.dsr(opened.dsr_id).state == "received"


async def test_an_approval_rests_on_a_preview_for_an_hour(w: World) -> None:
    opened = await w.open("ann", "restriction")
    seen = await w.flows.dsrs.preview(OFFICER, opened.dsr_id)
    w.clock.advance(PREVIEW_TERM + timedelta(seconds=1))
    with pytest.raises(PreviewStale) as refused:
        await w.flows.dsrs.approve(SECOND, opened.dsr_id, seen.etag)
    assert refused.value.detail == "expired"
    again = await w.flows.dsrs.preview(OFFICER, opened.dsr_id)
    assert (await w.flows.dsrs.approve(SECOND, opened.dsr_id, again.etag))[0].state == "approved"


async def test_whoever_approves_may_have_looked_before_somebody_else_did(w: World) -> None:
    opened = await w.open("ann", "erasure")
    seen = await w.flows.dsrs.preview(OFFICER, opened.dsr_id)
    await w.consent("ann")
    for _ in range(4):
        await w.flows.dsrs.preview(SECOND, opened.dsr_id)
    with pytest.raises(PreviewStale) as refused:
        await w.flows.dsrs.approve(SECOND, opened.dsr_id, seen.etag)
    assert refused.value.metadata["added"].startswith("consents/")
    assert len(w.dsr(opened.dsr_id).preview) == 2


async def test_a_preview_that_nobody_saw_approves_nothing(w: World) -> None:
    opened = await w.open("ann", "restriction")
    with pytest.raises(PreviewStale):
        await w.flows.dsrs.approve(SECOND, opened.dsr_id, "0" * 32)


@pytest.mark.parametrize("kind", ["erasure", "access", "portability", "objection"])
async def test_what_destroys_or_discloses_is_approved_by_a_preview_only(w: World, kind: str) -> None:
    opened = await w.open("ann", kind)
    for rehearse in (True, False):
        with pytest.raises(PreviewStale) as refused:
            await w.flows.dsrs.approve(SECOND, opened.dsr_id, rehearse=rehearse)
        assert refused.value.detail == "missing"
    assert w.dsr(opened.dsr_id).state == "received"
    assert (await w.approve(opened.dsr_id)).state == "approved"


@pytest.mark.parametrize(
    ("kind", "more"),
    [("restriction", {}), ("correction", {"correction": Profile("ann", residence="FR")})],
)
async def test_what_neither_destroys_nor_discloses_needs_none(
    w: World, kind: str, more: dict[str, Any]
) -> None:
    opened = await w.open("ann", kind, **more)
    assert (await w.flows.dsrs.approve(SECOND, opened.dsr_id))[0].state == "approved"


async def test_a_preview_leaves_nothing_behind_once_it_is_decided(w: World) -> None:
    await w.portrait("ann")
    for decide in (
        w.approve,
        lambda dsr: w.flows.dsrs.cancel(OFFICER, dsr),
    ):
        opened = await w.open("ann", "erasure")
        await w.flows.dsrs.preview(OFFICER, opened.dsr_id)
        assert w.dsr(opened.dsr_id).preview
        await decide(opened.dsr_id)
        assert not w.dsr(opened.dsr_id).preview


async def test_only_an_erasure_is_stopped_by_a_hold(w: World) -> None:
    await w.flows.retention.place(OFFICER, HoldDraft("ann", "GDPR Art. 17(3)(e)", ("content",), None))
    erasure, access = await w.open("ann", "erasure"), await w.open("ann", "access")
    with pytest.raises(HoldActive):
        await w.approve(erasure.dsr_id)
    assert (await w.approve(access.dsr_id)).state == "approved"


async def test_a_refusal_names_a_ground_of_the_regime_and_of_the_right(w: World) -> None:
    """GDPR Art. 12(4)."""
    opened = await w.open("ann", "objection")
    for ground in ("GDPR_17_3_E_LEGAL_CLAIMS", "CCPA_7060_UNVERIFIED", "NOT_TODAY"):
        with pytest.raises(MessageInvalid):
            await w.flows.dsrs.refuse(OFFICER, opened.dsr_id, ground)
    refused, _ = await w.flows.dsrs.refuse(OFFICER, opened.dsr_id, "GDPR_21_1_COMPELLING")
    assert (refused.state, refused.due_key, refused.answered_at) == ("refused", None, w.clock.now())


async def test_a_complaint_is_about_a_request_of_the_same_tenant(w: World) -> None:
    with pytest.raises(NotFound):
        await w.open("ann", "complaint", about="0" * 32, regime="uk_gdpr")
    first = await w.open("ann", "access")
    complaint = await w.open("ann", "complaint", about=first.dsr_id, regime="uk_gdpr")
    assert (complaint.about, complaint.ack_on != "") == (first.dsr_id, True)


# --- lists ---------------------------------------------------------------------------------------


async def test_pages_list_every_request_once_though_many_came_at_one_instant(w: World) -> None:
    ids = {(await w.open("ann", "access")).dsr_id for _ in range(7)}
    w.clock.advance(timedelta(seconds=1))
    ids |= {(await w.open("bob", "erasure")).dsr_id for _ in range(4)}
    for size in (1, 2, 3, 50):
        token, seen = "", []
        while True:
            page = await w.flows.dsrs.list(OFFICER, "", size, token)
            seen += [dsr.dsr_id for dsr in page.items]
            token = page.next_token
            if not token:
                break
        assert len(seen) == len(set(seen)), size
        assert set(seen) == ids, size


async def test_a_made_up_key_in_a_page_token_is_refused(w: World) -> None:
    with pytest.raises(MessageInvalid):
        await w.flows.dsrs.list(OFFICER, "", 1, seal_token("yesterday", ("dsrs", TENANT)))
