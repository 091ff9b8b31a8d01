"""Decisions as codes: what of the facts decides, without saying whom, and the same answer from it again.

The codes stand in the leaf `decision.made`.  They say that a place is known and
not which, the band of an age and under which rules for the young it falls, what
each consent is worth and not when it was given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from policy.applicability import applicable, is_nowhere
from policy.compiled import ReadyMinor, ready, utc_day
from policy.consent import TERMS_ACCEPTED, Decision, decide, decide_among, restricted, stands_alone
from policy.errors import PackInvalid, PolicyError
from policy.facts import Consent, Facts, parse_facts
from policy.pack import Pack, parse_named
from policy.predicates import Test, read, tests_of
from policy.spans import add_months
from policy.terms import ConsentForm

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_LISTED = 64
"""No list in a leaf is longer; what would be is marked as not coded."""

FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "uploader": "subject.is_uploader",
        "template": "data.template_extracted",
        "identifying": "data.unique_identification_purpose",
        "requested": "service_requested",
        "fulfilled": "contract_fulfilled",
        "for_money": "sale_for_money",
        "infers": "analytics_infers_characteristics",
        "ai_exemption": "rely_on_ai_exemption",
        "for_children": "service.directed_to_children",
        "dpf_listed": "recipient.dpf_listed",
        "agreement": "recipient.written_agreement",
        "comparable": "recipient.comparable_protection_contract",
        "pia_done": "recipient.pia_done",
        "manifest": "marking.manifest",
        "watermark": "marking.watermark",
        "gpc": "signals.gpc",
        "limit_spi": "signals.limit_spi",
    }
)
"""Code to the fact that is yes, no or not known; the codes are listed under `yes` and `no`."""

DERIVED = frozenset(
    {
        "place",
        "guardian",
        "guardian_text",
        "over",
        "over_year",
        "release",
        "consents",
        "restricted",
        "uncoded",
    }
)
"""Codes of `yes` that follow from other facts; not listed means no.

