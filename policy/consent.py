"""May this purpose be pursued for this person now?  Denied unless every layer allows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import Literal, NamedTuple

from policy.applicability import applicable, is_nowhere, unpacked
from policy.compiled import Denial, Finding, ReadyGround, ReadyMinor, ReadyPack, finding, ready, utc_day
from policy.facts import Consent, Facts
from policy.pack import ConsentNeed, Pack
from policy.spans import Span
from policy.terms import AgeBand, ConsentForm, Purpose, age_band

HOUSE = "house"
Status = Literal["valid", "withdrawn", "expired", "conditioned", "bundled", "weak", "stranger", "absent"]

_RANK: Mapping[Status, int] = {
    "valid": 0,
    "withdrawn": 1,
    "expired": 2,
    "conditioned": 3,
    "bundled": 4,
    "weak": 5,
    "stranger": 6,
    "absent": 7,
}
"""How far a consent is from one that would do."""
TERMS_ACCEPTED = frozenset(
    {"terms_of_service", "terms", "terms_and_conditions", "privacy_policy", "upload", "continued_use"}
)
"""Ways to express a consent that are none (EDPB 05/2020 paras 91-98)."""
_BY_DEPICTED = frozenset({"depicted", "depicted_guardian", "depicted_representative"})
_SERVICE = frozenset({Purpose.GENERATE, Purpose.RETAIN_OUTPUT})
_YOUNG = frozenset({AgeBand.LT13, AgeBand.FROM_13, AgeBand.FROM_16})
_NEVER_FOR_MINORS = frozenset({Purpose.TRAIN, Purpose.ANALYTICS, Purpose.SELL_SHARE})
SECONDARY = frozenset({Purpose.TRAIN, Purpose.ANALYTICS, Purpose.SELL_SHARE})


class Decision(NamedTuple):
    """What policy says, why, and by which rule books.

    With layer `both`, `allowed` is what must be enforced: true only if the law
    and the house both allow.  The headline is the law's, unless the law allows
    and the house denies; `legal` and `house` hold the two answers apart.

    Attributes:
        consent: Index into `facts.consents` of the record the headline rests on.
        layer: The layer whose rule is the headline.
        rule: Where in the deciding pack that rule stands (`purposes.train.grounds.0`).
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
    rule: str = ""
    legal: Decision | None = None
    house: Decision | None = None


class _Assessed(NamedTuple):
    status: Status
    record: int | None


class _Worth(NamedTuple):
    """What one consent for the purpose is worth, whatever is asked of it."""

    place: int
    consent: Consent
    ended: Status | None
    strength: int


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
    case = _case(facts, _books(tuple(asked)), unpacked)
    house = _house_decision(case)
    if layer == "house":
        return house
    legal = _legal_decision(case)
    if layer == "legal":
        return legal or house
    if legal is None:
        return house._replace(house=house)
    headline = legal if not legal.allowed or house.allowed else house
    denials = legal.denials + tuple(denial for denial in house.denials if denial not in legal.denials)
    return headline._replace(
        allowed=legal.allowed and house.allowed, denials=denials, legal=legal, house=house
    )


def restricted(decision: Decision) -> Decision:
    """Return the denial that a restriction of processing makes of any decision.

    Nothing but storage is left, whatever was consented to.

    Rule:
        GDPR Art. 18(2).
    """
    is_legal = "gdpr" in decision.packs
    return decision._replace(
        allowed=False,
        reason_code="DENY_RESTRICTED",
        deciding_pack="gdpr" if is_legal else HOUSE,
        layer="legal" if is_legal else "house",
        citations=("GDPR Art. 18(2)",),
        consent=None,
    )


class _Books(NamedTuple):
    """Packs that apply together, and how a decision names them."""

    ready: tuple[ReadyPack, ...]
    named: tuple[tuple[str, str], ...]
    ids: tuple[str, ...]


@lru_cache(maxsize=512)
def _books(packs: tuple[Pack, ...]) -> _Books:
    books = tuple(map(ready, packs))
    return _Books(books, tuple(book.named for book in books), tuple(book.id for book in books))


class _Case(NamedTuple):
    """One question with what all rules ask of it."""

    facts: Facts
    books: _Books
    unpacked: tuple[str, ...]
    day: str
    nowhere: bool
    band: AgeBand
    minor: Literal["own", "guardian", "none"]
    worths: tuple[_Worth, ...]


