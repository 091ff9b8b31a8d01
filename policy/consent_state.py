"""The life of a consent, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum


class ConsentState(StrEnum):
    """Where a consent stands; only in the first two does it permit anything."""

    GIVEN = "given"
    REAFFIRMED = "reaffirmed"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    WITHDRAWN = "withdrawn"
    INVALIDATED = "invalidated"


class ConsentVerb(StrEnum):
    """What may happen to a consent."""

    GIVE = "give"
    REAFFIRM = "reaffirm"
    EXPIRE = "expire"
    SUPERSEDE = "supersede"
    WITHDRAW = "withdraw"
    INVALIDATE = "invalidate"


_S, _V = ConsentState, ConsentVerb
NOTHING = ""
"""Where there is no consent yet."""

# A consent that is given while another for the purpose stands reaffirms it: that is a record
# of its own, and the older one is superseded.  What was superseded or has run out can still be
# withdrawn or found invalid, so that it never counts again; what was withdrawn was valid until
# then (GDPR Art. 7(3)), and may yet be found never to have been.
_TABLE: Mapping[tuple[str, str], ConsentState] = {
    (NOTHING, _V.GIVE): _S.GIVEN,
    (NOTHING, _V.REAFFIRM): _S.REAFFIRMED,
    (_S.GIVEN, _V.EXPIRE): _S.EXPIRED,
    (_S.GIVEN, _V.SUPERSEDE): _S.SUPERSEDED,
    (_S.GIVEN, _V.WITHDRAW): _S.WITHDRAWN,
    (_S.GIVEN, _V.INVALIDATE): _S.INVALIDATED,
    (_S.REAFFIRMED, _V.EXPIRE): _S.EXPIRED,
    (_S.REAFFIRMED, _V.SUPERSEDE): _S.SUPERSEDED,
    (_S.REAFFIRMED, _V.WITHDRAW): _S.WITHDRAWN,
    (_S.REAFFIRMED, _V.INVALIDATE): _S.INVALIDATED,
    (_S.EXPIRED, _V.SUPERSEDE): _S.SUPERSEDED,
    (_S.EXPIRED, _V.WITHDRAW): _S.WITHDRAWN,
    (_S.EXPIRED, _V.INVALIDATE): _S.INVALIDATED,
    (_S.SUPERSEDED, _V.WITHDRAW): _S.WITHDRAWN,
    (_S.SUPERSEDED, _V.INVALIDATE): _S.INVALIDATED,
    (_S.WITHDRAWN, _V.INVALIDATE): _S.INVALIDATED,
}

STANDING = frozenset({ConsentState.GIVEN, ConsentState.REAFFIRMED})
"""States in which a consent permits."""


def transition(state: str, verb: str) -> ConsentState | None:
    """Return the state after `verb`, or None where the verb changes nothing in `state`."""
    return _TABLE.get((state, verb))


def state_at(state: str, expires_at: datetime | None, now: datetime) -> ConsentState:
    """Return the state at `now`: that a consent has run out follows from its term, and nobody writes it."""
    if expires_at is not None and expires_at <= now:
        return transition(state, ConsentVerb.EXPIRE) or ConsentState(state)
    return ConsentState(state)
