"""May this purpose be pursued for this person now?  Denied unless every layer allows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from policy.applicability import applicable, is_nowhere, unpacked
from policy.codes import TIER, specificity
from policy.facts import Consent, Facts
from policy.pack import ConsentNeed, Ground, MinorRule, Pack, PurposeRule, Rule
from policy.predicates import holds, lies_in
from policy.terms import AgeBand, ConsentForm, Purpose, age_band

HOUSE = "house"
Status = Literal["valid", "withdrawn", "expired", "conditioned", "bundled", "weak", "stranger", "absent"]

_WORST_LAST: Sequence[Status] = (
    "valid",
    "withdrawn",
    "expired",
    "conditioned",
    "bundled",
    "weak",
    "stranger",
    "absent",
)
TERMS_ACCEPTED = frozenset(
    {"terms_of_service", "terms", "terms_and_conditions", "privacy_policy", "upload", "continued_use"}
)
"""Ways to express a consent that are none (EDPB 05/2020 paras 91-98)."""
_BY_DEPICTED = frozenset({"depicted", "depicted_guardian", "depicted_representative"})
_SERVICE = frozenset({Purpose.GENERATE, Purpose.RETAIN_OUTPUT})
_NEVER_FOR_MINORS = frozenset({Purpose.TRAIN, Purpose.ANALYTICS, Purpose.SELL_SHARE})
_SECONDARY = frozenset({Purpose.TRAIN, Purpose.ANALYTICS, Purpose.SELL_SHARE})


class Denial(NamedTuple):
    """One rule's no."""

    pack: str
    reason_code: str
    cite: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What policy says, why, and by which rule books.

    With layer `both`, `allowed` is what must be enforced: true only if the law
    and the house both allow.  The headline is the law's, unless the law allows
    and the house denies; `legal` and `house` hold the two answers apart.

    Attributes:
        consent: Index into `facts.consents` of the record the headline rests on.
        layer: The layer whose rule is the headline.
        minor: Who consents for a person under 18: `own` or `guardian`; else `none`.
        uncertain: Ids of the open legal questions that the deciding rule touches.
        unpacked: Laws known to reach the person for which no pack is loaded.
    """

    allowed: bool
    reason_code: str
    deciding_pack: str
    citations: tuple[str, ...]
    policy: tuple[tuple[str, str], ...]
    packs: tuple[str, ...]
    layer: Literal["legal", "house"]
    denials: tuple[Denial, ...]
    age_band: AgeBand
    minor: Literal["own", "guardian", "none"]
    consent: int | None = None
    uncertain: tuple[str, ...] = ()
    unpacked: tuple[str, ...] = ()
    legal: Decision | None = None
    house: Decision | None = None


@dataclass(frozen=True, slots=True)
class _Finding:
    """One rule's answer, before the headline is chosen."""

    pack: str
    code: str
    citations: tuple[str, ...]
    uncertain: tuple[str, ...] = ()
    consent: int | None = None
    strength: int = -1

    @property
    def denies(self) -> bool:
        return self.code in TIER


class _Assessed(NamedTuple):
    status: Status
    record: int | None


def decide(
    facts: Facts, packs: Mapping[str, Pack], *, layer: Literal["legal", "house", "both"] = "both"
) -> Decision:
    """Return the decision on `facts.purpose` at the instant `facts.at`.

    Every pack that applies is asked; one denial is enough.  Where no pack
    applies, or nobody knows where the person lives or is, the answer is the
    house's on every layer.

    Rule:
        GDPR Art. 6, 7, 8, 9(2)(a), 44-49; Cal. Civ. Code 1798.100, 120, 121, 135; PIPEDA Sch. 1 cl. 4.3.
    """
    return decide_among(facts, applicable(facts, packs), unpacked(facts, packs), layer=layer)


def decide_among(
    facts: Facts,
    asked: Sequence[Pack],
    unpacked: tuple[str, ...] = (),
    *,
    layer: Literal["legal", "house", "both"] = "both",
) -> Decision:
    """Return the decision of the packs in `asked`, which apply, in the order of `applicable`."""
    state = _Case(facts, tuple(asked), unpacked)
    house = _house_decision(state)
    legal = _legal_decision(state)
    if layer == "house":
        return house
    if layer == "legal":
        return legal or house
    if legal is None:
        return replace(house, house=house)
    headline = legal if not legal.allowed or house.allowed else house
    denials = legal.denials + tuple(denial for denial in house.denials if denial not in legal.denials)
    return replace(
        headline, allowed=legal.allowed and house.allowed, denials=denials, legal=legal, house=house
    )


