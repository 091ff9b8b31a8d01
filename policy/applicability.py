"""Which rule books apply to a person: where they live or are, not what they are citizens of."""

from __future__ import annotations

from collections.abc import Mapping

from policy.codes import specificity
from policy.facts import Facts
from policy.pack import Pack
from policy.predicates import holds, lies_in

_WHERE_UNKNOWN = ("gdpr", "ccpa", "qc_law25", "il_bipa")

_KNOWN_LAWS: Mapping[str, tuple[str, ...]] = {
    "uk_gdpr": ("GB",),
    "qc_law25": ("CA-QC",),
    "il_bipa": ("US-IL",),
    "tx_cubi": ("US-TX",),
    "wa_mhmda": ("US-WA",),
    "lgpd": ("BR",),
}


def applicable(facts: Facts, packs: Mapping[str, Pack]) -> tuple[Pack, ...]:
    """Return the packs that apply, the more specific territory first.

    Residence or location suffices, and a controller or threshold fact that is
    not known counts as met.  A person whose residence and location are both
    unknown is treated as if the strictest of the loaded packs applied.

    Rule:
        GDPR Art. 3; Cal. Civ. Code 1798.140(d), (i); PIPEDA s. 4(1)(a).
    """
    if is_nowhere(facts):
        chosen = [packs[name] for name in _WHERE_UNKNOWN if name in packs]
    else:
        chosen = [pack for pack in packs.values() if _applies(pack, facts)]
    return tuple(sorted(chosen, key=lambda pack: specificity(pack.id)))


def is_nowhere(facts: Facts) -> bool:
    """Return whether neither residence nor location is known."""
    return facts.subject.residence is None and facts.subject.location is None


def unpacked(facts: Facts, packs: Mapping[str, Pack]) -> tuple[str, ...]:
    """Return the laws that are known to reach this person and for which no pack is loaded.

    They decide nothing; a decision names them so that nobody takes the answer
    of the other packs for the whole law.
    """
    places = [code for code in (facts.subject.residence, facts.subject.location) if code is not None]
    return tuple(
        law
        for law, territories in _KNOWN_LAWS.items()
        if law not in packs and any(lies_in(p, t, widened=True) for p in places for t in territories)
    )


def _applies(pack: Pack, facts: Facts) -> bool:
    if pack.status == "pending":
        return False
    triggers = [trigger for trigger in pack.rules.applicability if trigger.in_force(facts.at)]
    return any(holds(trigger.when, facts, pack.rules.sets) for trigger in triggers)
