"""Whose pictures may be in a training set, and in which form."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

from policy.terms import ConsentForm

SUFFICES: Mapping[str, str] = MappingProxyType(
    {
        "gdpr": "GDPR Art. 6(1)(a), 7(4), 9(2)(a)",
        "uk_gdpr": "UK GDPR Art. 6(1)(a), 9(2)(a)",
        "ccpa": "11 CCR 7002; Cal. Civ. Code 1798.121",
        "pipeda": "PIPEDA Sch. 1 cl. 4.3.3",
        "qc_law25": "P-39.1 ss. 12, 14; C-1.1 ss. 44, 45 (U-10)",
        "il_bipa": "740 ILCS 14/10, 14/15(b)",
        "tx_cubi": "Tex. Bus. & Com. Code 503.001(b), (f) (U-12)",
        "wa_mhmda": "RCW 19.373.010, 19.373.030 (U-03)",
        "lgpd": "LGPD Art. 11 I",
        "eu_ai_act": "Reg. (EU) 2024/1689 Art. 50",
    }
)
"""Regimes under which a copy without the person's face (`policy.faces`) may train once they opted in, and
why: the law asks for that consent, or is about a geometry that cannot be taken from such a copy."""

ASKS_FOR_MORE: Mapping[str, str] = MappingProxyType({"coppa": "16 CFR 312.2, 312.10"})
"""Regimes under which nothing of the person trains: a child's picture stays one when its head is masked."""

NOT_KNOWN = "no rule of the house says that a picture may train"


def is_opt_in(form: str, flags: Collection[str]) -> bool:
    """Return whether a consent to `train` is an act of its own: express at least, asked for separately.

    Rule:
        GDPR Art. 7(2), (4), Rec. 43; PIPEDA Sch. 1 cl. 4.3.3; P-39.1 s. 14; LGPD Art. 11 I.
    """
    strength = ConsentForm(form).strength
    return (
        strength >= ConsentForm.EXPRESS.strength
        and "separate" in flags
        and "condition_of_service" not in flags
    )


def unmet(regimes: Iterable[str]) -> dict[str, str]:
    """Return the regimes that ask for more than a copy without the person's face, each with why.

    A pack that nobody has judged asks for more.
    """
    return {regime: ASKS_FOR_MORE.get(regime, NOT_KNOWN) for regime in regimes if regime not in SUFFICES}
