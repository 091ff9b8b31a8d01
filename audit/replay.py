"""Replay: decides every decision of an export again, and asks of every promise whether it was kept.

Nothing but the export is needed: leaves, opened payloads, and the rule books that
decisions name.  How to decide is an argument, so the log knows no policy.

What a part of a log does not show cannot be held against it: where events before
the first one, or between two, are not there, an event that should stand before
another is `unseen` instead of missing (decision 0017).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, zip_longest
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from audit import canonical, export, leaf
from audit.errors import ExportInvalid, JsonInvalid
from audit.payloads import MAX_PAYLOAD_BYTES, Payload, parse
from audit.schema import FLAGS

SKEW_MS = 5_000
"""By so much a leaf may lag behind others: an event that another needs may stand that far behind it."""

CLOSE_MS = 100
"""So near each other two processes' clocks do not tell which of two events came first."""

SWEEP_GRACE_MS = 3_600_000
"""How late after `exp` an object may be destroyed: the sweeper comes each minute, and may have been down."""

HOLDS: Mapping[str, str] = MappingProxyType({"object.held": "object.freed"})
"""Event type that stops the destruction of an object (`obj`) to the type that lets it go on."""

_CODE = re.compile(r"[a-z0-9_]{1,63}", re.ASCII)
_ENDS = ("job.cancelled", "job.failed", "job.succeeded")

State = Literal["broken", "pending", "unclear", "unseen"]
Decide = Callable[[Mapping[str, Any], Mapping[str, Any] | None, Mapping[str, bytes]], Mapping[str, Any]]
"""Returns the fields that a leaf `decision.made` must have, None for one that it must not.

It is given the leaf, the facts of its opened payload or None, and the rule books
by their SHA-256 in hex.  It raises LookupError where nothing follows from these,
and ValueError where they contradict themselves; the first argument is a code.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A leaf and its place in the log."""

    index: int
    event: Mapping[str, Any]

    @property
    def ty(self) -> str:
        """Return the event's type."""
        return str(self.event["ty"])

    @property
    def t(self) -> int:
        """Return when it was, in milliseconds since 1970."""
        return int(self.event["t"])


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that an event breaks.  `detail` is made of codes, ids and numbers of the log."""

    index: int
    type: str
    rule: str
    detail: str


@dataclass(slots=True)
class Tally:
    """How often a promise was kept, and how often not.

    `pending`: its time is not over where the export ends.  `unclear`: two events
    lie so close that nobody can tell which came first.  `unseen`: what shows it is
    not in the export.
    """

    kept: int = 0
    pending: int = 0
    unclear: int = 0
    unseen: int = 0
    broken: int = 0


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What replaying an export found.

    Attributes:
        full: Decisions decided again from all facts.
        coded: Decisions decided again from the codes in the leaf.
        not_replayable: Decisions that nothing follows for.
        reasons: How many of these for which reason.
        promises: By the name of the promise.
    """

    violations: tuple[Violation, ...]
    full: int
    coded: int
    not_replayable: int
    reasons: Mapping[str, int]
    promises: Mapping[str, Tally]

    @property
    def verdict(self) -> Literal["kept", "incomplete", "violated"]:
        """Return `kept` only where every decision was replayed and no rule is broken."""
        if self.violations:
            return "violated"
        return "incomplete" if self.not_replayable else "kept"


class Finding(NamedTuple):
    """What a check has to say of an event."""

    state: State
    rule: str
    detail: str = ""


@dataclass(slots=True)
class Log:
    """The events of an export, by the things they name.

    Attributes:
        is_whole: The rows begin with the log and none is missing.
        is_gapless: None is missing between the first and the last.
        end_ms: The latest time of any event.
        erased_by: How many payloads are said to have been destroyed by the leaf at an index.
        is_restored: A backup was restored: payloads may be erased by a later leaf than at first.
    """

    things: Mapping[tuple[str, str], Mapping[str, Sequence[Row]]]
    is_whole: bool
    is_gapless: bool
    end_ms: int
    packs: Mapping[str, bytes]
    decide: Decide
    opened: Mapping[int, Sequence[Payload]]
    erased_by: Mapping[int, int]
    withheld: int
    has_all_payloads: bool
    latest_consent: Mapping[str, int]
    is_restored: bool = False
    replayed: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def first(self, name: str, thing: str, *types: str) -> Row | None:
        """Return the earliest event of `types` whose field `name` is `thing`."""
        found = self.things.get((name, thing), {})
        return min((found[ty][0] for ty in types if ty in found), key=_place, default=None)

    def last(self, name: str, thing: str, ty: str, row: Row) -> Row | None:
        """Return the latest event of type `ty` whose field `name` is `thing` that stands before `row`."""
        found = self.things.get((name, thing), {}).get(ty, ())
        here = bisect_left(found, row.index, key=_place)
        if here:
            return found[here - 1]
        return found[0] if found and _is_before(found[0], row) else None

    def absent(self, rule: str, detail: str = "") -> Finding:
        """Return what it means that an event is not there that should stand before another."""
        return Finding("broken" if self.is_whole else "unseen", rule, detail)

    def owed(self, rule: str, detail: str) -> Finding:
        """Return what it means that something was not done in time: a selection may leave out an excuse."""
        return Finding("broken" if self.is_gapless else "unseen", rule, detail)


def _place(row: Row) -> int:
    return row.index


def _is_before(other: Row, row: Row) -> bool:
    """Return whether `other` is before `row`, or so little behind that clocks may have put it there."""
    return other.index < row.index or other.t <= row.t + SKEW_MS