`place`: a residence or a location is known; `guardian`: a guardian is named with
how that was verified, `guardian_text`: by message alone; `over`: the purpose has
ended, `over_year`: a year ago or longer; `release`: an output is about to be
released; `consents`: some consent,
for whatever purpose, is on record; `restricted`: processing is restricted;
`uncoded`: some rule reads a fact that has no code, so nothing follows from these.
"""

NOTICES = (
    "bipa_policy",
    "before_capture",
    "cai_notified",
    "chd_privacy_policy",
    "collection",
    "foreign_processing",
    "opt_out_signal",
    "right_to_opt_out",
)
ROLES = ("processor", "third_party")
MECHANISMS = (
    "ADDENDUM",
    "ANPD_SCC",
    "BCR",
    "EXPLICIT_CONSENT_49_1_A",
    "IDTA",
    "SCC",
    "SCC_2021_914",
    "SCC_ANPD",
    "UK_ADDENDUM",
)
OTHER_ROLE, OTHER_MECHANISM = "other", "OTHER"
_LAND = re.compile(r"[A-Z]{2}(?:-[A-Z0-9]{1,3})?", re.ASCII)

CONSENT_FLAGS = (
    "separate",
    "presented_separately",
    "highlighted",
    "condition_of_service",
    "two_step_confirmed",
    "signature",
    "term_shown",
)
TERMS = "terms"
"""The code of a consent that was only inferred from accepting terms."""
YEAR_OLD = "year_old"
"""The code of a signed authorisation that was given a year ago or longer."""

_BY = {
    "depicted": "depicted",
    "depicted_representative": "depicted",
    "depicted_guardian": "depicted_guardian",
}
_BY |= {"guardian": "guardian", "parent": "guardian"}
OTHER = "other"

RELEASE = "release_output"
_WORDS = MappingProxyType(
    {
        "notices": NOTICES,
        "recipient.role": ROLES,
        "recipient.mechanism": MECHANISMS,
        "stage": (RELEASE,),
        "subject.age": (13, 16, 18),
    }
)
_CODED = frozenset(
    {
        *FLAGS.values(),
        *_WORDS,
        "purpose",
        "data.kind",
        "recipient.country",
        "system.placed_on_market",
        "purpose_expired",
        "purpose_expired_a_year_ago",
        "purpose_withdrawn",
        "guardian_verified",
        "guardian_by_text",
    }
)
_OLD = ("pur", "cat", "dec", "rc", "packs", "age", "minor", "sig", "layer", "form", "flags")
_NEEDED = frozenset({"at", "yes", "no", "under", "cons", "law"})
_AGES: Mapping[str, range] = MappingProxyType(
    {
        "lt13": range(13),
        "13-15": range(13, 16),
        "16-17": range(16, 18),
        "adult": range(18, 151),
        "unknown": range(0),
    }
)
_SOMEWHERE = "ZZ"
_OF_ALL_AGES = {"age_gte": 0, "age_lt": 151, "age_table": {}, "unknown_age": True, "unless": None}


class NotReplayable(PolicyError, LookupError):
    """Nothing follows from what there is; the first argument says why, as a code."""


class CodesContradict(PolicyError, ValueError):
    """What there is cannot have come from any facts; the first argument says why, as a code."""


class _Considered(NamedTuple):
    place: int
    codes: dict[str, Any]


# --- facts to codes ------------------------------------------------------------------------------


def code(
    facts: Facts,
    decision: Decision,
    packs: Mapping[str, Pack],
    ids: Sequence[str] = (),
    *,
    is_restricted: bool = False,
) -> dict[str, Any]:
    """Return the fields of a leaf `decision.made` that policy has to say.

    Args:
        decision: What `decide` says of `facts`; with `is_restricted`, what `restricted` says of that.
        packs: At least those that the decision names.
        ids: The random id of each of `facts.consents`, or nothing where they have none.
    """
    said = _code(facts, decision, packs, ids, is_restricted=is_restricted)
    return {name: value for name, value in said.items() if value is not None}


def _code(
    facts: Facts,
    decision: Decision,
    packs: Mapping[str, Pack],
    ids: Sequence[str],
    *,
    is_restricted: bool,
) -> dict[str, Any]:
    """Return all fields; None is one that the leaf has not."""
    asked = [packs[name] for name in decision.packs]
    considered = _considered(facts)
    told = None if facts.notices is None else sorted(set(facts.notices) & set(NOTICES))
    flags = {name: read(facts, path) for name, path in FLAGS.items()}
    coded = {
        "pur": facts.purpose.value,
        "cat": facts.data.kind.value if facts.data.kind is not None else None,
        "pol": [{"id": pack, "sha256": digest} for pack, digest in decision.policy],
        "packs": list(decision.packs),
        "age": decision.age_band.value,
        "minor": decision.minor,
        "sig": [name for name in ("gpc", "limit_spi") if flags[name]],
        "at": (facts.at - EPOCH) // timedelta(milliseconds=1),
        "yes": sorted(
            [name for name, value in flags.items() if value is True and name not in {"gpc", "limit_spi"}]
            + _derived(facts, asked, considered)
            + (["restricted"] if is_restricted else [])
        ),
        "no": sorted(name for name, value in flags.items() if value is False),
        "told": told,
        "under": _under(facts, asked),
        "rcp": _recipient(facts),
        "placed": facts.system.placed_on_market.isoformat() if facts.system.placed_on_market else None,
        "cons": [
            {**one.codes, "con": ids[one.place]} if ids else one.codes for one in considered[:MAX_LISTED]
        ],
    }
    return {**coded, **_answer(facts, decision, ids, is_restricted=is_restricted)}


def _answer(facts: Facts, decision: Decision, ids: Sequence[str], *, is_restricted: bool) -> dict[str, Any]:
    """Return what was decided, and the consents that its layers rest on, the headline's first."""
    rests_on = () if is_restricted else rests(decision)
    basis = facts.consents[rests_on[0]] if rests_on else None
    return {
        "dec": "allow" if decision.allowed else "deny",
        "rc": decision.reason_code,
        "law": decision.deciding_pack,
        "layer": decision.layer,
        "base": [ids[place] for place in rests_on] if ids or not rests_on else None,
        "form": basis.form.value if basis else None,
        "flags": sorted(_flags(facts, basis) & set(CONSENT_FLAGS[:5])) if basis else None,
    }


def rests(decision: Decision) -> tuple[int, ...]:
    """Return which of the consents a decision rests on, or fell short by, the headline's first."""
    layers = (decision, decision.legal, decision.house)
    return tuple(dict.fromkeys(one.consent for one in layers if one and one.consent is not None))


