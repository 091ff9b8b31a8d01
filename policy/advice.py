"""What would turn a denial into a permission: one line for each, or that nothing would."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from policy.compiled import Denial, utc_day, window
from policy.consent import HOUSE, SECONDARY, Decision
from policy.facts import Facts
from policy.pack import ConsentNeed, Pack
from policy.predicates import tests_of
from policy.terms import ConsentForm, Purpose

_NOTHING = "nothing: "
_FIXED: Mapping[str, str] = {
    "DENY_BIOMETRIC_SALE_PROHIBITED": f"{_NOTHING}consent cannot cure it",
    "DENY_AI_INTIMATE_CONTENT": f"{_NOTHING}such a picture is not made",
    "DENY_NOT_SUBJECT": "ask for: the release of the person in the picture",
    "DENY_RESTRICTED": f"{_NOTHING}while the restriction stands",
    "DENY_OBJECTED": f"{_NOTHING}while the objection stands",
    "DENY_GPC_OPT_OUT": f"{_NOTHING}while the opt-out signal stands",
    "DENY_OPTED_OUT": f"{_NOTHING}while the opt-out stands",
    "DENY_SPI_LIMITED": f"{_NOTHING}while the use of sensitive data is limited",
    "DENY_MINOR_OPT_IN_REQUIRED": "ask for: the young person's own opt-in in two steps; under 13, a parent's",
    "DENY_NO_PIA_OUTSIDE_QC": "do first: a privacy impact assessment of the communication outside Quebec",
    "DENY_CAI_NOT_NOTIFIED": "do first: disclose the bank to the CAI, 60 days before it is put into service",
    "DENY_RETENTION_EXPIRED": f"{_NOTHING}it is to be destroyed",
    "DENY_AI_MARKING_MISSING": "mark: the output, with a signed manifest and a watermark",
    "DENY_JURISDICTION_UNKNOWN": "find out: where the person lives or is",
}
_FORMS: Mapping[ConsentForm, str] = {
    ConsentForm.IMPLIED: "implied consent to",
    ConsentForm.OPT_OUT: "a notice with the choice to opt out of",
    ConsentForm.EXPRESS: "express consent to",
    ConsentForm.EXPLICIT: "explicit consent to",
    ConsentForm.WRITTEN_RELEASE: "a written release for",
    ConsentForm.SIGNED_AUTHORIZATION: "a signed authorization for",
}
_MUST_HAVE: Mapping[str, str] = {
    "presented_separately": "presented separately",
    "highlighted": "highlighted",
    "signature": "signed",
    "term_shown": "with the length of term shown",
    "two_step_confirmed": "confirmed in a second step",
}


def would_change(decision: Decision, facts: Facts, packs: Mapping[str, Pack]) -> tuple[str, ...]:
    """Return what to ask for, show or bring so that each denial falls, in the order of the denials.

    Each line once; one that begins with `nothing` says that the denial stands.
    """
    lines = (_line(denial, facts, packs.get(denial.pack)) for denial in decision.denials)
    return tuple(dict.fromkeys(lines))


def _line(denial: Denial, facts: Facts, pack: Pack | None) -> str:
    code = denial.reason_code
    if code in _FIXED:
        return _FIXED[code]
    if code == "DENY_MINOR_GUARDIAN_REQUIRED":
        return _guardian(denial, facts)
    if code == "DENY_NO_NOTICE" and pack is not None:
        return "show: " + _or(f"`{name}`" for name in _named(pack, facts, "notices"))
    if code == "DENY_NO_TRANSFER_MECHANISM" and pack is not None:
        return _transfer(pack)
    return _ask_for(_need(denial, facts, pack), facts.purpose)


def _guardian(denial: Denial, facts: Facts) -> str:
    age = facts.subject.age
    is_child = denial.pack == HOUSE and age is not None and age < 13
    if is_child or (denial.pack == HOUSE and facts.purpose in SECONDARY):
        return f"{_NOTHING}the house does not do this with the young, or where the age is unknown"
    return f"ask for: the consent of a verified guardian to `{facts.purpose.value}`"


def _need(denial: Denial, facts: Facts, pack: Pack | None) -> ConsentNeed:
    """Return the consent that the denying rule asks for."""
    if pack is None:
        is_secondary = facts.purpose in SECONDARY
        return ConsentNeed(
            form=ConsentForm.EXPLICIT,
            separate=is_secondary,
            conditioning="never" if is_secondary else "if_necessary",
        )
    grounds = pack.rules.purposes[facts.purpose].grounds
    place = denial.rule.rpartition(".grounds.")[2]
    chosen = grounds[int(place)].consent if place.isdecimal() else None
    if chosen is not None:
        return chosen
    day = utc_day(facts.at)
    needs = [ground.consent for ground in grounds if ground.consent and window(ground).holds(day)]
    needs.sort(key=lambda need: need.absent != denial.reason_code)
    return needs[0] if needs else ConsentNeed(form=ConsentForm.EXPRESS)


def _ask_for(need: ConsentNeed, purpose: Purpose) -> str:
    words = [f"ask for: {_FORMS[need.form]} `{purpose.value}`"]
    if need.separate and "presented_separately" not in need.must_have:
        words.append("presented separately")
    words += [_MUST_HAVE[name] for name in need.must_have]
    if need.conditioning == "never":
        words.append("not as a condition of the service")
    return ", ".join(words)


def _named(pack: Pack, facts: Facts, fact: str) -> list[str]:
    """Return the values of a fact that the pack's gates and grounds for the purpose would accept."""
    rule = pack.rules.purposes[facts.purpose]
    predicates = [gate.when for gate in rule.gates]
    predicates += [ground.when for ground in rule.grounds if ground.when is not None]
    return list(
        dict.fromkeys(
            value
            for predicate in predicates
            for test in tests_of(predicate)
            if test.fact == fact and isinstance(test.value, tuple)
            for value in test.value
            if isinstance(value, str)
        )
    )


def _transfer(pack: Pack) -> str:
    """Return what of a recipient would do, beside a place that is held adequate."""
    ways: list[str] = []
    for ground in pack.rules.purposes[Purpose.TRANSFER].grounds:
        for test in tests_of(ground.when) if ground.when is not None else ():
            if test.fact == "recipient.mechanism" and isinstance(test.value, tuple):
                ways += [f"`{value}`" for value in test.value]
            elif test.fact in {"recipient.written_agreement", "recipient.comparable_protection_contract"}:
                ways.append(f"`{test.fact.partition('.')[2]}`")
    return "bring: " + _or(dict.fromkeys(ways))


def _or(words: Iterable[str]) -> str:
    return " or ".join(words) or "what the rule names"