def restricted(decision: Decision) -> Decision:
    """Return the denial that a restriction of processing makes of any decision.

    Nothing but storage is left, whatever was consented to.

    Rule:
        GDPR Art. 18(2).
    """
    is_legal = "gdpr" in decision.packs
    return replace(
        decision,
        allowed=False,
        reason_code="DENY_RESTRICTED",
        deciding_pack="gdpr" if is_legal else HOUSE,
        layer="legal" if is_legal else "house",
        citations=("GDPR Art. 18(2)",),
        consent=None,
    )


@dataclass(frozen=True, slots=True)
class _Case:
    facts: Facts
    packs: tuple[Pack, ...]
    unpacked: tuple[str, ...]


def _legal_decision(case: _Case) -> Decision | None:
    """Return what the packs say, or None where none has a say of its own."""
    if not case.packs:
        return None
    findings = [finding for pack in case.packs for finding in _ask(pack, case.facts)]
    if not is_nowhere(case.facts):
        return _decision(case, "legal", findings)
    if case.facts.purpose not in _SERVICE:
        findings.append(_nowhere())
    return replace(_decision(case, "house", findings, _jurisdiction_first), deciding_pack=HOUSE)


def _house_decision(case: _Case) -> Decision:
    findings = list(_house(case))
    if is_nowhere(case.facts) and case.facts.purpose not in _SERVICE:
        findings.append(_nowhere())
    return _decision(case, "house", findings, _jurisdiction_first)


def _nowhere() -> _Finding:
    cite = "House floor: purposes other than delivering the service need a known residence or location"
    return _Finding(HOUSE, "DENY_JURISDICTION_UNKNOWN", (cite,))


def _tier(finding: _Finding) -> int:
    return TIER[finding.code]


def _jurisdiction_first(finding: _Finding) -> int:
    """Headline an unknown jurisdiction first: without one, the legal minimum is not defined."""
    return -1 if finding.code == "DENY_JURISDICTION_UNKNOWN" else TIER[finding.code]


def _decision(
    case: _Case,
    layer: Literal["legal", "house"],
    findings: Iterable[_Finding],
    tier: Callable[[_Finding], int] = _tier,
) -> Decision:
    """Choose the headline: the strictest denial, else the ground that asks the highest form of consent."""
    found = list(findings)
    denials = [finding for finding in found if finding.denies]
    if denials:
        headline = min(denials, key=lambda f: (tier(f), specificity(f.pack)))
    else:
        headline = min(found, key=lambda f: (-f.strength, specificity(f.pack)))
    facts = case.facts
    band = age_band(facts.subject.age)
    minor: Literal["own", "guardian", "none"] = "none"
    if band in {AgeBand.LT13, AgeBand.FROM_13, AgeBand.FROM_16}:
        minor = "guardian" if facts.guardian_verified else "own"
    return Decision(
        allowed=not denials,
        reason_code=headline.code,
        deciding_pack=headline.pack,
        citations=headline.citations,
        policy=tuple((pack.id, pack.digest) for pack in case.packs),
        packs=tuple(pack.id for pack in case.packs),
        layer=layer,
        denials=tuple(Denial(f.pack, f.code, "; ".join(f.citations)) for f in denials),
        age_band=band,
        minor=minor,
        consent=headline.consent,
        uncertain=headline.uncertain,
        unpacked=case.unpacked,
    )


# --- one pack --------------------------------------------------------------------------------


def _ask(pack: Pack, facts: Facts) -> Iterable[_Finding]:
    """Yield every denial of a pack, or else its one permission."""
    rule = pack.rules.purposes[facts.purpose]
    opted_in, denials = _minors(pack, facts)
    denials += _gates(pack, rule, facts)
    ground = _best_ground(pack, rule, facts)
    if ground.denies and opted_in is None:
        denials.append(ground)
    if denials:
        return denials
    return [opted_in or ground]


def _finding(pack: Pack, code: str, rule: Rule, consent: int | None = None, strength: int = -1) -> _Finding:
    return _Finding(pack.id, code, pack.cited(rule.cite), rule.uncertain, consent, strength)


def _gates(pack: Pack, rule: PurposeRule, facts: Facts) -> list[_Finding]:
    denials = [
        _finding(pack, gate.deny, gate)
        for gate in rule.gates
        if gate.in_force(facts.at) and holds(gate.when, facts, pack.rules.sets)
    ]
    if rule.forbidden is not None:
        denials.append(_finding(pack, rule.forbidden, rule))
    return denials


