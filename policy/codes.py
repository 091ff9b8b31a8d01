"""Reason codes of decisions, and which of several denials is the headline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

ALLOW_CODES = frozenset(
    {
        "ALLOW_EXPLICIT_CONSENT",
        "ALLOW_EXPRESS_CONSENT",
        "ALLOW_WRITTEN_RELEASE",
        "ALLOW_CONSENT",
        "ALLOW_SERVICE_NECESSARY",
        "ALLOW_NOTICE",
        "ALLOW_NO_OPT_OUT",
        "ALLOW_MINOR_OPT_IN",
        "ALLOW_ADEQUACY",
        "ALLOW_SAFEGUARDS",
        "ALLOW_ACCOUNTABILITY",
    }
)

_TIERS: Sequence[frozenset[str]] = (
    frozenset({"DENY_BIOMETRIC_SALE_PROHIBITED", "DENY_AI_INTIMATE_CONTENT"}),
    frozenset({"DENY_NOT_SUBJECT"}),
    frozenset({"DENY_RESTRICTED", "DENY_OBJECTED"}),
    frozenset({"DENY_MINOR_OPT_IN_REQUIRED", "DENY_MINOR_GUARDIAN_REQUIRED"}),
    frozenset({"DENY_CONSENT_WITHDRAWN", "DENY_CONSENT_EXPIRED"}),
    frozenset({"DENY_GPC_OPT_OUT", "DENY_OPTED_OUT", "DENY_SPI_LIMITED"}),
    frozenset(
        {
            "DENY_NO_EXPLICIT_CONSENT",
            "DENY_NO_CONSENT",
            "DENY_NO_WRITTEN_RELEASE",
            "DENY_NO_VALID_AUTHORIZATION",
            "DENY_NO_SEPARATE_CONSENT",
            "DENY_CONSENT_BUNDLED",
            "DENY_CONSENT_CONDITIONED",
        }
    ),
    frozenset({"DENY_PURPOSE_NOT_CONSENTED", "DENY_JURISDICTION_UNKNOWN"}),
    frozenset({"DENY_NO_NOTICE", "DENY_CAI_NOT_NOTIFIED"}),
    frozenset({"DENY_NO_TRANSFER_MECHANISM", "DENY_NO_PIA_OUTSIDE_QC"}),
    frozenset({"DENY_RETENTION_EXPIRED"}),
    frozenset({"DENY_AI_MARKING_MISSING"}),
)

TIER: Mapping[str, int] = MappingProxyType(
    {code: tier for tier, codes in enumerate(_TIERS) for code in codes}
)
"""Denial code to its place among headlines; 0 is the strictest."""

DENY_CODES = frozenset(TIER)

_SPECIFIC: Sequence[frozenset[str]] = (
    frozenset({"il_bipa", "tx_cubi", "wa_mhmda", "qc_law25"}),
    frozenset({"ccpa", "pipeda", "gdpr", "uk_gdpr", "lgpd"}),
    frozenset({"coppa", "eu_ai_act"}),
)


def specificity(pack: str) -> tuple[int, str]:
    """Return the key that breaks ties: the more specific territory first, then the pack's id."""
    for place, ids in enumerate(_SPECIFIC):
        if pack in ids:
            return place, pack
    return len(_SPECIFIC), pack
