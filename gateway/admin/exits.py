"""The exit codes, and the one table of the reasons that count as a refusal."""

from __future__ import annotations

from collections.abc import Mapping

DONE, FAILED, USAGE, REFUSED, UNVERIFIED, PARTLY = range(6)

REFUSALS = frozenset(
    {
        "ATTESTATION_REQUIRED",
        "BACKEND_RETENTION_TOO_LONG",
        "DEIDENTIFICATION_REQUIRED",
        "EXTENSION_REFUSED",
        "HOLD_ACTIVE",
        "IDENTITY_REQUIRED",
        "MANDATE_REQUIRED",
        "PROMPT_REJECTED",
        "RESIDENCY_NO_TARGET",
        "ROLE_REQUIRED",
        "SECOND_FACTOR_REQUIRED",
        "SECOND_PERSON_REQUIRED",
        "SUBJECT_BLOCKED",
        "TRAINING_OFF",
        "ZERO_RETENTION",
    }
)
"""Reasons by which a policy or a role says no, beside every `DENY_*`; all others mean that it failed."""

PACKAGE_DIFFERS = "PACKAGE_DIFFERS"
"""What the client says of a file that is not the one the gateway announced."""

VERDICTS = {"valid": DONE, "invalid": UNVERIFIED, "untrusted": PARTLY}
"""What an offline verification ends with: consistent in itself without trust is never `valid`."""


def exit_code(reason: str, metadata: Mapping[str, str] | None = None) -> int:
    """Return the exit code for a refusal of the gateway.

    A job that ended without a result answers STATE_CONFLICT; why it ended
    stands in the metadata (`job_reason`) and counts as well.
    """
    if reason == PACKAGE_DIFFERS:
        return UNVERIFIED
    reasons = (reason, (metadata or {}).get("job_reason", ""))
    return REFUSED if any(_is_refusal(one) for one in reasons) else FAILED


def _is_refusal(reason: str) -> bool:
    return reason.startswith("DENY_") or reason in REFUSALS