def _best_ground(pack: Pack, rule: PurposeRule, facts: Facts) -> _Finding:
    """Return the first ground that holds, or the denial that says what came closest.

    A withdrawn consent is not cured by another ground: whoever asked for consent
    may not fall back on something else when it is taken back (EDPB 05/2020 para 122).
    Only a new consent does, and where that falls short, the answer says by what.
    """
    failed: list[tuple[_Assessed, Ground]] = []
    allowed: list[_Finding] = []
    for ground in rule.grounds:
        if not ground.in_force(facts.at):
            continue
        met = ground.when is None or holds(ground.when, facts, pack.rules.sets)
        if ground.consent is None:
            if met:
                allowed.append(_finding(pack, ground.allow, ground))
            continue
        assessed = assess(facts, ground.consent)
        if assessed.status == "valid" and met:
            strength = ground.consent.form.strength
            allowed.append(_finding(pack, ground.allow, ground, assessed.record, strength))
        elif met:
            failed.append((assessed, ground))
    best = max(allowed, key=lambda finding: finding.strength, default=None)
    is_bound = facts.purpose_withdrawn_at is not None and bool(failed)
    if best is not None and (best.consent is not None or not is_bound):
        return best
    if not failed:
        return _finding(pack, rule.otherwise, rule)
    assessed, ground = min(failed, key=lambda pair: _WORST_LAST.index(pair[0].status))
    code = _code(assessed.status, ground.consent, rule.otherwise)
    return _finding(pack, code, _fallen_short_of(assessed.status, pack, rule, ground), assessed.record)


def _fallen_short_of(status: Status, pack: Pack, rule: PurposeRule, ground: Ground) -> Rule:
    """Return the rule to cite: that of withdrawal, of the purpose where nothing was said, else the ground."""
    if status == "withdrawn" and pack.rules.withdrawal is not None:
        return pack.rules.withdrawal
    return rule if status == "absent" else ground


def _code(status: Status, need: ConsentNeed | None, otherwise: str) -> str:
    """Return the reason code for a consent that falls short."""
    if need is None:
        return otherwise
    return {
        "withdrawn": "DENY_CONSENT_WITHDRAWN",
        "expired": "DENY_CONSENT_EXPIRED",
        "conditioned": need.conditioned,
        "bundled": need.bundled,
        "weak": need.weak,
        "stranger": "DENY_NOT_SUBJECT",
    }.get(status, otherwise)


def _minors(pack: Pack, facts: Facts) -> tuple[_Finding | None, list[_Finding]]:
    """Return the permission a young person's own opt-in gives, and the denials for want of one."""
    opted_in: _Finding | None = None
    denials: list[_Finding] = []
    for rule in pack.rules.minors:
        if facts.purpose not in rule.purposes or not rule.in_force(facts.at) or not is_of_age(rule, facts):
            continue
        met, index = _minor_is_covered(rule, facts)
        if not met:
            denials.append(_finding(pack, rule.deny, rule, index))
        elif rule.allow is not None:
            opted_in = _finding(pack, rule.allow, rule, index, ConsentForm.EXPRESS.strength)
    return opted_in, denials


def is_of_age(rule: MinorRule, facts: Facts) -> bool:
    """Return whether the rule is about this person's age; an unknown age is the house's concern."""
    age = facts.subject.age
    if age is None:
        return False
    places = [code for code in (facts.subject.residence, facts.subject.location) if code is not None]
    limits = [
        limit for land, limit in rule.age_table.items() if any(lies_in(place, land) for place in places)
    ]
    return rule.age_gte <= age < max(limits, default=rule.age_lt)


def _minor_is_covered(rule: MinorRule, facts: Facts) -> tuple[bool, int | None]:
    if rule.requires == "nothing_suffices":
        return False, None
    if rule.requires == "guardian":
        return facts.guardian_verified, None
    steps: tuple[Literal["two_step_confirmed"], ...] = ("two_step_confirmed",) if rule.two_step else ()
    need = ConsentNeed(form=ConsentForm.EXPRESS, must_have=steps, conditioning="if_necessary")
    assessed = assess(facts, need)
    if assessed.status != "valid" or rule.requires == "self_opt_in":
        return assessed.status == "valid", assessed.record
    return facts.guardian_verified and is_by_guardian(facts.consents[assessed.record or 0]), assessed.record


def is_by_guardian(consent: Consent) -> bool:
    """Return whether someone who holds parental responsibility gave the consent."""
    return consent.form is ConsentForm.PARENTAL or (consent.by or "").strip().lower() in {
        "guardian",
        "parent",
        "depicted_guardian",
    }


# --- one consent -----------------------------------------------------------------------------


def assess(facts: Facts, need: ConsentNeed) -> _Assessed:
    """Return how close the recorded consents come to `need`, and which one came closest.

    What was withdrawn says nothing any more once the person has given another consent after it.
    """
    best = _Assessed("absent", None)
    given = [c for c in facts.consents if c.purpose is facts.purpose and facts.given(c)]
    is_given_anew = any(not facts.withdrawn(consent) for consent in given)
    for index, consent in enumerate(facts.consents):
        if consent.purpose is facts.purpose and not (is_given_anew and facts.withdrawn(consent)):
            status = _status(facts, consent, need)
            if _WORST_LAST.index(status) < _WORST_LAST.index(best.status):
                best = _Assessed(status, index)
    return best


