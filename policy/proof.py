"""What a record of consent must prove, by the packs that apply; what it lacks is named with its rule."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from policy.applicability import applicable
from policy.compiled import ready, utc_day
from policy.consent import HOUSE, is_by_guardian, stands_alone, strength
from policy.facts import Consent, Facts
from policy.pack import ConsentNeed, MinorRule, Pack, PurposeRule, Rule
from policy.terms import ConsentForm

_GUARDED = frozenset({"guardian", "guardian_opt_in"})


class Lack(NamedTuple):
    """A field of the record that does not prove what a rule asks for.

    `field` is the consent's own word for it: `form`, `separate`, `guardian`, ...
    """

    field: str
    reason_code: str
    pack: str
    citations: tuple[str, ...]


def lacks(
    facts: Facts, consent: Consent, packs: Mapping[str, Pack], held: Collection[str]
) -> tuple[Lack, ...]:
    """Return what the record lacks; nothing where every pack that applies has what it asks for.

    Of several grounds that rest on consent, one that the record proves is enough.  Whether the
    person is the one in the picture shows with the picture, and is not asked here.

    Args:
        facts: Of the person and the purpose; `facts.consents` is not looked at.
        held: The fields of a record (`policy.pack.ProofField`) that this one has; `guardian` only
            where it says how that was verified.

    Rule:
        GDPR Art. 7(1), 7(2), 8(2), 9(2)(a): proof, presentation, parents, an explicit statement.
    """
    found: list[Lack] = []
    for pack in applicable(facts, packs):
        scope = ready(pack).scope
        if scope is not None and not scope(facts):
            continue
        rule = pack.rules.purposes[facts.purpose]
        found += _of_grounds(pack, rule, facts, consent)
        found += _of_house(pack, rule, facts, consent)
        found += _of_minors(pack, facts, consent, held)
        found += _of_record(pack, rule, facts, held)
    return tuple(found)


def _of_grounds(pack: Pack, rule: PurposeRule, facts: Facts, consent: Consent) -> Sequence[Lack]:
    """Return what is lacking for the ground that the record comes closest to."""
    tries = [
        list(_short_of(pack, ground, ground.consent, facts, consent))
        for ground in rule.grounds
        if ground.consent is not None and ground.in_force(facts.at)
    ]
    return min(tries, key=len, default=())


def _short_of(pack: Pack, rule: Rule, need: ConsentNeed, facts: Facts, consent: Consent) -> Iterable[Lack]:
    cited = pack.cited(rule.cite)
    if strength(facts, consent) < need.form.strength:
        yield Lack("form", need.weak, pack.id, cited)
    for name in need.must_have:
        if not getattr(consent, name):
            yield Lack(name, need.weak, pack.id, cited)
    if need.separate and not stands_alone(consent):
        yield Lack("separate", need.bundled, pack.id, cited)
    if need.conditioning == "never" and consent.condition_of_service:
        yield Lack("condition_of_service", need.conditioned, pack.id, cited)


def _of_house(pack: Pack, rule: PurposeRule, facts: Facts, consent: Consent) -> Iterable[Lack]:
    form = rule.house.form
    if form is not None and strength(facts, consent) < form.strength:
        yield Lack("form", "DENY_NO_EXPLICIT_CONSENT", HOUSE, pack.cited(rule.cite))


def _of_record(pack: Pack, rule: PurposeRule, facts: Facts, held: Collection[str]) -> Iterable[Lack]:
    """Yield the fields that the pack wants in every record, and this one has not."""
    record = pack.rules.consent_record
    if record is None or not record.in_force(facts.at):
        return
    weak = [ground.consent.weak for ground in rule.grounds if ground.consent is not None]
    for field in sorted(record.fields(facts.purpose).difference(held)):
        yield Lack(field, (weak or [rule.otherwise])[0], pack.id, pack.cited(record.cite))


def _of_minors(pack: Pack, facts: Facts, consent: Consent, held: Collection[str]) -> Iterable[Lack]:
    day = utc_day(facts.at)
    for minor in ready(pack).minors:
        rule = minor.rule
        if facts.purpose not in rule.purposes or not minor.window.holds(day) or not minor.binds(facts):
            continue
        for field in _young(rule, consent, held):
            yield Lack(field, rule.deny, pack.id, pack.cited(rule.cite))


def _young(rule: MinorRule, consent: Consent, held: Collection[str]) -> Iterable[str]:
    if rule.requires in _GUARDED and "guardian" not in held:
        yield "guardian"
    if rule.requires == "guardian_opt_in" and not is_by_guardian(consent):
        yield "by"
    if rule.requires == "self_opt_in" and consent.form is ConsentForm.IMPLIED:
        yield "form"
    if rule.two_step and not consent.two_step_confirmed:
        yield "two_step_confirmed"
    if rule.separate and not stands_alone(consent):
        yield "separate"