def _case(facts: Facts, books: _Books, unpacked: tuple[str, ...]) -> _Case:
    band = age_band(facts.subject.age)
    minor: Literal["own", "guardian", "none"] = "none"
    if band in _YOUNG:
        minor = "guardian" if facts.guardian_verified else "own"
    return _Case(
        facts,
        books,
        unpacked,
        utc_day(facts.at),
        is_nowhere(facts),
        band,
        minor,
        _worths(facts),
    )


def _worths(facts: Facts) -> tuple[_Worth, ...]:
    """Return what the consents given for the purpose are worth.

    What was withdrawn says nothing any more once the person has given another consent.
    """
    worths = [
        _worth(facts, index, consent)
        for index, consent in enumerate(facts.consents)
        if consent.purpose is facts.purpose and facts.given(consent)
    ]
    standing = [worth for worth in worths if worth.ended != "withdrawn"]
    return tuple(standing or worths)


def _worth(facts: Facts, index: int, consent: Consent) -> _Worth:
    ended: Status | None = None
    if facts.withdrawn(consent):
        ended = "withdrawn"
    elif consent.expires_at is not None and consent.expires_at <= facts.at:
        ended = "expired"
    elif not _is_by_depicted(facts, consent):
        ended = "stranger"
    return _Worth(index, consent, ended, strength(facts, consent))


def _legal_decision(case: _Case) -> Decision | None:
    """Return what the packs say, or None where none has a say of its own."""
    findings: list[Finding] = []
    for pack in case.books.ready:
        _ask(pack, case, findings)
    if not case.nowhere:
        return _decision(case, "legal", findings) if findings else None
    if case.facts.purpose not in _SERVICE:
        findings.append(_NOWHERE)
    return _decision(case, "house", findings)._replace(deciding_pack=HOUSE) if findings else None


def _house_decision(case: _Case) -> Decision:
    findings = _house(case)
    if case.nowhere and case.facts.purpose not in _SERVICE:
        findings = [found for found in findings if found.denies]
        findings.append(_NOWHERE)
    return _decision(case, "house", findings)


def _decision(case: _Case, layer: Literal["legal", "house"], findings: list[Finding]) -> Decision:
    """Choose the headline: the strictest denial, else the ground that asks the highest form of consent.

    An unknown jurisdiction is the first headline of all: without one, the legal minimum is not defined.
    """
    denials = [found for found in findings if found.tier >= 0]
    if case.nowhere and case.facts.purpose not in _SERVICE:
        headline = _NOWHERE
    elif denials:
        headline = min(denials, key=_strictest) if len(denials) > 1 else denials[0]
    else:
        headline = min(findings, key=_most_asked) if len(findings) > 1 else findings[0]
    return Decision(
        not denials,
        headline.code,
        headline.pack,
        headline.citations,
        case.books.named,
        case.books.ids,
        layer,
        tuple([found.said for found in denials if found.said is not None]),
        case.band,
        case.minor,
        headline.consent,
        headline.uncertain,
        case.unpacked,
        headline.rule,
    )


_strictest = attrgetter("tier", "order")


def _most_asked(found: Finding) -> tuple[int, tuple[int, str]]:
    return -found.strength, found.order


# --- one pack --------------------------------------------------------------------------------


def _ask(pack: ReadyPack, case: _Case, into: list[Finding]) -> None:
    """Add every denial of a pack, or else its one permission; nothing where the law says nothing."""
    facts, day = case.facts, case.day
    if pack.scope is not None and not pack.scope(facts):
        return
    rule = pack.purposes[facts.purpose]
    before = len(into)
    opted_in = _minors(rule.minors, case, into) if rule.minors else None
    is_settled = False
    for gate in rule.gates:
        if gate.window.holds(day) and gate.when(facts):
            into.append(gate.says)
            is_settled = is_settled or gate.instead
    if rule.forbidden is not None:
        into.append(rule.forbidden)
    ground = None if is_settled else _best_ground(rule.grounds, rule.otherwise, case)
    if ground is not None and ground.tier >= 0 and opted_in is None:
        into.append(ground)
    elif len(into) == before and (opted_in or ground) is not None:
        into.append(opted_in or ground)  # type: ignore[arg-type]  # one of them is there