def _status(facts: Facts, consent: Consent, need: ConsentNeed) -> Status:
    if not facts.given(consent):
        return "absent"
    if facts.withdrawn(consent):
        return "withdrawn"
    if consent.expires_at is not None and consent.expires_at <= facts.at:
        return "expired"
    if not _is_by_depicted(facts, consent):
        return "stranger"
    if strength(facts, consent) < need.form.strength or any(
        not getattr(consent, name) for name in need.must_have
    ):
        return "weak"
    if consent.condition_of_service and need.conditioning == "never":
        return "conditioned"
    if need.separate and not (consent.separate or consent.presented_separately):
        return "bundled"
    return "valid"


def _is_by_depicted(facts: Facts, consent: Consent) -> bool:
    """Return whether the person in the picture consented; not known who that is counts as no."""
    return facts.subject.is_uploader is True or (consent.by or "").strip().lower() in _BY_DEPICTED


def strength(facts: Facts, consent: Consent) -> int:
    """Return the rank of a consent as it was really expressed.

    Accepting terms is implied whatever the record calls it (EDPB 05/2020 paras
    91-98).  A parent's consent, verified, for a person under 18 is an explicit
    act, but no written release.
    """
    if (consent.via or "").strip().lower() in TERMS_ACCEPTED:
        return ConsentForm.IMPLIED.strength
    if consent.form is ConsentForm.PARENTAL:
        age = facts.subject.age
        is_covered = facts.guardian_verified and age is not None and age < 18
        return ConsentForm.EXPLICIT.strength if is_covered else -1
    return consent.form.strength


# --- the house -------------------------------------------------------------------------------


def _house(case: _Case) -> Iterable[_Finding]:
    """Yield every denial of the house floor, or else its one permission.

    The floor, the same everywhere: an explicit opt-in for each purpose; nobody
    under 13; from 13 to 17 only with a verified guardian and never for training,
    analytics or sale; no sale at all; no picture of another without their release.
    """
    facts = case.facts
    denials = list(_house_age(facts))
    rules = [(pack, pack.rules.purposes[facts.purpose]) for pack in case.packs]
    if facts.purpose is Purpose.SELL_SHARE:
        denials.append(
            _Finding(
                HOUSE, "DENY_BIOMETRIC_SALE_PROHIBITED", ("House floor: faces are never sold or shared",)
            )
        )
    denials += [
        _Finding(HOUSE, "DENY_BIOMETRIC_SALE_PROHIBITED", pack.cited(rule.cite))
        for pack, rule in rules
        if rule.house.forbidden and facts.purpose is not Purpose.SELL_SHARE
    ]
    asked = [rule.house.form for _, rule in rules if rule.house.form is not None]
    form = max((ConsentForm.EXPLICIT, *asked), key=lambda one: one.strength)
    consent = _house_consent(facts, form)
    if consent.denies:
        denials.append(consent)
    return denials or [consent]


def _house_age(facts: Facts) -> Iterable[_Finding]:
    band = age_band(facts.subject.age)
    if band is AgeBand.ADULT:
        return
    code = "DENY_MINOR_GUARDIAN_REQUIRED"
    if band is AgeBand.LT13:
        yield _Finding(HOUSE, code, ("House floor: no service for children under 13",))
    elif facts.purpose in _NEVER_FOR_MINORS:
        yield _Finding(HOUSE, code, ("House floor: under 18, or of unknown age, never for this purpose",))
    elif not facts.guardian_verified:
        yield _Finding(
            HOUSE, code, ("House floor: under 18, or of unknown age, only with a verified guardian",)
        )


def _house_consent(facts: Facts, form: ConsentForm) -> _Finding:
    is_secondary = facts.purpose in _SECONDARY
    need = ConsentNeed(
        form=form,
        separate=is_secondary,
        conditioning="never" if is_secondary else "if_necessary",
        weak="DENY_NO_EXPLICIT_CONSENT",
    )
    assessed = assess(facts, need)
    cite = ("House floor: an explicit opt-in for each purpose, by the person in the picture",)
    if assessed.status == "valid":
        return _Finding(
            HOUSE, "ALLOW_EXPLICIT_CONSENT", cite, consent=assessed.record, strength=form.strength
        )
    if facts.subject.is_uploader is not True and assessed.status in {"stranger", "absent"}:
        return _Finding(HOUSE, "DENY_NO_CONSENT", cite, consent=assessed.record)
    code = _code(assessed.status, need, "DENY_PURPOSE_NOT_CONSENTED" if facts.consents else "DENY_NO_CONSENT")
    return _Finding(HOUSE, code, cite, consent=assessed.record)
