"""The life of a data-subject request, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class DsrState(StrEnum):
    """Where a request stands."""

    RECEIVED = "received"
    IDENTITY_PENDING = "identity_pending"
    VERIFIED = "verified"
    APPROVED = "approved"
    RUNNING = "running"
    FULFILLED = "fulfilled"
    REFUSED = "refused"
    CANCELLED = "cancelled"


class DsrVerb(StrEnum):
    """What may be done to a request."""

    ASK_IDENTITY = "ask_identity"
    VERIFY = "verify"
    EXTEND = "extend"
    APPROVE = "approve"
    RUN = "run"
    FULFILL = "fulfill"
    REFUSE = "refuse"
    CANCEL = "cancel"


_S, _V = DsrState, DsrVerb

# A request may be approved straight from `received`: identity is asked for only on
# reasonable doubt (GDPR Art. 12(6)), and a signed-in account is proof enough
# (11 CCR 7061).  Once asked for, it must be shown.
_TABLE: Mapping[tuple[str, str], DsrState] = {
    (_S.RECEIVED, _V.ASK_IDENTITY): _S.IDENTITY_PENDING,
    (_S.RECEIVED, _V.VERIFY): _S.VERIFIED,
    (_S.RECEIVED, _V.EXTEND): _S.RECEIVED,
    (_S.RECEIVED, _V.APPROVE): _S.APPROVED,
    (_S.RECEIVED, _V.REFUSE): _S.REFUSED,
    (_S.RECEIVED, _V.CANCEL): _S.CANCELLED,
    (_S.IDENTITY_PENDING, _V.VERIFY): _S.VERIFIED,
    (_S.IDENTITY_PENDING, _V.EXTEND): _S.IDENTITY_PENDING,
    (_S.IDENTITY_PENDING, _V.REFUSE): _S.REFUSED,
    (_S.IDENTITY_PENDING, _V.CANCEL): _S.CANCELLED,
    (_S.VERIFIED, _V.EXTEND): _S.VERIFIED,
    (_S.VERIFIED, _V.APPROVE): _S.APPROVED,
    (_S.VERIFIED, _V.REFUSE): _S.REFUSED,
    (_S.VERIFIED, _V.CANCEL): _S.CANCELLED,
    (_S.APPROVED, _V.EXTEND): _S.APPROVED,
    (_S.APPROVED, _V.RUN): _S.RUNNING,
    (_S.APPROVED, _V.CANCEL): _S.CANCELLED,
    (_S.RUNNING, _V.FULFILL): _S.FULFILLED,
}

FINAL = frozenset({DsrState.FULFILLED, DsrState.REFUSED, DsrState.CANCELLED})
"""States that nothing leaves."""


def transition(state: str, verb: str) -> DsrState | None:
    """Return the state after `verb`, or None where the verb is not allowed in `state`.

    What has begun to run can no longer be refused or cancelled: keys may be gone.
    """
    return _TABLE.get((state, verb))
