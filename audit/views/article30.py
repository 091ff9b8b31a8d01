"""The record of processing activities (GDPR Art. 30), as far as the log shows it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from audit import canonical
from audit.views import table
from audit.views.figures import TAKEN
from audit.views.rows import Context, Row, instant

JSON_PATH, CSV_PATH = "article30.json", "article30.csv"
FORMAT = "lethe.dev/article30/v1"

_DAY_MS = 86_400_000
_NOT_GIVEN = "not given"
_TRANSFERS = "not recorded in this log: see the operator's register of backends and their countries"
_SUBJECTS = "people whose images are uploaded or depicted, and who give prompts"
_MEASURES = (
    "each object is sealed under a key of its own (AES-256-GCM), and destroyed by destroying the key",
    "every protected step is decided by rule books named by digest, and refused unless permitted",
    "every step is a leaf of this transparency log, signed and verifiable by anyone who holds the key",
    "leaves hold no personal data in clear; payloads are sealed per person and erasable",
    "metadata is removed from images before they are stored",
)
_HEAD = (
    "purpose (b)",
    "what for (b)",
    "controller (a)",
    "contact (a)",
    "representative (a)",
    "data protection officer (a)",
    "data subjects (c)",
    "categories of data (c)",
    "recipients (d)",
    "transfers (e)",
    "time limits for erasure (f)",
    "security measures (g)",
    "events",
)
_PURPOSE_NAMES: Mapping[str, str] = {
    "generate": "generating the image that was asked for",
    "retain_original": "keeping the uploaded image",
    "retain_output": "keeping the generated image",
    "train": "training of models",
    "analytics": "analytics",
    "sell_share": "selling or sharing",
    "transfer": "transfer to a recipient abroad",
}


def record(rows: Sequence[Row], context: Context) -> dict[str, Any]:
    """Return the record as data: one activity for each purpose that an event names.

    What the log cannot know is said to be unknown, never left out: an empty cell
    would read as *none*.

    Rule:
        GDPR Art. 30(1)(a)-(g).
    """
    found = _gathered(row.event for row in rows)
    times = [row.event["t"] for row in rows]
    controller = context.controller
    return {
        "format": FORMAT,
        "log": {
            "origin": context.origin,
            "from": context.start,
            "to": context.end,
            "size": context.size,
            "root": context.root.hex(),
        },
        "period": {"first": instant(min(times)), "last": instant(max(times))} if times else {},
        "controller": {
            "name": controller.name or _NOT_GIVEN,
            "contact": controller.contact or _NOT_GIVEN,
            "representative": controller.representative or _NOT_GIVEN,
            "data_protection_officer": controller.officer or _NOT_GIVEN,
        },
        "activities": [_activity(purpose, found[purpose], context) for purpose in sorted(found)],
        "transfers": _TRANSFERS,
        "security_measures": list(_MEASURES),
    }


def as_json(recorded: Mapping[str, Any]) -> bytes:
    """Return the record as canonical JSON with a line end."""
    return canonical.encode(recorded) + b"\n"


def _lines(recorded: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the record as lines of cells, a purpose a line; the letters are those of Art. 30(1)."""
    controller = recorded["controller"]
    return [
        _HEAD,
        *(
            (
                activity["purpose"],
                activity["description"],
                *(controller[name] for name in ("name", "contact", "representative")),
                controller["data_protection_officer"],
                activity["data_subjects"],
                "; ".join(activity["data_categories"]) or "none seen",
                "; ".join(f"{item['name']} ({item['id']})" for item in activity["recipients"]) or "none seen",
                recorded["transfers"],
                "; ".join(map(_term, activity["retention"])) or "none seen",
                "; ".join(recorded["security_measures"]),
                str(activity["events"]),
            )
            for activity in recorded["activities"]
        ),
    ]


def as_csv(recorded: Mapping[str, Any]) -> bytes:
    """Return the record as CSV."""
    return table.as_csv(_lines(recorded))


class _Seen:
    """What events say of one purpose."""

    def __init__(self) -> None:
        self.events = 0
        self.kinds: set[str] = set()
        self.ages: set[str] = set()
        self.backends: set[str] = set()
        self.terms: dict[str, list[int]] = defaultdict(list)


def _gathered(events: Iterable[Mapping[str, Any]]) -> dict[str, _Seen]:
    found: dict[str, _Seen] = defaultdict(_Seen)
    purposes: dict[str, str] = {}
    for event in events:
        purpose = event.get("pur")
        if event["ty"] == "job.created":
            purposes[event["job"]] = event["pur"]
        if not isinstance(purpose, str):
            purpose = purposes.get(event.get("job", ""))
        if purpose is None:
            continue
        seen = found[purpose]
        seen.events += 1
        if "cat" in event:
            seen.kinds.add(event["cat"])
        if "age" in event:
            seen.ages.add(event["age"])
        if "bak" in event:
            seen.backends.add(event["bak"])
        if event["ty"] in TAKEN:
            seen.terms[event["cat"]].append(event["exp"] - event["t"])
        if event["ty"] == "consent.recorded" and "exp" in event:
            seen.terms["consent"].append(event["exp"] - event["t"])
    return found


def _activity(purpose: str, seen: _Seen, context: Context) -> dict[str, Any]:
    ages = f"; age bands seen: {', '.join(sorted(seen.ages))}" if seen.ages else ""
    return {
        "purpose": purpose,
        "description": _PURPOSE_NAMES.get(purpose, purpose),
        "data_subjects": _SUBJECTS + ages,
        "data_categories": sorted(seen.kinds),
        "recipients": [
            {"id": backend, "name": context.backends.get(backend, "inference backend")}
            for backend in sorted(seen.backends)
        ],
        "retention": [
            {"of": of, "shortest_ms": min(terms), "longest_ms": max(terms)}
            for of, terms in sorted(seen.terms.items())
        ],
        "events": seen.events,
    }


def _term(term: Mapping[str, Any]) -> str:
    shortest, longest = (days(term[name]) for name in ("shortest_ms", "longest_ms"))
    return f"{term['of']}: {shortest}" if shortest == longest else f"{term['of']}: {shortest} to {longest}"


def days(span_ms: int) -> str:
    """Return a span in days to two places, cut off."""
    hundredths = abs(span_ms) * 100 // _DAY_MS
    sign = "-" if span_ms < 0 and hundredths else ""
    return f"{sign}{hundredths // 100}.{hundredths % 100:02d} days"
