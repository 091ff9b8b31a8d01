"""The figures of a report: numbers that anybody counts again from the leaves.

`report.js` counts the same figures in the browser; a test holds the two together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from audit.views.rows import Row

COUNTED = ("pur", "cat", "dec", "rc", "form", "dkind", "reg", "why", "meth", "mthd", "bak", "land", "ctr")
"""Fields whose values are counted, each as `<type>/<field>=<value>`."""

SUMMED = ("nseal", "nobj", "nkey", "nowed")
"""Fields whose numbers are added up, each as `<type>/<field>`."""

TAKEN = ("object.sealed", "object.transient")
"""Events that promise an instant by which an object is gone."""

BARS = 30
DAY_MS = 86_400_000
GRACE_MS = 3_600_000
ANSWER_DAYS = (10, 30, 45, 90)
"""Bounds of the answer times: 11 CCR 7021 confirms in 10 business days; PIPEDA s. 8(3) and GDPR Art. 12(3)
answer in 30 days or a month; 1798.130 in 45 days, at most 90."""


def count(rows: Sequence[Row]) -> dict[str, int]:
    """Return every figure by its key; one that is not there is zero."""
    events = [row.event for row in rows]
    found: Counter[str] = Counter()
    for event in events:
        found["events"] += 1
        found[event["ty"]] += 1
        found["seals"] += len(event["seals"])
        for name in COUNTED:
            if name in event:
                found[f"{event['ty']}/{name}={event[name]}"] += 1
        for name in SUMMED:
            if name in event:
                found[f"{event['ty']}/{name}"] += event[name]
    found.update(_timeline(events))
    found.update(_deletions(rows))
    found.update(_requests(rows))
    found["consents.standing"] = _standing(events)
    return dict(found)


def last_ms(events: Sequence[Mapping[str, Any]]) -> int:
    """Return the latest time of all events: the instant as of which a report speaks."""
    return max((event["t"] for event in events), default=0)


def width_ms(events: Sequence[Mapping[str, Any]]) -> int:
    """Return how long a bar of the timeline is: whole days, and at most `BARS` bars."""
    first = min((event["t"] for event in events), default=0)
    span = last_ms(events) - first // DAY_MS * DAY_MS + 1
    return max(1, -(-span // (DAY_MS * BARS))) * DAY_MS


def _timeline(events: Sequence[Mapping[str, Any]]) -> Counter[str]:
    first = min((event["t"] for event in events), default=0) // DAY_MS * DAY_MS
    width = width_ms(events)
    return Counter(f"bar/{(event['t'] - first) // width}" for event in events)


def _deletions(rows: Sequence[Row]) -> Counter[str]:
    """Return what became of each object: `on_time`, `late`, `overdue`, `standing`, and `before`.

    `overdue` was to be destroyed by now and was not within these events; `before`
    was destroyed here and stored before the first of them, so that its term is not known.
    `held` would be gone, were it not for a legal hold; what a hold let go is due `GRACE_MS` later.
    """
    found: Counter[str] = Counter()
    terms = {row.event["obj"]: row.event["exp"] for row in rows if row.event["ty"] in TAKEN}
    for row in rows:
        if row.event["ty"] == "object.freed" and row.event["obj"] in terms:
            terms[row.event["obj"]] = max(terms[row.event["obj"]], row.event["t"] + GRACE_MS)
    held = held_objects(rows)
    gone = {row.event["obj"]: row for row in rows if row.event["ty"] == "object.destroyed"}
    now = last_ms([row.event for row in rows])
    for name, row in gone.items():
        if name not in terms:
            found["objects.before"] += 1
        elif row.event["t"] <= terms[name]:
            found["objects.on_time"] += 1
        else:
            found["objects.late"] += 1
            found[f"late/{row.index}"] = row.event["t"] - terms[name]
    for name in terms.keys() - gone.keys():
        state = "held" if name in held else "overdue" if terms[name] < now else "standing"
        found[f"objects.{state}"] += 1
    return found


def held_objects(rows: Sequence[Row]) -> set[str]:
    """Return the objects whose destruction a legal hold stops."""
    found: set[str] = set()
    for row in rows:
        if row.event["ty"] == "object.held":
            found.add(row.event["obj"])
        elif row.event["ty"] == "object.freed":
            found.discard(row.event["obj"])
    return found


def answers(rows: Sequence[Row]) -> dict[str, Row]:
    """Return the event that answers each request: it is answered when done, not when approved."""
    kinds = {row.event["dsr"]: row.event["dkind"] for row in rows if row.event["ty"] == "dsr.received"}
    found: dict[str, Row] = {}
    for row in rows:
        name = row.event.get("dsr", "")
        done = "subject.erased" if kinds.get(name) == "erasure" else "dsr.fulfilled"
        if name in kinds and row.event["ty"] in {done, "dsr.refused", "dsr.cancelled"}:
            found.setdefault(name, row)
    return found


def _requests(rows: Sequence[Row]) -> Counter[str]:
    """Return how long each answered request took (`request/<index>`, in ms), and how many took how long."""
    found: Counter[str] = Counter()
    answered = answers(rows)
    now = last_ms([row.event for row in rows])
    for row in rows:
        if row.event["ty"] != "dsr.received":
            continue
        answer = answered.get(row.event["dsr"])
        span = (now if answer is None else answer.event["t"]) - row.event["t"]
        found[f"request/{row.index}"] = span
        if answer is None:
            found["requests.open"] += 1
        else:
            found["requests.answered"] += 1
            found[f"requests.within/{bucket(span)}"] += 1
    return found


def bucket(span_ms: int) -> str:
    """Return the bound that an answer time lies within, or `more`."""
    return next((str(days) for days in ANSWER_DAYS if span_ms <= days * DAY_MS), "more")


def _standing(events: Sequence[Mapping[str, Any]]) -> int:
    """Return how many consents recorded here are neither withdrawn nor past their term."""
    now = last_ms(events)
    withdrawn = {event["con"] for event in events if event["ty"] == "consent.withdrawn"}
    return sum(
        event["con"] not in withdrawn and event.get("exp", now + 1) > now
        for event in events
        if event["ty"] == "consent.recorded"
    )