def _considered(facts: Facts) -> list[_Considered]:
    """Return what the consents for the purpose are worth, in their order.

    Of those that are worth the same only the first is there: policy takes the
    first as well, and so the list stays short whatever people change their minds.
    """
    seen: list[object] = []
    found: list[_Considered] = []
    for index, consent in enumerate(facts.consents):
        if consent.purpose is not facts.purpose or not facts.given(consent):
            continue
        codes = _consent(facts, consent)
        worth = codes if codes["st"] == "standing" else codes["st"]
        if worth not in seen:
            seen.append(worth)
            found.append(_Considered(index, codes))
    return found


def _consent(facts: Facts, consent: Consent) -> dict[str, Any]:
    codes: dict[str, Any] = {
        "st": _state(facts, consent),
        "form": consent.form.value,
        "flags": sorted(_flags(facts, consent)),
    }
    by = (consent.by or "").strip().lower()
    return {**codes, "by": _BY.get(by, OTHER)} if by else codes


def _state(facts: Facts, consent: Consent) -> str:
    """Return `standing`, `withdrawn`, `overtaken` by a later withdrawal for the purpose, or `expired`."""
    if consent.withdrawn_at is not None and consent.withdrawn_at <= facts.at:
        return "withdrawn"
    if facts.withdrawn(consent):
        return "overtaken"
    return "standing" if facts.stands(consent) else "expired"


def _is_over_a_year_old(facts: Facts, consent: Consent) -> bool:
    """Return whether a signed authorisation was given a year ago or longer (RCW 19.373.070(2)(h))."""
    is_signed = consent.form is ConsentForm.SIGNED_AUTHORIZATION
    return is_signed and consent.given_at is not None and add_months(consent.given_at, 12) <= facts.at


def _flags(facts: Facts, consent: Consent) -> set[str]:
    flags = {name for name in CONSENT_FLAGS if getattr(consent, name)}
    if stands_alone(consent) and not flags & {"separate", "presented_separately"}:
        flags.add("separate")
    if _is_over_a_year_old(facts, consent):
        flags.add(YEAR_OLD)
    is_by_terms = (consent.via or "").strip().lower() in TERMS_ACCEPTED
    return flags | ({TERMS} if is_by_terms else set())


def _derived(facts: Facts, asked: Iterable[Pack], considered: Sequence[_Considered]) -> list[str]:
    holds = {
        "place": not is_nowhere(facts),
        "guardian": facts.guardian_verified,
        "guardian_text": facts.guardian_by_text,
        "over": facts.purpose_expired,
        "over_year": facts.purpose_expired_a_year_ago,
        "release": facts.stage == RELEASE,
        "consents": bool(facts.consents),
        "uncoded": not _is_coded(facts, asked, considered),
    }
    return [name for name, value in holds.items() if value]


def _is_coded(facts: Facts, asked: Iterable[Pack], considered: Sequence[_Considered]) -> bool:
    """Return whether every known fact that a rule of the packs reads for the purpose has a code."""
    states = {one.codes["st"] for one in considered}
    if len(considered) > MAX_LISTED:
        return False
    if facts.purpose_withdrawn_at is not None and not states & {"withdrawn", "overtaken"}:
        return False  # withdrawn before it was given
    if facts.recipient.country is not None and not _LAND.fullmatch(facts.recipient.country):
        return False
    for pack in asked:
        for test in _tests(pack, facts):
            if test.fact not in _CODED and read(facts, test.fact) is not None:
                return False
            wanted = test.value if isinstance(test.value, tuple) else (test.value,)
            if test.op != "exists" and not set(wanted) <= set(_WORDS.get(test.fact, wanted)):
                return False
    return True


def _tests(pack: Pack, facts: Facts) -> Iterable[Test]:
    rules = pack.rules
    if rules.scope is not None:
        yield from tests_of(rules.scope.when)
    rule = rules.purposes[facts.purpose]
    for gate in rule.gates:
        yield from tests_of(gate.when)
    for ground in rule.grounds:
        if ground.when is not None:
            yield from tests_of(ground.when)


def _under(facts: Facts, asked: Iterable[Pack]) -> list[str]:
    """Return which rules for the young are about a person of this age where they live or are."""
    return [
        f"{pack.id}.{place}" for pack in asked for place, rule in _rules_for(pack, facts) if rule.binds(facts)
    ]


