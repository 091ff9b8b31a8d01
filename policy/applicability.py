"""Which rule books apply to a person: where they live or are, not what they are citizens of."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from operator import attrgetter

from policy.compiled import ready, utc_day
from policy.facts import Facts
from policy.pack import Pack
from policy.predicates import lies_in

_WHERE_UNKNOWN = ("gdpr", "ccpa", "qc_law25", "il_bipa")

_REMEMBERED = 4096

_KNOWN_LAWS: Mapping[str, tuple[str, ...]] = {
    "uk_gdpr": ("GB",),
    "qc_law25": ("CA-QC",),
    "il_bipa": ("US-IL",),
    "tx_cubi": ("US-TX",),
    "wa_mhmda": ("US-WA",),
    "lgpd": ("BR",),
    "ab_pipa": ("CA-AB",),
    "bc_pipa": ("CA-BC",),
    "tx_tdpsa": ("US-TX",),
    "co_cpa": ("US-CO",),
    "va_cdpa": ("US-VA",),
    "ct_ctdpa": ("US-CT",),
    "or_ocpa": ("US-OR",),
    "md_modpa": ("US-MD",),
    "je_dpl": ("JE",),
    "gg_dpl": ("GG",),
    "im_dpa": ("IM",),
}
"""Laws by the territory they reach.  Most of the last dozen have no pack: a known gap that is named."""


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
        chosen.sort(key=_specific_first)
        return tuple(chosen)
    return _shelf(tuple(packs.values())).chosen(facts)


class _Shelf:
    """The packs of a deployment, and which of them applied to facts like these before.

    Whether a pack applies hangs on few facts and on the day, and those recur.
    """

    def __init__(self, packs: tuple[Pack, ...]) -> None:
        self._packs = sorted((pack for pack in packs if not ready(pack).never), key=_specific_first)
        paths = sorted({"subject.residence"}.union(*(ready(pack).reads for pack in packs)))
        self._reads = attrgetter(*paths, "at")
        self._known: dict[tuple[object, ...], tuple[Pack, ...]] = {}

    def chosen(self, facts: Facts) -> tuple[Pack, ...]:
        """Return the packs that apply, the more specific first."""
        *read, at = self._reads(facts)
        day = utc_day(at)
        key = (day, *read)
        found = self._known.get(key)
        if found is None:
            found = tuple(pack for pack in self._packs if _applies(pack, facts, day))
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = found
        return found


@lru_cache(maxsize=64)
def _shelf(packs: tuple[Pack, ...]) -> _Shelf:
    return _Shelf(packs)


def is_nowhere(facts: Facts) -> bool:
    """Return whether neither residence nor location is known."""
    return facts.subject.residence is None and facts.subject.location is None


def unpacked(facts: Facts, packs: Mapping[str, Pack]) -> tuple[str, ...]:
    """Return the laws that are known to reach this person and for which no pack is loaded.

    They decide nothing; a decision names them so that nobody takes the answer
    of the other packs for the whole law.
    """
    return tuple(
        [law for law in _laws_at(facts.subject.residence, facts.subject.location) if law not in packs]
    )


@lru_cache(maxsize=1024)
def _laws_at(residence: str | None, location: str | None) -> tuple[str, ...]:
    places = [code for code in (residence, location) if code is not None]
    return tuple(
        law
        for law, territories in _KNOWN_LAWS.items()
        if any(lies_in(p, t, widened=True) for p in places for t in territories)
    )


def _applies(pack: Pack, facts: Facts, day: str) -> bool:
    return any(window.holds(day) and when(facts) for window, when in ready(pack).triggers)


def _specific_first(pack: Pack) -> tuple[int, str]:
    return ready(pack).order