def _best_ground(grounds: Sequence[ReadyGround], otherwise: Finding | None, case: _Case) -> Finding | None:
    """Return the first ground that holds, or the denial that says what came closest.

    A withdrawn consent is not cured by another ground: whoever asked for consent
    may not fall back on something else when it is taken back (EDPB 05/2020 para 122).
    Only a new consent does, and where that falls short, the answer says by what.
    """
    facts = case.facts
    allowed: Finding | None = None
    closest: tuple[int, Finding] | None = None
    for ground in grounds:
        if not ground.window.holds(case.day) or (ground.when is not None and not ground.when(facts)):
            continue
        found = ground.allows
        if ground.need is not None:
            status, record = _assess(case, ground.need, ground.valid_for)
            rank = _RANK[status]
            if rank:
                if closest is None or rank < closest[0]:
                    denial = ground.denies[status]
                    closest = rank, denial if record is None else denial._replace(consent=record)
                continue
            found = found._replace(consent=record)
        if allowed is None or found.strength > allowed.strength:
            allowed = found
    is_bound = closest is not None and facts.purpose_withdrawn_at is not None
    if allowed is not None and (allowed.consent is not None or not is_bound):
        return allowed
    return closest[1] if closest is not None else otherwise


def _minors(rules: Iterable[tuple[int, ReadyMinor]], case: _Case, into: list[Finding]) -> Finding | None:
    """Add the denials for want of what a young person needs; return what their opt-in permits."""
    opted_in: Finding | None = None
    for _, rule in rules:
        if not rule.window.holds(case.day) or not rule.binds(case.facts):
            continue
        met, index = _minor_is_covered(rule, case)
        if not met:
            into.append(rule.denies._replace(consent=index))
        elif rule.allows is not None:
            opted_in = rule.allows._replace(consent=index)
    return opted_in


def _minor_is_covered(rule: ReadyMinor, case: _Case) -> tuple[bool, int | None]:
    requires = rule.rule.requires
    if requires == "nothing_suffices":
        return False, None
    if requires == "guardian":
        return case.facts.guardian_verified, None
    status, record = _assess(case, rule.need, None)
    if status != "valid" or record is None or requires == "self_opt_in":
        return status == "valid", record
    return case.facts.guardian_verified and is_by_guardian(case.facts.consents[record]), record


def is_by_guardian(consent: Consent) -> bool:
    """Return whether someone who holds parental responsibility gave the consent."""
    return consent.form is ConsentForm.PARENTAL or (consent.by or "").strip().lower() in {
        "guardian",
        "parent",
        "depicted_guardian",
    }


# --- one consent -----------------------------------------------------------------------------


def _assess(case: _Case, need: ConsentNeed, valid_for: Span | None) -> _Assessed:
    """Return how close the recorded consents come to `need`, and which one came closest."""
    best: Status = "absent"
    record: int | None = None
    for worth in case.worths:
        status = worth.ended or _against(worth, need, valid_for, case.facts.at)
        if _RANK[status] < _RANK[best]:
            best, record = status, worth.place
    return _Assessed(best, record)


def _against(worth: _Worth, need: ConsentNeed, valid_for: Span | None, at: datetime) -> Status:
    consent = worth.consent
    if worth.strength < need.form.strength:
        return "weak"
    for name in need.must_have:
        if not getattr(consent, name):
            return "weak"
    if valid_for is not None and consent.given_at is not None and valid_for.after(consent.given_at) <= at:
        return "expired"
    if consent.condition_of_service and need.conditioning == "never":
        return "conditioned"
    return "valid" if not need.separate or stands_alone(consent) else "bundled"


def stands_alone(consent: Consent) -> bool:
    """Return whether a consent was asked for apart from everything else.

    A parent's verified consent is an act of its own unless the record says it was not.
    """
    if consent.separate or consent.presented_separately:
        return True
    return consent.form is ConsentForm.PARENTAL and consent.separate is None


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


