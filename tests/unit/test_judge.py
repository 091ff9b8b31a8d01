"""What the judge asks policy is understood by policy."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from audit import canonical, leaf, schema
from gateway.controllers import ControllerFacts
from gateway.errors import MessageInvalid, PolicyDenied, SubjectBlocked, SubjectUnknown
from gateway.judge import Case, Judge
from gateway.ledger import without_nulls
from gateway.people import Guardian, Profile
from gateway.ports.records import Consent, Notice, Signal, Subject
from policy import coded
from policy.consent import decide, restricted
from policy.facts import parse_facts
from policy.pack import load_packs
from tests.fakes.clock import NOON
from tests.sample import examples
from tests.world import APP, TENANT, World

PACKS = load_packs()
SOURCES = {pack.digest: pack.source_bytes for pack in PACKS.values()}
PLACES = st.sampled_from(["", "DE", "FR", "US-CA", "US-TX", "CA-ON", "BR"])
FLAGS = ("separate", "presented_separately", "highlighted", "condition_of_service", "two_step_confirmed")
PROFILES = st.builds(
    Profile,
    subject_id=st.just("ann"),
    residence=PLACES,
    location=PLACES,
    birth_year=st.sampled_from([0, 1950, 2012, 2020]),
    age_band=st.sampled_from(["", "lt13", "13-15", "16-17", "adult"]),
    guardian=st.none()
    | st.builds(Guardian, st.sampled_from(["", "credit_card"]), st.sampled_from(["", "parent"])),
)
CASES = st.builds(
    Case,
    profile=PROFILES,
    purpose=st.sampled_from(["generate", "retain_output", "train"]),
    at=st.just(NOON),
    is_uploader=st.booleans(),
    template_extracted=st.booleans(),
)
CONTROLLERS = st.builds(
    ControllerFacts,
    name=st.just("Example"),
    contact=st.just(""),
    establishments=st.none() | st.lists(st.sampled_from(["DE", "US-CA"]), unique=True).map(tuple),
    targets=st.none() | st.lists(st.sampled_from(["DE", "US-CA"]), unique=True).map(tuple),
    time_zone=st.just("UTC"),
    calendar=st.none(),
)
MOMENTS = st.none() | st.integers(-1000, 1000).map(lambda hours: NOON + timedelta(hours=hours))


@st.composite
def _consents(draw: st.DrawFn) -> Consent:
    return Consent(
        consent_id="0a" * 16,
        tenant=TENANT,
        handle="0b" * 32,
        key_id="0c" * 16,
        purpose=draw(st.sampled_from(["generate", "retain_output", "train"])),
        form=draw(st.sampled_from(["explicit", "express", "implied"])),
        flags=tuple(draw(st.lists(st.sampled_from(FLAGS), unique=True))),
        given_by=draw(st.sampled_from(["", "subject", "guardian"])),
        via=draw(st.sampled_from(["", "electronic"])),
        term_shown=draw(st.sampled_from(["", "24 hours"])),
        notice_id="portraits",
        notice_version=1,
        notice_language="en",
        notice_sha256="",
        given_at=NOON - timedelta(days=1),
        expires_at=draw(MOMENTS),
        withdrawn_at=draw(MOMENTS),
        withdrawn_via="",
        superseded_by="",
        regimes=(),
        sealed_evidence=b"",
    )


NOTICE = Notice(TENANT, "portraits", 1, "en", "0d" * 16, "", "", "", ("generate",), {}, NOON)
SIGNALS = st.none() | st.builds(
    Signal, st.just(TENANT), st.just("0b" * 32), st.booleans(), st.booleans(), st.just(NOON)
)


@given(CONTROLLERS, CASES, st.lists(_consents(), max_size=3), SIGNALS)
@effort(max_examples=examples(200), deadline=None)
def test_whatever_is_known_of_a_case_policy_understands_the_facts(
    controller: ControllerFacts, case: Case, consents: list[Consent], signal: Signal | None
) -> None:
    facts = parse_facts(Judge._facts(controller, case, consents, [NOTICE], signal))
    assert len(facts.consents) == len(consents)


async def test_nobody_is_judged_who_is_unknown_or_being_erased() -> None:
    w = World()
    await w.ready("ann")
    case = Case(Profile("ann", "DE", birth_year=1980), "generate", w.clock.now())
    with pytest.raises(SubjectUnknown):
        await w.records.transact(lambda tx: w.flows.upload.judge.decide(tx, TENANT, "0b" * 32, case))
    await w.request("ann")
    claimed = await w.records.transact(lambda tx: w.flows.erasure._claim(tx, "me"))
    assert claimed is not None
    await w.flows.erasure._bar(claimed)
    handle = await w.handle("ann")
    with pytest.raises(SubjectBlocked):
        await w.records.transact(lambda tx: w.flows.upload.judge.decide(tx, TENANT, handle, case))


def test_a_logged_decision_carries_all_from_which_it_can_be_replayed() -> None:
    async def run() -> None:
        w = World()
        await w.ready("ann")
        await w.flows.consents.signal(APP, "ann", gpc=True, limit_spi=False)
        await w.upload("ann")
        decision = w.events("decision.made")[-1]
        assert (decision["dec"], decision["pur"], decision["form"]) == ("allow", "generate", "explicit")
        assert decision["flags"] == ["separate"]
        assert decision["sig"] == ["gpc"]
        digests = {pack.digest for pack in w.flows.packs.values()}
        assert {named["sha256"] for named in decision["pol"]} <= digests

    asyncio.run(run())


def test_whatever_code_policy_has_for_a_fact_fits_the_leaf() -> None:
    assert all(map(schema.FACT, (*coded.FLAGS, *coded.DERIVED)))
    assert all(map(schema.NOTICE, coded.NOTICES))
    assert all(map(schema.ROLE, (*coded.ROLES, coded.OTHER_ROLE)))
    assert all(map(schema.MECHANISM, (*coded.MECHANISMS, coded.OTHER_MECHANISM)))
    for flag in (*coded.CONSENT_FLAGS, coded.TERMS):
        assert schema.CONSIDERED({"st": "standing", "form": "explicit", "flags": [flag]})


@given(CONTROLLERS, CASES, st.lists(_consents(), max_size=3), SIGNALS, st.booleans())
@effort(max_examples=examples(200), deadline=None)
def test_whatever_is_decided_can_be_logged_and_is_replayed_from_the_leaf_and_from_the_facts(
    controller: ControllerFacts,
    case: Case,
    consents: list[Consent],
    signal: Signal | None,
    is_restricted: bool,
) -> None:
    """From JSON and back, as an auditor has it: by the codes alone, and by the payload if it is open."""
    told = Judge._facts(controller, case, consents, [NOTICE], signal)
    facts = parse_facts(told)
    decision = decide(facts, PACKS)
    if is_restricted:
        decision = restricted(decision)
    ids = [f"{place:032x}" for place in range(len(consents))]
    codes = coded.code(facts, decision, PACKS, ids, is_restricted=is_restricted)
    event = leaf.new_event("decision.made", at_ms=1, actor="sys:lethe", random=bytes, **codes)
    read = leaf.decode(leaf.encode(event))
    payload = canonical.parse(canonical.encode(without_nulls(told)), 1 << 20)
    for replayed in (coded.recompute(read, None, SOURCES), coded.recompute(read, payload, SOURCES)):
        assert replayed == {name: read.get(name) for name in replayed}
        assert replayed["rc"] == decision.reason_code


async def test_every_decision_of_the_gateway_is_replayed_from_its_leaf_alone() -> None:
    w = World()
    await w.ready("ann", "ben")
    await w.portrait("ann")
    await w.agree_to_terms("ben")
    with pytest.raises(PolicyDenied):
        await w.upload("ben")
    waiting = await w.upload("ann")
    await w.agree_to_terms("ann")
    await w.work()
    assert w.job(waiting.job.job_id).state == "cancelled"
    subject = w.records.all(Subject)[0]
    await w.records.transact(lambda tx: tx.put(replace(subject, state="restricted")))
    with pytest.raises(PolicyDenied):
        await w.upload("ann")
    decisions = w.events("decision.made")
    assert [event["dec"] for event in decisions] == ["allow", "allow", "deny", "allow", "deny", "deny"]
    assert {event["rc"] for event in decisions} >= {"DENY_NO_EXPLICIT_CONSENT", "DENY_RESTRICTED"}
    for event in decisions:
        replayed = coded.recompute(event, None, SOURCES)
        assert replayed == {name: event.get(name) for name in replayed}


async def test_a_notice_is_what_it_says_it_serves_as() -> None:
    """740 ILCS 14/15(a): the public policy; a notice of collection alone is not one."""
    w = World()
    await w.publish("generate")
    await w.know("ann", "US-IL")
    signed = {"form": "written_release", "term_shown": "24 hours", "flags": ("separate", "signature")}
    await w.consent("ann", **signed)
    with pytest.raises(PolicyDenied, match="DENY_NO_NOTICE"):
        await w.upload("ann")
    with pytest.raises(MessageInvalid):
        await w.publish("generate", serves=["horoscope"])
    await w.publish("generate", serves=["bipa_policy"])
    await w.consent("ann", notice_version=2, **signed)
    assert (await w.portrait("ann")).state == "succeeded"
