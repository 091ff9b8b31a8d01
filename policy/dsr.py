"""The life of a data-subject request as a table, and what its regime asks of those who answer it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from enum import IntEnum, StrEnum

from policy.clocks import find_event
from policy.errors import EventUnknown
from policy.pack import Pack
from policy.terms import DsrKind, Purpose


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
    PAUSE = "pause"
    RESUME = "resume"
    REFUSE_PART = "refuse_part"
    APPROVE = "approve"
    RUN = "run"
    FULFILL = "fulfill"
    REFUSE = "refuse"
    CANCEL = "cancel"


_S, _V = DsrState, DsrVerb

# A request may be approved straight from `received`: identity is asked for only on
# reasonable doubt (GDPR Art. 12(6)), and a signed-in account is proof enough
# (11 CCR 7061).  Once asked for, it must be shown; a check that fails asks for it.
_TABLE: Mapping[tuple[str, str], DsrState] = {
    (_S.RECEIVED, _V.ASK_IDENTITY): _S.IDENTITY_PENDING,
    (_S.RECEIVED, _V.VERIFY): _S.VERIFIED,
    (_S.RECEIVED, _V.EXTEND): _S.RECEIVED,
    (_S.RECEIVED, _V.APPROVE): _S.APPROVED,
    (_S.RECEIVED, _V.REFUSE): _S.REFUSED,
    (_S.RECEIVED, _V.CANCEL): _S.CANCELLED,
    (_S.IDENTITY_PENDING, _V.ASK_IDENTITY): _S.IDENTITY_PENDING,
    (_S.IDENTITY_PENDING, _V.VERIFY): _S.VERIFIED,
    (_S.IDENTITY_PENDING, _V.EXTEND): _S.IDENTITY_PENDING,
    (_S.IDENTITY_PENDING, _V.REFUSE): _S.REFUSED,
    (_S.IDENTITY_PENDING, _V.CANCEL): _S.CANCELLED,
    (_S.VERIFIED, _V.ASK_IDENTITY): _S.IDENTITY_PENDING,
    (_S.VERIFIED, _V.VERIFY): _S.VERIFIED,
    (_S.VERIFIED, _V.EXTEND): _S.VERIFIED,
    (_S.VERIFIED, _V.APPROVE): _S.APPROVED,
    (_S.VERIFIED, _V.REFUSE): _S.REFUSED,
    (_S.VERIFIED, _V.CANCEL): _S.CANCELLED,
    (_S.APPROVED, _V.EXTEND): _S.APPROVED,
    (_S.APPROVED, _V.RUN): _S.RUNNING,
    (_S.APPROVED, _V.CANCEL): _S.CANCELLED,
    (_S.RUNNING, _V.FULFILL): _S.FULFILLED,
}

# A question stops the clock until the approval; its answer lets it go on even after that.
# Until the approval a part may be refused; the rest is then approved.
_ASKING = (_S.RECEIVED, _S.IDENTITY_PENDING, _S.VERIFIED)
_LOOPS: Mapping[tuple[str, str], DsrState] = {
    **{(state, verb): state for state in _ASKING for verb in (_V.PAUSE, _V.REFUSE_PART)},
    **{(state, _V.RESUME): state for state in (*_ASKING, _S.APPROVED)},
}

FINAL = frozenset({DsrState.FULFILLED, DsrState.REFUSED, DsrState.CANCELLED})
"""States that nothing leaves."""


def transition(state: str, verb: str) -> DsrState | None:
    """Return the state after `verb`, or None where the verb is not allowed in `state`.

    What has begun to run can no longer be refused or cancelled: keys may be gone.
    """
    return _TABLE.get((state, verb)) or _LOOPS.get((state, verb))


# --- what a kind of request does -----------------------------------------------------------------


class Effect(StrEnum):
    """What carrying a request out changes."""

    ERASE = "erase"
    PACKAGE = "make_package"
    CORRECT = "correct_profile"
    RESTRICT = "restrict"
    END_CONSENTS = "end_consents"
    OPT_OUT = "opt_out"
    LIMIT = "limit_spi"
    REPLY = "reply"


_K, _E = DsrKind, Effect
EFFECTS: Mapping[DsrKind, tuple[Effect, ...]] = {
    _K.ACCESS: (_E.PACKAGE,),
    _K.PORTABILITY: (_E.PACKAGE,),
    _K.ERASURE: (_E.ERASE,),
    _K.CORRECTION: (_E.CORRECT,),
    _K.RESTRICTION: (_E.RESTRICT,),
    _K.OBJECTION: (_E.END_CONSENTS, _E.OPT_OUT),
    _K.OPT_OUT: (_E.END_CONSENTS, _E.OPT_OUT),
    _K.LIMIT_SPI: (_E.LIMIT,),
    _K.WITHDRAWAL: (_E.END_CONSENTS,),
    _K.COMPLAINT: (_E.REPLY,),
    _K.APPEAL: (_E.REPLY,),
}

DIRECT = frozenset({DsrKind.OPT_OUT, DsrKind.LIMIT_SPI, DsrKind.WITHDRAWAL})
"""Kinds that nobody has to approve, and for which no identity may be asked for.