def _house(case: _Case) -> list[Finding]:
    """Return every denial of the house floor, or else its one permission.

    The floor, the same everywhere: an explicit opt-in for each purpose; nobody
    under 13; from 13 to 17 only with a verified guardian and never for training,
    analytics or sale; no sale at all; no picture of another without their release.
    """
    facts = case.facts
    purpose = facts.purpose
    denials: list[Finding] = []
    _house_age(case, denials)
    if purpose is Purpose.SELL_SHARE:
        denials.append(_NO_SALE)
    form = ConsentForm.EXPLICIT
    for pack in case.books.ready:
        if pack.scope is not None and not pack.scope(facts):
            continue
        rule = pack.purposes[purpose]
        if rule.house_forbids is not None and purpose is not Purpose.SELL_SHARE:
            denials.append(rule.house_forbids)
        if rule.house_form is not None and rule.house_form.strength > form.strength:
            form = rule.house_form
    consent = _house_consent(case, form)
    if consent.tier >= 0:
        denials.append(consent)
    return denials or [consent]


def _house_age(case: _Case, into: list[Finding]) -> None:
    band = case.band
    if band is AgeBand.ADULT:
        return
    if band is AgeBand.LT13:
        into.append(_NO_CHILDREN)
    elif case.facts.purpose in _NEVER_FOR_MINORS:
        into.append(_NEVER_YOUNG)
    elif not case.facts.guardian_verified:
        into.append(_WITH_GUARDIAN)


def _house_consent(case: _Case, form: ConsentForm) -> Finding:
    facts = case.facts
    need = _HOUSE_NEEDS[form, facts.purpose in SECONDARY]
    status, record = _assess(case, need, None)
    if status == "valid":
        return _OPTED_IN[form]._replace(consent=record)
    if status in {"stranger", "absent"} and facts.subject.is_uploader is not True:
        return _house_says("DENY_NO_CONSENT", record)
    if status == "absent":
        return _house_says("DENY_PURPOSE_NOT_CONSENTED" if facts.consents else "DENY_NO_CONSENT", record)
    return _house_says(_HOUSE_CODES[status], record)


_OWN_OPT_IN = ("House floor: an explicit opt-in for each purpose, by the person in the picture",)
_HOUSE_CODES: Mapping[Status, str] = {
    "withdrawn": "DENY_CONSENT_WITHDRAWN",
    "expired": "DENY_CONSENT_EXPIRED",
    "conditioned": "DENY_CONSENT_CONDITIONED",
    "bundled": "DENY_CONSENT_BUNDLED",
    "weak": "DENY_NO_EXPLICIT_CONSENT",
    "stranger": "DENY_NOT_SUBJECT",
}
_HOUSE_NEEDS: Mapping[tuple[ConsentForm, bool], ConsentNeed] = {
    (form, is_secondary): ConsentNeed(
        form=form,
        separate=is_secondary,
        conditioning="never" if is_secondary else "if_necessary",
        weak="DENY_NO_EXPLICIT_CONSENT",
    )
    for form in ConsentForm
    if form is not ConsentForm.PARENTAL
    for is_secondary in (True, False)
}


def _floor(code: str, cite: str, strength: int = -1) -> Finding:
    return finding(HOUSE, code, (cite,), HOUSE, strength=strength)


def _house_says(code: str, record: int | None) -> Finding:
    return _SHORTFALLS[code]._replace(consent=record)


_SHORTFALLS = {
    code: _floor(code, _OWN_OPT_IN[0])
    for code in (*_HOUSE_CODES.values(), "DENY_NO_CONSENT", "DENY_PURPOSE_NOT_CONSENTED")
}
_OPTED_IN = {form: _floor("ALLOW_EXPLICIT_CONSENT", _OWN_OPT_IN[0], form.strength) for form in ConsentForm}
_NOWHERE = _floor(
    "DENY_JURISDICTION_UNKNOWN",
    "House floor: purposes other than delivering the service need a known residence or location",
)
_NO_SALE = _floor("DENY_BIOMETRIC_SALE_PROHIBITED", "House floor: faces are never sold or shared")
_NO_CHILDREN = _floor("DENY_MINOR_GUARDIAN_REQUIRED", "House floor: no service for children under 13")
_NEVER_YOUNG = _floor(
    "DENY_MINOR_GUARDIAN_REQUIRED", "House floor: under 18, or of unknown age, never for this purpose"
)
_WITH_GUARDIAN = _floor(
    "DENY_MINOR_GUARDIAN_REQUIRED",
    "House floor: under 18, or of unknown age, only with a verified guardian",
)