def _rules_for(pack: Pack, facts: Facts) -> Iterable[tuple[int, ReadyMinor]]:
    day = utc_day(facts.at)
    for place, rule in ready(pack).purposes[facts.purpose].minors:
        if rule.window.holds(day):
            yield place, rule


def _recipient(facts: Facts) -> dict[str, str] | None:
    one = facts.recipient
    codes = {
        "role": one.role if one.role in {None, *ROLES} else OTHER_ROLE,
        "land": one.country if one.country and _LAND.fullmatch(one.country) else None,
        "mech": one.mechanism if one.mechanism in {None, *MECHANISMS} else OTHER_MECHANISM,
    }
    return {name: value for name, value in codes.items() if value is not None} or None


# --- codes to an answer --------------------------------------------------------------------------


def recompute(
    event: Mapping[str, Any], facts: Mapping[str, Any] | None, sources: Mapping[str, bytes]
) -> dict[str, Any]:
    """Return fields that a leaf `decision.made` must have; None is one that it must not.

    They follow from all facts where these are given, else from the leaf's codes.

    Args:
        event: The leaf.
        facts: What its opened payload says, in the form of `parse_facts`; or None.
        sources: Rule books by their SHA-256 in hex.

    Raises:
        NotReplayable: Nothing follows from what there is (a `LookupError`).
        CodesContradict: The codes or the facts are no possible ones (a `ValueError`).
    """
    packs = _named(event, sources)
    if facts is not None:
        return _from_facts(event, facts, packs)
    if not event.keys() >= _NEEDED:
        raise NotReplayable("codes_missing")
    if "uncoded" in event["yes"]:
        raise NotReplayable("fact_uncoded")
    return _from_codes(event, list(packs.values()))


def _named(event: Mapping[str, Any], sources: Mapping[str, bytes]) -> dict[str, Pack]:
    """Return the packs that the leaf names, in its order."""
    if [named["id"] for named in event["pol"]] != list(event["packs"]):
        raise CodesContradict("packs_differ")
    packs: dict[str, Pack] = {}
    for named in event["pol"]:
        try:
            pack = parse_named(sources, named["sha256"])
        except PackInvalid:
            raise NotReplayable("pack_unreadable") from None
        if pack.id != named["id"]:
            raise CodesContradict("pack_misnamed")
        packs[pack.id] = pack
    return packs


def _from_facts(
    event: Mapping[str, Any], given: Mapping[str, Any], packs: Mapping[str, Pack]
) -> dict[str, Any]:
    is_restricted = "restricted" in event.get("yes", ()) or event["rc"] == "DENY_RESTRICTED"
    try:
        facts = parse_facts(given)
        applying = [pack.id for pack in applicable(facts, packs)]
        decision = decide(facts, packs)
    except (OverflowError, ValueError, PolicyError):
        raise CodesContradict("facts_malformed") from None
    if applying != list(packs):
        raise CodesContradict("packs_do_not_apply")
    if is_restricted:
        decision = restricted(decision)
    said = _code(facts, decision, packs, _ids(facts, event.get("cons", ())), is_restricted=is_restricted)
    # A leaf from before there were these codes says less.
    return said if event.keys() >= _NEEDED else {name: said[name] for name in _OLD}