Rule:
    GDPR Art. 7(3): as easy to withdraw as to give.
    11 CCR 7026, 7027: no verification.
"""

LOOKED_AT_FIRST = frozenset(
    kind for kind, effects in EFFECTS.items() if {_E.ERASE, _E.PACKAGE, _E.END_CONSENTS} & {*effects}
)
"""Kinds that destroy or disclose: whoever approves one says which preview they saw."""

_BESIDE_THE_SERVICE = (Purpose.TRAIN, Purpose.ANALYTICS, Purpose.SELL_SHARE)


IN_PARTS = frozenset({DsrKind.ACCESS, DsrKind.PORTABILITY, DsrKind.OBJECTION})
"""Kinds of which a part may be refused: pictures are withheld, or purposes go on.

What an erasure leaves, rules and legal holds say, and not who decides it.

Rule:
    GDPR Art. 15(4), 20(4), 21(1); 11 CCR 7024; PIPEDA s. 9(1), (3): sever what may be severed.
"""


def ended_purposes(kind: DsrKind, named: tuple[str, ...], refused: Collection[str] = ()) -> tuple[str, ...]:
    """Return the purposes whose consents a request ends, without those that are `refused`.

    A withdrawal that names none ends all; an objection that names none, those
    beside the service itself (GDPR Art. 21(1)-(3)); an opt-out, sale and sharing.
    """
    if kind is DsrKind.OPT_OUT:
        return (Purpose.SELL_SHARE.value,)
    asked = named or tuple(p.value for p in (_BESIDE_THE_SERVICE if kind is DsrKind.OBJECTION else Purpose))
    return tuple(purpose for purpose in asked if purpose not in refused)


# --- what its regime says ------------------------------------------------------------------------


def is_a_right(pack: Pack, kind: DsrKind) -> bool:
    """Return whether the regime, or the house under it, answers such a request."""
    right = pack.rules.rights.get(kind)
    if right is not None:
        return right.available != "none"
    try:
        return find_event(pack, kind.value).respond is not None
    except EventUnknown:
        return False


def grounds(pack: Pack, kind: DsrKind) -> tuple[str, ...]:
    """Return the codes for which such a request may be refused, and no others.

    Where a regime has an objection or a limit only as an opt-out, the grounds are those of that.
    """
    right = pack.rules.rights.get(kind)
    if right is None and kind in {DsrKind.OBJECTION, DsrKind.LIMIT_SPI}:
        right = pack.rules.rights[DsrKind.OPT_OUT]
    return right.exemptions if right is not None else ()


_NEVER_TOLD = frozenset({"PIPEDA_9_2_4_GOV_OBJECTION"})


def told(ground: str) -> str:
    """Return the ground of a refusal as the person may learn it: nothing where the law forbids to reveal it.

    Rule:
        PIPEDA s. 9(2.4): neither the objection of an institution nor that it was asked.
    """
    return "" if ground in _NEVER_TOLD else ground


class Level(IntEnum):
    """How sure one must be of who asks."""

    NONE = 0
    SESSION = 1
    REASONABLE = 2
    HIGH = 3


METHODS: Mapping[str, Level] = {
    "account_session": Level.SESSION,
    "direct_confirmation": Level.SESSION,
    "two_data_points": Level.REASONABLE,
    "three_data_points_declaration": Level.HIGH,
    "reauthentication": Level.HIGH,
}
"""How identity may be shown, and how sure that makes.  No method copies a document.