Check = Callable[[Log, Row], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Rule:
    """What replaying an event type means.

    Attributes:
        says: The rule, or why there is nothing to replay.
        promise: The name under which its outcome is counted.
    """

    says: str
    checks: tuple[Check, ...] = ()
    promise: str = ""


def replay(
    rows: Iterable[tuple[int, Mapping[str, Any]]],
    payloads: Iterable[Payload],
    packs: Mapping[str, bytes],
    decide: Decide,
) -> ReplayReport:
    """Return what became of every decision and promise of an export, which is verified already.

    Args:
        rows: Leaves with their places in the log, ascending.
        payloads: What became of the payloads; those that are not opened may be left out.
        packs: Sources of rule books by their SHA-256 in hex.
    """
    log, placed = _log(rows, payloads, packs, decide)
    violations: list[Violation] = []
    promises: defaultdict[str, Tally] = defaultdict(Tally)
    latest = 0
    for row in placed:
        rule = RULES[row.ty]
        findings = [finding for check in rule.checks for finding in check(log, row)]
        if row.t < latest - SKEW_MS:
            findings.append(Finding("broken", "time_back", "lags behind an event before it"))
        latest = max(latest, row.t)
        broken = [finding for finding in findings if finding.state == "broken"]
        violations += [Violation(row.index, row.ty, one.rule, one.detail) for one in broken]
        if rule.promise:
            _count(promises[rule.promise], findings)
    return ReplayReport(
        violations=tuple(violations),
        full=log.replayed["full"],
        coded=log.replayed["coded"],
        not_replayable=log.reasons.total(),
        reasons=dict(sorted(log.reasons.items())),
        promises=dict(sorted(promises.items())),
    )


def _count(tally: Tally, findings: Sequence[Finding]) -> None:
    states = {finding.state for finding in findings}
    for state in ("broken", "unclear", "unseen", "pending"):
        if state in states:
            setattr(tally, state, getattr(tally, state) + 1)
            return
    tally.kept += 1


def _log(
    rows: Iterable[tuple[int, Mapping[str, Any]]],
    payloads: Iterable[Payload],
    packs: Mapping[str, bytes],
    decide: Decide,
) -> tuple[Log, list[Row]]:
    placed = [Row(index, event) for index, event in rows]
    things: defaultdict[tuple[str, str], defaultdict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    latest_consent: dict[str, int] = {}
    for row in placed:
        for name in _THINGS & row.event.keys():
            things[name, row.event[name]][_kind(row)].append(row)
        if row.ty == "consent.recorded":
            latest_consent[row.event["pur"]] = row.index
    is_gapless = all(after.index == row.index + 1 for row, after in pairwise(placed))
    known = list(payloads)
    opened: defaultdict[int, list[Payload]] = defaultdict(list)
    for payload in known:
        if payload.state == "opened":
            opened[payload.index].append(payload)
    log = Log(
        things=things,
        is_whole=is_gapless and bool(placed) and placed[0].index == 0,
        is_gapless=is_gapless,
        end_ms=max((row.t for row in placed), default=0),
        packs=packs,
        decide=decide,
        opened=opened,
        erased_by=Counter(payload.by for payload in known if payload.state == "erased"),
        withheld=sum(payload.state == "withheld" for payload in known),
        has_all_payloads=len(known) == sum(len(row.event["seals"]) for row in placed),
        latest_consent=latest_consent,
        is_restored=any(row.ty == "backup.restored" for row in placed),
    )
    return log, placed


_THINGS = frozenset({"con", "dsr", "dst", "hld", "inc", "itm", "job", "ntc", "obj"})
_ALLOWED, _DENIED = "decision.made/allow", "decision.made/deny"


def _kind(row: Row) -> str:
    """Return the type under which a row is looked up: permissions and denials apart."""
    return row.ty if row.ty != "decision.made" else f"{row.ty}/{row.event['dec']}"


# --- checks, made of values ----------------------------------------------------------------------


def needs(name: str, *types: str, rule: str, **wanted: str) -> Check:
    """Return a check that one of `types` about the same thing stands before the event.

    Args:
        wanted: Fields of that event to fields of this one that must be the same.
    """

    def check(log: Log, row: Row) -> Iterator[Finding]:
        if name not in row.event:
            return
        first = log.first(name, row.event[name], *types)
        if first is None or not _is_before(first, row):
            yield log.absent(rule, f"no {' or '.join(types)} before it")
            return
        for theirs, ours in wanted.items():
            if first.event[theirs] != row.event[ours]:
                yield Finding("broken", rule, f"{theirs} is not that of entry {first.index}")

    return check


def never(name: str, *types: str, rule: str) -> Check:
    """Return a check that none of `types` about the same thing stands before the event."""

    def check(log: Log, row: Row) -> Iterator[Finding]:
        yield from _forbidden(log.first(name, row.event[name], *types), row, rule)

    return check


def once(name: str, *types: str, rule: str) -> Check:
    """Return a check that no event of `types` has been about the same thing."""

    def check(log: Log, row: Row) -> Iterator[Finding]:
        first = log.first(name, row.event[name], *types)
        if first is not None and first.index < row.index:
            yield Finding("broken", rule, f"after entry {first.index}")

    return check


def _forbidden(other: Row | None, row: Row, rule: str) -> Iterator[Finding]:
    """Yield what it means that `other`, after which the row must not come, is in the log."""
    if other is not None and other.index < row.index:
        state: State = "broken" if row.t - other.t > CLOSE_MS else "unclear"
        yield Finding(state, rule, f"after {other.ty} at entry {other.index}")


# --- decisions -----------------------------------------------------------------------------------


def _decided(log: Log, row: Row) -> Iterator[Finding]:
    """Decide again, and compare every field that follows."""
    try:
        facts = _facts(log.opened.get(row.index, ()))
        must = log.decide(row.event, facts, log.packs)
    except JsonInvalid:
        yield Finding("broken", "payload_malformed")
        return
    except LookupError as error:
        log.reasons[_code(error)] += 1
        return
    except ValueError as error:
        log.replayed["coded" if facts is None else "full"] += 1
        yield Finding("broken", "decision_contradicts", _code(error))
        return
    log.replayed["coded" if facts is None else "full"] += 1
    for name in sorted(must):
        said = row.event.get(name)
        if said != must[name]:
            yield Finding("broken", "decision_differs", f"{name}: {_shown(said)}, not {_shown(must[name])}")


def _facts(opened: Iterable[Payload]) -> Mapping[str, Any] | None:
    """Return what was decided on; another payload of the leaf may say who decided."""
    for payload in opened:
        said = canonical.parse(payload.payload, MAX_PAYLOAD_BYTES)
        if isinstance(said, dict) and {"purpose", "at"} <= said.keys():
            return said
    return None


def _code(error: Exception) -> str:
    code = str(error.args[0]) if error.args else ""
    return code if _CODE.fullmatch(code) else "not_decided"


def _shown(value: Any) -> str:
    """Return a coded value in short; what a payload says never comes here."""
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else canonical.encode(value).decode()
    return text if len(text) <= 80 else f"{text[:77]}..."


def _consents_as_said(log: Log, row: Row) -> Iterator[Finding]:
    """Compare what a decision says of each consent with what the log says of it."""
    at = row.event.get("at", row.t)
    if at > row.t + SKEW_MS:
        yield Finding("broken", "decision_time", "decided after it was written down")
    for said in row.event.get("cons", ()):
        if "con" not in said:
            continue
        recorded = log.first("con", said["con"], "consent.recorded")
        if recorded is None or not _is_before(recorded, row):
            yield log.absent("consent_unknown", said["con"])
        else:
            yield from _as_recorded(said, row, recorded.event)
            yield from _in_its_term(said, at, recorded.event)
        yield from _as_withdrawn(log, said, row, at)
        yield from _forbidden(log.first("con", said["con"], _INVALID), row, "consent_invalid")


def _as_recorded(said: Mapping[str, Any], row: Row, recorded: Mapping[str, Any]) -> Iterator[Finding]:
    flags = [flag for flag in said["flags"] if flag in {*FLAGS, "signature"}]
    same = {"form": said["form"], "pur": row.event["pur"], "flags": flags}
    for name, value in same.items():
        was = sorted(recorded[name]) if name == "flags" else recorded[name]
        if was != value:
            yield Finding("broken", "consent_differs", f"{name} of {said['con']} was recorded otherwise")


def _in_its_term(said: Mapping[str, Any], at: int, recorded: Mapping[str, Any]) -> Iterator[Finding]:
    end = recorded.get("exp")
    if said["st"] == "standing" and end is not None and end < at:
        yield Finding("broken", "consent_expired", f"{said['con']} had ended")
    if said["st"] == "expired" and (end is None or end > at):
        yield Finding("broken", "consent_not_expired", f"{said['con']} had not ended")


def _as_withdrawn(log: Log, said: Mapping[str, Any], row: Row, at: int) -> Iterator[Finding]:
    end = log.first("con", said["con"], "consent.withdrawn")
    is_allowed = row.event["dec"] == "allow"
    if said["st"] == "withdrawn":
        if end is None or not _is_before(end, row):
            yield log.absent("consent_not_withdrawn", said["con"])
    elif end is not None and end.index < row.index and (is_allowed or end.t < at):
        # A denial may be written down some time after it was decided; a permission is not.
        gap = (row.t if is_allowed else at) - end.t
        state: State = "broken" if gap > CLOSE_MS else "unclear"
        yield Finding(state, "consent_withdrawn", f"{said['con']} at entry {end.index}")


# --- jobs ----------------------------------------------------------------------------------------


def _permitted(log: Log, row: Row) -> Iterator[Finding]:
    """Ask for the permission that the job has, and for the consents that it rests on."""
    job = row.event["job"]
    yield from _forbidden(log.first("job", job, _DENIED), row, "after_deny")
    permission = log.last("job", job, _ALLOWED, row)
    if permission is None:
        yield log.absent("not_permitted", "no decision allows the job")
        return
    if "base" not in permission.event and "form" in permission.event:
        yield Finding("unseen", "consent_unnamed", f"entry {permission.index} names no consent")
    for con in permission.event.get("base", ()):
        yield from _standing(log, row, con, permission)


def _released_by_right(log: Log, row: Row) -> Iterator[Finding]:
    """Ask for the permission of the job, or where another consent keeps the result, for that one."""
    kept = log.last("obj", row.event["obj"], "object.kept", row)
    if kept is None:
        yield from _permitted(log, row)
    else:
        yield from _standing(log, row, kept.event["con"], kept)


def _kept_by_right(log: Log, row: Row) -> Iterator[Finding]:
    yield from _standing(log, row, row.event["con"], row)


def _standing(log: Log, row: Row, con: str, permission: Row) -> Iterator[Finding]:
    """Ask whether a consent that a permission rests on stood at the instant of `row`."""
    yield from _forbidden(log.first("con", con, "consent.withdrawn"), row, "consent_withdrawn")
    yield from _forbidden(log.first("con", con, _INVALID), row, "consent_invalid")
    recorded = log.first("con", con, "consent.recorded")
    if recorded is None or not _is_before(recorded, row):
        yield log.absent("consent_unknown", con)
    elif recorded.event.get("exp", row.t) + SKEW_MS < row.t:
        # Another of the same purpose may have taken its place; whose that is, nobody can see.
        is_last = log.latest_consent[recorded.event["pur"]] < permission.index
        yield Finding("broken" if is_last and log.is_gapless else "unseen", "consent_expired", con)


def _input_is_there(log: Log, row: Row) -> Iterator[Finding]:
    """Ask whether what was forwarded had not been destroyed before."""
    created = log.first("job", row.event["job"], "job.created")
    if created is not None:
        gone = log.first("obj", created.event["obj"], "object.destroyed")
        yield from _forbidden(gone, row, "forwarded_destroyed")


def _same_purpose(log: Log, row: Row) -> Iterator[Finding]:
    decision = log.last("job", row.event["job"], _ALLOWED, row)
    if decision is not None and decision.event["pur"] != row.event["pur"]:
        yield Finding("broken", "purpose_differs", f"decided for another at entry {decision.index}")


def _in_term(log: Log, row: Row) -> Iterator[Finding]:
    sealed = log.first("obj", row.event["obj"], *_TAKEN)
    if sealed is not None and row.t > sealed.event["exp"] + SKEW_MS:
        yield Finding("broken", "released_late", f"its term ended at {sealed.event['exp']}")


def _marked(log: Log, row: Row) -> Iterator[Finding]:
    """Ask whether a result carried its manifest where the packs demanded one."""
    if "manifest" in row.event.get("mark", ()):
        yield from _WAS_MARKED(log, row)


_WAS_MARKED = needs("obj", "image.marked", rule="not_marked")


def _watermarked(log: Log, row: Row) -> Iterator[Finding]:  # noqa: ARG001 - a check like those beside it
    """Say where a watermark was demanded: the log shows none, for it is not ours to put."""
    if "watermark" in row.event.get("mark", ()):
        yield Finding("unseen", "watermark_not_shown")


# --- objects -------------------------------------------------------------------------------------


def _scrubbed(log: Log, row: Row) -> Iterator[Finding]:
    """Ask whether a picture was scrubbed before; a package is none."""
    if row.event["cat"] != "package":
        yield from _WAS_SCRUBBED(log, row)


_WAS_SCRUBBED = needs("obj", "image.scrubbed", rule="not_scrubbed")


def _faces_as_said(log: Log, row: Row) -> Iterator[Finding]:
    """Ask whether that was done about the faces in a picture which its use asks for."""
    if "kind" in row.event:
        yield from _WAS_MASKED(log, row)


_WAS_MASKED = needs("obj", "image.scrubbed", rule="faces_not_masked", kind="kind")


def _recorded_by_right(log: Log, row: Row) -> Iterator[Finding]:
    """Ask whether the last decision on the picture permits its record, and the consents it rests on."""
    obj = row.event["obj"]
    permission, denial = (log.last("obj", obj, dec, row) for dec in (_ALLOWED, _DENIED))
    if permission is None:
        yield log.absent("not_permitted", "no decision allows the record")
        return
    if denial is not None and denial.index > permission.index:
        yield from _forbidden(denial, row, "after_deny")
    if permission.event["pur"] != row.event["pur"]:
        yield Finding("broken", "purpose_differs", f"decided for another at entry {permission.index}")
    for con in permission.event.get("base", ()):
        yield from _standing(log, row, con, permission)


def _destroyed_in_time(log: Log, row: Row) -> Iterator[Finding]:
    """Ask whether an object was destroyed by its promised moment, or once no hold covered it any more."""
    gone = log.first("obj", row.event["obj"], "object.destroyed")
    due = _due(log, row)
    if gone is not None and due is None:
        yield Finding("broken", "destroyed_under_hold", f"entry {gone.index}")
    elif gone is not None and due is not None and gone.t > due:
        yield Finding("broken", "destroyed_late", f"entry {gone.index} at {gone.t}, by {row.event['exp']}")
    elif gone is None and (due is None or due >= log.end_ms):
        yield Finding("pending", "not_due_yet")
    elif gone is None:
        yield log.owed("not_destroyed", f"by {row.event['exp']}")


def _due(log: Log, row: Row) -> int | None:
    """Return by when the object of a row must be gone, grace included; None while a hold covers it."""
    due = int(row.event["exp"]) + SWEEP_GRACE_MS
    held = log.things["obj", row.event["obj"]]
    for placing, releasing in HOLDS.items():
        for placed, released in zip_longest(held.get(placing, ()), held.get(releasing, ())):
            if placed is None or placed.t > due:
                break
            if released is None:
                return None
            due = max(due, released.t + SWEEP_GRACE_MS)
    return due


# --- requests ------------------------------------------------------------------------------------


def _answered_in_time(log: Log, row: Row) -> Iterator[Finding]:
    """Ask whether a request was answered by the last moment of its clock, as it was extended in time."""
    if "due" not in row.event:
        yield Finding("unseen", "no_clock", "the leaf says no last moment")
        return
    request, due = row.event["dsr"], _last_moment(log, row)
    answer = log.first("dsr", request, *_ANSWERS)
    if due is None:
        if answer is None:
            yield Finding("pending", "paused")
        return
    if answer is not None and answer.t > due + SKEW_MS:
        yield log.owed("answered_late", f"entry {answer.index} at {answer.t}, by {due}")
    elif answer is None and due >= log.end_ms:
        yield Finding("pending", "not_due_yet")
    elif answer is None:
        yield log.owed("not_answered", f"by {due}")


_MOVES = ("dsr.extended", "dsr.verified", "dsr.paused", "dsr.resumed")


def _last_moment(log: Log, row: Row) -> int | None:
    """Return by when a request must be answered; what moved that after the moment itself is void.

    None while its clock stands; what lets it go on counts whenever it was.
    """
    due, stands = int(row.event["due"]), False
    events = log.things["dsr", row.event["dsr"]]
    for move in sorted((move for ty in _MOVES for move in events.get(ty, ())), key=_place):
        if not stands and move.t > due + SKEW_MS:
            continue
        if move.ty in {"dsr.paused", "dsr.resumed"}:
            stands = move.ty == "dsr.paused"
        due = int(move.event.get("due", due))
    return None if stands else due


def _extended_in_time(log: Log, row: Row) -> Iterator[Finding]:
    """Ask whether the time was extended while it still ran, and to a later moment."""
    received = log.first("dsr", row.event["dsr"], "dsr.received")
    if received is None or "due" not in received.event:
        return
    moves = _before(log, row, "dsr.verified", "dsr.resumed")
    dues = [int(m.event["due"]) for m in (received, *moves) if "due" in m.event]
    if row.t > max(dues) + SKEW_MS:
        yield log.owed("extended_late", f"the time ended at {max(dues)}")
    if row.event["due"] <= max(dues):
        yield Finding("broken", "extended_backwards", f"from {max(dues)} to {row.event['due']}")


def _propagated(log: Log, row: Row) -> Iterator[Finding]:
    """Ask whether the approval names the recipient, and whether it was so far with it."""
    request, recipient, out = (row.event[name] for name in ("dsr", "rcp", "out"))
    approved = log.first("dsr", request, "dsr.approved")
    if approved is not None and recipient not in approved.event.get("rcp", ()):
        yield Finding("broken", "recipient_unknown", f"entry {approved.index} does not name it")
    noted = log.things["dsr", request].get(row.ty, ())
    before = {r.event["out"] for r in noted if r.index < row.index and r.event["rcp"] == recipient}
    if out == "acknowledged" and "told" not in before:
        yield log.absent("not_told", "it acknowledges what it was not told")
    if before & {"acknowledged", "excused", out}:
        yield Finding("broken", "told_twice", "what became of it stands before")
    if (out == "excused") is not ("why" in row.event):
        yield Finding("broken", "excuse_ground", "a ground goes with an excuse, and with nothing else")


def _before(log: Log, row: Row, *types: str) -> list[Row]:
    """Return the events of those types about the same request that stand before the row, in order."""
    events = log.things["dsr", row.event["dsr"]]
    found = [other for ty in types for other in events.get(ty, ()) if other.index < row.index]
    return sorted(found, key=_place)


def _answered_as_decided(log: Log, row: Row) -> Iterator[Finding]:
    """Ask whether an answer says that a part was refused, exactly where one was."""
    is_in_part = bool(_before(log, row, "dsr.partrefused"))
    if is_in_part and row.event["out"] == "complied":
        yield Finding("broken", "part_refused", "a part was refused, and it says it complied with all")
    if not is_in_part and row.event["out"] == "complied_in_part":
        yield log.absent("part_refused", "no part was refused before it")


def _pauses_while_it_runs(log: Log, row: Row) -> Iterator[Finding]:
    moves = _before(log, row, "dsr.paused", "dsr.resumed")
    if moves and moves[-1].ty == "dsr.paused":
        yield Finding("broken", "paused_twice", f"it stands since entry {moves[-1].index}")


PAUSE_ROUNDING_MS = 14 * 86_400_000
"""By so much more than the pause took may the last moment move: both days count, and a day off rolls."""


def _resumes_what_stands(log: Log, row: Row) -> Iterator[Finding]:
    """Ask whether the clock stood, and whether the pause gives back about what it took."""
    moves = _before(log, row, "dsr.paused", "dsr.resumed")
    if not moves or moves[-1].ty != "dsr.paused":
        yield log.absent("not_paused", "no pause before it")
        return
    received = log.first("dsr", row.event["dsr"], "dsr.received")
    if received is None or "due" not in received.event:
        return
    earlier = _before(log, row, "dsr.received", "dsr.extended", "dsr.verified", "dsr.resumed")
    due = max(int(move.event["due"]) for move in earlier if "due" in move.event)
    if not due <= row.event["due"] <= due + (row.t - moves[-1].t) + PAUSE_ROUNDING_MS:
        yield Finding("broken", "resumed_differs", f"from {due} to {row.event['due']}")


# --- the rest ------------------------------------------------------------------------------------


def _erased_as_said(_log: Log, row: Row) -> Iterator[Finding]:
    """Ask whether what an erasure says of itself fits together."""
    if set(row.event["cls"]) & {kept["cls"] for kept in row.event["kept"]}:
        yield Finding("broken", "erased_and_kept", "a class is both destroyed and kept")
    if row.event["t1"] > row.t + SKEW_MS:
        yield Finding("broken", "erased_in_future", "unreadable only after it was certified")
    if row.event.get("t2", row.event["t1"]) < row.event["t1"]:
        yield Finding("broken", "erased_backups_first", "unreadable in backups before it was here")


def _notice_names_purpose(log: Log, row: Row) -> Iterator[Finding]:
    notice = log.first("ntc", row.event["ntc"], "notice.published")
    if notice is not None and row.event["pur"] not in notice.event["pur"]:
        yield Finding("broken", "notice_purpose", f"entry {notice.index} does not name the purpose")


def _for_training(log: Log, row: Row) -> Iterator[Finding]:
    recorded = log.first("con", row.event["con"], "consent.recorded")
    if recorded is not None and recorded.event["pur"] != "train":
        yield Finding("broken", "purpose_differs", f"entry {recorded.index} is a consent to something else")


def _payloads_counted(log: Log, row: Row) -> Iterator[Finding]:
    """Compare how many payloads a leaf says it destroyed with how many are said to be."""
    said, found = row.event["nseal"], log.erased_by[row.index]
    if found > said:
        yield Finding("broken", "payloads_erased", f"{found} are erased by it, and it says {said}")
    elif log.is_whole and log.has_all_payloads and not log.is_restored and found + log.withheld < said:
        yield Finding("broken", "payloads_not_erased", f"it says {said}, and only {found} are erased by it")


def _within_size(_log: Log, row: Row) -> Iterator[Finding]:
    if not row.event["from"] <= row.event["to"] <= row.event["size"] <= row.index:
        yield Finding("broken", "export_bounds", "what was exported lies beyond the log of that time")


def _backed_up(_log: Log, row: Row) -> Iterator[Finding]:
    if row.event["size"] > row.index:
        yield Finding("broken", "backup_ahead", "the backup holds more of the log than there was")


def _versions_follow(log: Log, row: Row) -> Iterator[Finding]:
    """Ask whether the version before was recorded; a restore may take the count back."""
    before = [r for r in log.things["inc", row.event["inc"]].get(row.ty, ()) if r.index < row.index]
    last = max((r.event["ver"] for r in before), default=0)
    if row.event["ver"] > last + 1:
        yield log.absent("incident_version", f"version {last + 1}")
    elif row.event["ver"] <= last and not log.is_restored:
        yield Finding("broken", "incident_version", f"version {row.event['ver']} was recorded before")


def _disputed(_log: Log, row: Row) -> Iterator[Finding]:
    if row.event["size"] > row.index:
        yield Finding("broken", "disputed_ahead", "the disputed head is larger than the log was")


def _revoked_behind(_log: Log, row: Row) -> Iterator[Finding]:
    if row.event["from"] > row.index:
        yield Finding("broken", "revoked_ahead", "a key is revoked at a size that was not there yet")


def _pruned_behind(_log: Log, row: Row) -> Iterator[Finding]:
    if row.event["to"] > row.index:
        yield Finding("broken", "pruned_ahead", "entries are gone that were not there yet")


_TAKEN = ("object.sealed", "object.transient")
_INVALID = "consent.invalidated"
_DSR_OVER = ("dsr.refused", "dsr.cancelled", "dsr.fulfilled")
_ANSWERS = (*_DSR_OVER, "subject.erased")
_NAMES_NOBODY = "nothing to replay: the leaf names no thing, so that it cannot be tied to anybody"

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "access.refused": Rule("nothing to replay: a refusal changes nothing, and roles are not in the log"),
        "audit.read": Rule("nothing to replay: reading changes nothing; that it is logged is the promise"),
        "backup.created": Rule("what the backup holds of the log is not beyond it", (_backed_up,)),
        "backup.restored": Rule(
            "a backup is of a time before; what had ended since, the other rules look for",
            (_backed_up,),
        ),
        "consent.recorded": Rule(
            "a consent is recorded once, for a purpose that its notice, published before, names",
            (
                once("con", "consent.recorded", rule="consent_twice"),
                needs("ntc", "notice.published", rule="notice_unpublished"),
                _notice_names_purpose,
            ),
        ),
        "consent.invalidated": Rule(
            "a consent is found invalid once, for the purpose it was recorded for",
            (
                needs("con", "consent.recorded", rule="consent_unknown", pur="pur"),
                once("con", "consent.invalidated", rule="invalidated_twice"),
            ),
        ),
        "consent.renewal": Rule(
            "a consent is marked for renewal once, because of a published notice, and while it stands",
            (
                needs("con", "consent.recorded", rule="consent_unknown"),
                needs("ntc", "notice.published", rule="notice_unpublished"),
                never("con", "consent.withdrawn", "consent.invalidated", rule="consent_over"),
                once("con", "consent.renewal", rule="renewal_twice"),
            ),
        ),
        "consent.withdrawn": Rule(
            "a consent is withdrawn once, for the purpose it was recorded for",
            (
                needs("con", "consent.recorded", rule="consent_unknown", pur="pur"),
                once("con", "consent.withdrawn", rule="withdrawn_twice"),
            ),
        ),
        "dataset.added": Rule(
            "a picture goes into a training set that is not ended, once, as the result of its job and by "
            "virtue of a consent to train that stands; its copy shows no face, is sealed and not destroyed",
            (
                needs("dst", "dataset.created", rule="dataset_unknown"),
                never("dst", "dataset.completed", "dataset.expired", rule="dataset_over"),
                once("itm", "dataset.added", rule="added_twice"),
                needs("con", "consent.recorded", rule="consent_unknown"),
                never("con", "consent.withdrawn", rule="added_withdrawn"),
                _for_training,
                needs("job", "job.succeeded", rule="no_result"),
                needs("obj", "object.sealed", rule="picture_unknown"),
                never("obj", "object.destroyed", rule="picture_destroyed"),
                _faces_as_said,
            ),
        ),
        "dataset.completed": Rule(
            "a training set is completed once, after it was begun",
            (
                needs("dst", "dataset.created", rule="dataset_unknown"),
                once("dst", "dataset.completed", "dataset.expired", rule="dataset_over"),
            ),
        ),
        "dataset.created": Rule(
            "a version of a training set is begun once",
            (once("dst", "dataset.created", rule="dataset_twice"),),
        ),
        "dataset.expired": Rule(
            "a training set ends once, after it was begun",
            (
                needs("dst", "dataset.created", rule="dataset_unknown"),
                once("dst", "dataset.expired", rule="dataset_over"),
            ),
        ),
        "dataset.reduced": Rule(
            "an item is removed once, after it was added",
            (
                needs("itm", "dataset.added", rule="item_unknown", dst="dst"),
                once("itm", "dataset.reduced", rule="reduced_twice"),
            ),
        ),
        "dataset.released": Rule(
            "a training set is given out after it was completed and before it ends",
            (
                needs("dst", "dataset.completed", rule="not_completed"),
                never("dst", "dataset.expired", rule="dataset_over"),
            ),
        ),
        "decision.made": Rule(
            "the rule books it names decide the same, and the consents are what the log says of them",
            (_decided, _consents_as_said),
        ),
        "dsr.approved": Rule(
            "a request is approved once, after it was received, and not once it is refused or cancelled",
            (
                needs("dsr", "dsr.received", rule="request_unknown"),
                once("dsr", "dsr.approved", rule="approved_twice"),
                never("dsr", *_DSR_OVER, rule="request_over"),
            ),
        ),
        "dsr.cancelled": Rule(
            "a request is cancelled after it was received, and not once it is over",
            (
                needs("dsr", "dsr.received", rule="request_unknown"),
                once("dsr", *_DSR_OVER, "subject.erased", rule="request_over"),
            ),
        ),
        "dsr.extended": Rule(
            "the time of a request is extended once, while it runs, and not once it is over",
            (
                needs("dsr", "dsr.received", rule="request_unknown"),
                once("dsr", "dsr.extended", rule="extended_twice"),
                never("dsr", *_ANSWERS, rule="request_over"),
                _extended_in_time,
            ),
        ),
        "dsr.fulfilled": Rule(
            "a request is answered once, after it was received and approved, and not once it is over",
            (
                needs("dsr", "dsr.received", rule="request_unknown"),
                needs("dsr", "dsr.approved", rule="not_approved"),
                once("dsr", *_ANSWERS, rule="request_over"),
                _answered_as_decided,
            ),
        ),
        "dsr.partrefused": Rule(
            "a part of a request is refused after it was received, and not once it is approved or over",
            (
                needs("dsr", "dsr.received", rule="request_unknown"),
                never("dsr", "dsr.approved", *_ANSWERS, rule="request_over"),
            ),
        ),
        "dsr.paused": Rule(
            "the clock of a request is stopped once at a time, before it is approved, while it runs",
            (
                needs("dsr", "dsr.received", rule="request_unknown"),
                never("dsr", "dsr.approved", *_ANSWERS, rule="request_over"),
                _pauses_while_it_runs,
            ),
        ),
        "dsr.propagated": Rule(
            "a recipient that the approval names is told of a request and acknowledges that, or is excused",
            (
                needs("dsr", "dsr.approved", rule="not_approved"),
                never("dsr", "dsr.cancelled", rule="request_over"),
                _propagated,
            ),
        ),
        "dsr.received": Rule(
            "a request is received once, and answered by the last moment of its clock",
            (once("dsr", "dsr.received", rule="received_twice"), _answered_in_time),
            "answered_in_time",
        ),
        "dsr.refused": Rule(
            "a request is refused after it was received, and neither once approved nor once over",
            (
                needs("dsr", "dsr.received", rule="request_unknown"),
                once("dsr", *_DSR_OVER, "dsr.approved", "subject.erased", rule="request_over"),
            ),
        ),
        "dsr.resumed": Rule(
            "the clock of a request goes on after it was stopped, later by about what the pause took",
            (
                needs("dsr", "dsr.received", rule="request_unknown"),
                never("dsr", *_ANSWERS, rule="request_over"),
                _resumes_what_stands,
            ),
        ),
        "dsr.verified": Rule(
            "identity is checked after a request was received, and not once it is approved or over",
            (
                needs("dsr", "dsr.received", rule="request_unknown"),
                never("dsr", "dsr.approved", *_ANSWERS, rule="request_over"),
            ),
        ),
        "erasure.incomplete": Rule(
            "an erasure is found incomplete after it was approved, and not once it is certified",
            (
                needs("dsr", "dsr.approved", rule="not_approved"),
                never("dsr", "subject.erased", rule="incomplete_certified"),
            ),
        ),
        "export.created": Rule("what was exported is within the log of that time", (_within_size,)),
        "forget.ended": Rule(
            "a backend is asked to forget for an erasure that was approved",
            (needs("dsr", "dsr.approved", rule="not_approved"),),
        ),
        "hold.placed": Rule(
            "a hold is placed once, for a request only if that was received",
            (
                once("hld", "hold.placed", rule="hold_twice"),
                needs("dsr", "dsr.received", rule="request_unknown"),
            ),
        ),
        "hold.released": Rule(
            "a hold is released once, after it was placed",
            (
                needs("hld", "hold.placed", rule="hold_unknown"),
                once("hld", "hold.released", rule="released_twice"),
            ),
        ),
        "image.marked": Rule(
            "a result is marked once, after it was scrubbed",
            (
                needs("obj", "image.scrubbed", rule="not_scrubbed"),
                once("obj", "image.marked", rule="marked_twice"),
                never("obj", "object.destroyed", rule="marked_destroyed"),
            ),
        ),
        "image.scrubbed": Rule(
            "a picture is scrubbed once, before it is sealed or held in memory",
            (
                once("obj", "image.scrubbed", rule="scrubbed_twice"),
                never("obj", "object.destroyed", rule="scrubbed_destroyed"),
            ),
        ),
        "prompt.scrubbed": Rule(
            "a prompt is scrubbed once, with the picture that it came with",
            (
                once("obj", "prompt.scrubbed", rule="prompt_scrubbed_twice"),
                needs("obj", "image.scrubbed", rule="prompt_without_picture"),
                never("obj", "object.destroyed", rule="prompt_scrubbed_destroyed"),
            ),
        ),
        "incident.recorded": Rule(
            "versions of a breach follow one another, and none once it has left the register",
            (_versions_follow, never("inc", "record.expired", rule="incident_over")),
        ),
        "job.cancelled": Rule(
            "a job ends once, after it was accepted",
            (
                needs("job", "job.created", rule="job_unknown"),
                once("job", *_ENDS, "job.deleted", rule="job_over"),
            ),
        ),
        "job.created": Rule(
            "a decision for the job allows it, for its purpose, and its picture is sealed, not destroyed, "
            "and shows no other person's face",
            (
                once("job", "job.created", rule="job_twice"),
                _permitted,
                _same_purpose,
                needs("obj", *_TAKEN, rule="picture_unknown"),
                never("obj", "object.destroyed", rule="picture_destroyed"),
                _faces_as_said,
            ),
            "accepted_with_permission",
        ),
        "job.deleted": Rule(
            "a job is deleted after it ended",
            (
                needs("job", *_ENDS, rule="job_not_over"),
                once("job", "job.deleted", rule="deleted_twice"),
            ),
        ),
        "job.dispatched": Rule(
            "a job is forwarded to the backend it was accepted for, while a decision allows it and the "
            "consent stands; never once it was told to stop, ended, or its picture was destroyed",
            (
                needs("job", "job.created", rule="job_unknown", bak="bak"),
                _permitted,
                never("job", "job.stopping", rule="forwarded_after_stop"),
                never("job", *_ENDS, "job.deleted", rule="job_over"),
                _input_is_there,
            ),
            "forwarded_with_consent",
        ),
        "job.failed": Rule(
            "a job ends once, after it was accepted",
            (
                needs("job", "job.created", rule="job_unknown"),
                once("job", *_ENDS, "job.deleted", rule="job_over"),
            ),
        ),
        "job.stopping": Rule(
            "a job is told to stop once, after it was accepted and before it ends",
            (
                needs("job", "job.created", rule="job_unknown"),
                once("job", "job.stopping", rule="stopped_twice"),
                never("job", *_ENDS, rule="job_over"),
            ),
        ),
        "job.succeeded": Rule(
            "a job succeeds once, after it was forwarded, not once it was told to stop; its result is sealed "
            "and marked where the packs demand it",
            (
                needs("job", "job.dispatched", rule="not_forwarded"),
                needs("obj", *_TAKEN, rule="result_unknown"),
                never("job", "job.stopping", rule="succeeded_after_stop"),
                once("job", *_ENDS, "job.deleted", rule="job_over"),
                _marked,
                _watermarked,
            ),
            "marked_when_demanded",
        ),
        "key.rotated": Rule("nothing to replay: keys are not in the log; that they were rotated is"),
        "landmarks.refused": Rule(
            "nothing to replay: nothing was given out; where policy refused, its decision is there"
        ),
        "landmarks.released": Rule(
            "the record of a picture is given out while the last decision on it permits that and the consent "
            "stands, within the picture's term and never once it was destroyed",
            (
                needs("obj", "object.sealed", rule="picture_unknown"),
                _recorded_by_right,
                never("obj", "object.destroyed", rule="released_destroyed"),
                _in_term,
            ),
            "recorded_with_permission",
        ),
        "log.disputed": Rule("what was disputed is a head of the log of that time", (_disputed,)),
        "log.keyrevoked": Rule("a key is revoked at a size that the log had reached", (_revoked_behind,)),
        "log.pruned": Rule("only entries before it are gone", (_pruned_behind,)),
        "log.rekeyed": Rule("nothing to replay: the checkpoints' signatures show which keys signed"),
        "notice.published": Rule(
            "a version of a notice is published once",
            (once("ntc", "notice.published", rule="published_twice"),),
        ),
        "object.destroyed": Rule(
            "an object is destroyed once, after it was sealed",
            (
                needs("obj", *_TAKEN, rule="object_unknown", cat="cat"),
                once("obj", "object.destroyed", rule="destroyed_twice"),
            ),
        ),
        "object.freed": Rule(
            "an object is freed after it was held, and not once it was destroyed",
            (
                needs("obj", "object.held", rule="not_held"),
                never("obj", "object.destroyed", rule="freed_destroyed"),
            ),
        ),
        "object.held": Rule(
            "an object is held by a hold that was placed and not released, and not once it was destroyed",
            (
                needs("obj", "object.sealed", rule="object_unknown", cat="cat"),
                needs("hld", "hold.placed", rule="hold_unknown"),
                never("hld", "hold.released", rule="hold_over"),
                never("obj", "object.destroyed", rule="held_destroyed"),
            ),
        ),
        "object.kept": Rule(
            "an object is kept by a consent to keeping it that stands, and not once it is destroyed",
            (
                needs("obj", "object.sealed", rule="object_unknown", cat="cat"),
                needs("con", "consent.recorded", rule="consent_unknown", pur="pur"),
                never("obj", "object.destroyed", rule="kept_destroyed"),
                _kept_by_right,
            ),
        ),
        "object.sealed": Rule(
            "an object is sealed once, a picture after it was scrubbed, and destroyed by its promised moment "
            "unless held",
            (
                once("obj", *_TAKEN, rule="sealed_twice"),
                _scrubbed,
                _destroyed_in_time,
            ),
            "destroyed_in_time",
        ),
        "object.transient": Rule(
            "a picture is in memory once, never stored, scrubbed before, and gone by its promised moment",
            (
                once("obj", *_TAKEN, rule="sealed_twice"),
                needs("obj", "image.scrubbed", rule="not_scrubbed"),
                _destroyed_in_time,
            ),
            "destroyed_in_time",
        ),
        "object.stuck": Rule(
            "bytes are given up only once their key is destroyed",
            (needs("obj", "object.destroyed", rule="stuck_alive"),),
        ),
        "package.made": Rule(
            "a package is made for a request that was received, and its object is sealed and not destroyed",
            (
                needs("dsr", "dsr.received", rule="request_unknown"),
                needs("obj", "object.sealed", rule="package_unsealed"),
                once("obj", "package.made", rule="made_twice"),
                never("obj", "object.destroyed", rule="package_destroyed"),
                never("dsr", *_DSR_OVER, rule="request_over"),
            ),
        ),
        "package.released": Rule(
            "a package is given out for the request it was made for, within its term and never once it was "
            "destroyed",
            (
                needs("obj", "package.made", rule="package_unknown", dsr="dsr"),
                never("obj", "object.destroyed", rule="released_destroyed"),
                _in_term,
            ),
        ),
        "payload.erased": Rule(
            "no more payloads are erased by it than it says, nor fewer", (_payloads_counted,)
        ),
        "payload.expired": Rule(
            "no more payloads are erased by it than it says, nor fewer", (_payloads_counted,)
        ),
        "record.expired": Rule(
            "only what was recorded ends",
            (
                needs("con", "consent.recorded", rule="consent_unknown"),
                needs("dsr", "dsr.received", rule="request_unknown"),
                needs("inc", "incident.recorded", rule="incident_unknown"),
            ),
        ),
        "result.released": Rule(
            "the result of a job that is allowed is given out, while the consent stands, within its term, "
            "never once it was destroyed, and marked where the packs demand it",
            (
                needs("job", "job.succeeded", rule="no_result", obj="obj"),
                _released_by_right,
                never("obj", "object.destroyed", rule="released_destroyed"),
                never("job", "job.deleted", rule="job_over"),
                _in_term,
                _marked,
            ),
            "released_with_permission",
        ),
        "retention.swept": Rule("nothing to replay: what a sweep destroys has leaves of its own"),
        "signal.recorded": Rule(_NAMES_NOBODY),
        "subject.blocked": Rule(
            "a subject is blocked for an erasure that was approved",
            (needs("dsr", "dsr.approved", rule="not_approved"),),
        ),
        "subject.erased": Rule(
            "an erasure is certified once, after its request was received and approved, never once that was "
            "refused or cancelled; no class is both destroyed and kept",
            (
                needs("dsr", "dsr.received", rule="request_unknown"),
                needs("dsr", "dsr.approved", rule="not_approved"),
                never("dsr", *_DSR_OVER, rule="request_over"),
                once("dsr", "subject.erased", rule="erased_twice"),
                _erased_as_said,
            ),
            "erased_on_approval",
        ),
        "subject.restricted": Rule(_NAMES_NOBODY),
        "subject.unrestricted": Rule(_NAMES_NOBODY),
        "subject.upserted": Rule(_NAMES_NOBODY),
        "tenant.updated": Rule(
            "nothing to replay: each decision carries what of the facts decided; that they changed is said"
        ),
        "upload.refused": Rule("nothing to replay: nothing was kept; where policy refused, its decision is"),
    }
)
"""Event type to what replaying it means; a test fails where one is missing."""


# --- reading an export ---------------------------------------------------------------------------


class Export(NamedTuple):
    """What of an export's files is replayed."""

    rows: tuple[tuple[int, Mapping[str, Any]], ...]
    payloads: tuple[Payload, ...]
    packs: Mapping[str, bytes]


def read(files: Mapping[str, bytes]) -> Export:
    """Return what there is to replay in the files of an export, by path, which is verified already.

    Raises:
        ExportInvalid: It has not the files, or not the lines, of an export.
        LeafInvalid: An entry is not a leaf.
    """
    for path in (export.MANIFEST, export.ENTRIES, export.PAYLOADS):
        if path not in files:
            raise ExportInvalid("file_missing", f"{path} is not there")
    rows = tuple((index, leaf.decode(line)) for index, line in export.exported(files))
    lines = export.split_lines(files[export.PAYLOADS], export.PAYLOADS)
    named = {pack["sha256"] for _, event in rows for pack in event.get("pol", ())}
    packs = {digest: files.get(export.policy_path(digest)) for digest in named}
    return Export(
        rows,
        tuple(parse(line)[0] for line in lines),
        {digest: source for digest, source in packs.items() if source is not None},
    )