def _ids(facts: Facts, cons: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return an id for each consent: that of the leaf at the place that it has there, else none."""
    ids = [""] * len(facts.consents)
    for one, said in zip(_considered(facts), cons, strict=False):
        ids[one.place] = said.get("con", "")
    return ids if any(ids) else []


def _from_codes(event: Mapping[str, Any], packs: Sequence[Pack]) -> dict[str, Any]:
    try:
        facts = _surrogate(event)
        decision = decide_among(facts, [_as_said(pack, tuple(event["under"])) for pack in packs])
    except (OverflowError, ValueError, PolicyError):
        raise CodesContradict("codes_malformed") from None
    if _age_contradicts(event, facts, packs):
        raise CodesContradict("age_contradicts")
    is_restricted = "restricted" in event["yes"]
    if is_restricted:
        decision = restricted(decision)
    ids = [one.get("con", "") for one in event["cons"]]
    answer = _answer(facts, decision, ids if any(ids) else [], is_restricted=is_restricted)
    return {"age": decision.age_band.value, "minor": decision.minor, **answer}


def _surrogate(event: Mapping[str, Any]) -> Facts:
    """Return facts of nobody, from which follows what followed from the real ones."""
    at = EPOCH + timedelta(milliseconds=event["at"])
    yes, no = set(event["yes"]) | set(event["sig"]), set(event["no"])
    if yes & no:
        raise ValueError("a fact is both yes and no")
    tree: dict[str, Any] = {"purpose": event["pur"], "at": at.isoformat()}
    for name, path in FLAGS.items():
        if name in yes | no:
            group, _, leaf = path.rpartition(".")
            (tree.setdefault(group, {}) if group else tree)[leaf] = name in yes
    subject = tree.setdefault("subject", {})
    subject["age"] = max(_AGES[event["age"]], default=None)
    if yes & {"guardian", "guardian_text"}:
        subject["guardian"] = {"verified_method": "text_plus" if "guardian_text" in yes else OTHER}
    if "over" in yes:
        tree["purpose_expired_at"] = (add_months(at, -12) if "over_year" in yes else at).isoformat()
    if "release" in yes:
        tree["stage"] = RELEASE
    if "placed" in event:
        tree["system"] = {"placed_on_market": event["placed"]}
    if "cat" in event:
        tree.setdefault("data", {})["kind"] = event["cat"]
    if "told" in event:
        tree["notices"] = list(event["told"])
    said = event.get("rcp", {})
    names = {"role": "role", "land": "country", "mech": "mechanism"}
    tree.setdefault("recipient", {}).update({names[name]: value for name, value in said.items()})
    tree["consents"] = [_stand_in(one, event["pur"], at) for one in event["cons"]]
    if "consents" in yes and not tree["consents"]:
        other = "train" if event["pur"] != "train" else "generate"
        tree["consents"] = [{"purpose": other, "form": ConsentForm.IMPLIED.value}]
    facts = parse_facts(tree)
    if "place" not in yes:
        return facts
    # Somewhere, and no place that any rule knows: which one, nobody says.
    return facts.model_copy(update={"subject": facts.subject.model_copy(update={"residence": _SOMEWHERE})})


def _stand_in(one: Mapping[str, Any], purpose: str, at: datetime) -> dict[str, Any]:
    """Return a consent of that worth; its times only stand in the order that its state asks for."""
    state, flags = one["st"], set(one["flags"])
    origin = add_months(at, -12) if YEAR_OLD in flags else at
    before, after = (origin - timedelta(seconds=seconds) for seconds in (3, 1))
    is_over = state in {"withdrawn", "overtaken"}
    consent: dict[str, Any] = {
        "purpose": purpose,
        "form": one["form"],
        "given_at": (before if is_over else after).isoformat(),
    }
    if is_over:
        consent["withdrawn_at"] = (at - timedelta(seconds=2)).isoformat()
    if state == "expired":
        consent["expires_at"] = at.isoformat()
    for name in flags - {TERMS, YEAR_OLD}:
        consent[name] = OTHER if name in {"signature", "term_shown"} else True
    if TERMS in flags:
        consent["via"] = TERMS
    if "by" in one:
        consent["by"] = one["by"]
    return consent


@lru_cache(maxsize=256)
def _as_said(pack: Pack, under: tuple[str, ...]) -> Pack:
    """Return the pack with those rules for the young that are about the person, at any age, and no others."""
    minors = tuple(
        rule.model_copy(update=_OF_ALL_AGES)
        for place, rule in enumerate(pack.rules.minors)
        if f"{pack.id}.{place}" in under
    )
    return Pack(pack.rules.model_copy(update={"minors": minors}), pack.source_bytes)


def _age_contradicts(event: Mapping[str, Any], facts: Facts, packs: Iterable[Pack]) -> bool:
    """Return whether nobody in the age band, wherever they are, is under just these rules for the young."""
    known: set[str] = set()
    for pack in packs:
        for place, rule in _rules_for(pack, facts):
            name = f"{pack.id}.{place}"
            known.add(name)
            law = rule.rule
            limits = {law.age_lt, *(law.age_table.values() if "place" in event["yes"] else ())}
            answers = {law.age_gte <= age < limit for age in _AGES[event["age"]] for limit in limits}
            if rule.unless is not None and rule.unless(facts):
                answers = {False}
            if (name in event["under"]) not in (answers or {law.unknown_age}):
                return True
    return not set(event["under"]) <= known