Rule:
    11 CCR 7061 (account), 7062 (two points; three with a declaration), 7063 (the consumer confirms directly).
    GDPR Art. 12(6): additional information only where there is reasonable doubt.
"""

_COLLECTING = frozenset({"two_data_points", "three_data_points_declaration"})
# What a signed-in account shows, a request that comes through it has shown.
_DEGREES: Mapping[str, Level] = {
    "none": Level.NONE,
    "account": Level.NONE,
    "reasonable": Level.REASONABLE,
    "reasonably_high": Level.HIGH,
}


def needed(pack: Pack, kind: DsrKind, *, is_doubted: bool, mandate: str = "") -> Level:
    """Return how sure the controller must be before it carries the request out.

    Once there is doubt, what the regime then asks must be reached, and a
    reasonable degree at least.  A power of attorney ends the consumer's own
    verification (11 CCR 7063).
    """
    if kind in DIRECT:
        return Level.NONE
    answering, right = pack.rules.answering, pack.rules.rights.get(kind)
    if is_doubted:
        on_doubt = answering.identity.on_doubt if answering else "reasonable"
        return max(Level.REASONABLE, _DEGREES[on_doubt])
    if mandate == "power_of_attorney":
        return Level.NONE
    degree = right.identity if right is not None and right.identity is not None else None
    return _DEGREES[degree or (answering.identity.level if answering else "account")]


def level_of(method: str) -> Level:
    """Return how sure a method makes; an unknown one, and none, not at all."""
    return METHODS.get(method, Level.NONE)


def asks_too_much(pack: Pack, kind: DsrKind, method: str) -> bool:
    """Return whether a method collects more from the person than the request can need."""
    return method in _COLLECTING and METHODS[method] > needed(pack, kind, is_doubted=True)


GUARDIAN = "guardian"
_NO_MANDATE = "consumer_confirms_or_verifies"  # is asked beside the mandate


def mandates(pack: Pack) -> tuple[str, ...]:
    """Return what suffices under a regime to act for somebody else; a guardian always may."""
    answering = pack.rules.answering
    named = answering.identity.agent if answering else ("mandate",)
    return (*(name for name in named if name != _NO_MANDATE), GUARDIAN)


def extension_reasons(pack: Pack) -> tuple[str, ...]:
    """Return the codes of the reasons for which the time may be extended under a regime."""
    answering = pack.rules.answering
    return tuple(name.upper() for name in answering.extension_reasons) if answering else ()


class Extension(StrEnum):
    """Why an extension is not to be had."""

    UNKNOWN_REASON = "reason_unknown"
    NOT_THERE = "no_extension"
    TWICE = "extended_before"
    TOO_LATE = "too_late"


@dataclass(frozen=True, slots=True)
class Time:
    """The time of a request: the day that counts, the last if extended (None: none), and whether it is."""

    due_on: date
    extended_due_on: date | None
    is_extended: bool


def refuse_extension(pack: Pack, time: Time, reason: str, today: date) -> Extension | None:
    """Return why the time may not be extended today, or None where it may.

    A second extension exists nowhere, and a notice after the first limit is void.
    """
    if time.extended_due_on is None or time.extended_due_on <= time.due_on:
        return Extension.TWICE if time.is_extended else Extension.NOT_THERE
    if time.is_extended:
        return Extension.TWICE
    if reason not in extension_reasons(pack):
        return Extension.UNKNOWN_REASON
    return Extension.TOO_LATE if today > time.due_on else None
