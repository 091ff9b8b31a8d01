"""The sections of the report, from rows and figures to markup."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from audit.views import figures as counted
from audit.views.controls import CONTROLS, SAID, Control
from audit.views.figures import ANSWER_DAYS, DAY_MS, TAKEN, held_objects
from audit.views.markup import bars, duration, number, plain, table, text, timeline
from audit.views.rows import Context, Row, instant

MAX_LISTED = 200
"""Lines of a list; the rest is in events.csv, and the list says so."""

_TERMS: Mapping[str, str] = {
    "gdpr": "one month, at most three (GDPR Art. 12(3))",
    "ccpa": "45 days, at most 90 (Cal. Civ. Code 1798.130(a)(2))",
    "pipeda": "30 days, at most 60 (PIPEDA s. 8(3), (4))",
}
_ANSWERS = {
    "subject.erased": "erased",
    "dsr.fulfilled": "answered",
    "dsr.refused": "refused",
    "dsr.cancelled": "cancelled",
}


@dataclass(frozen=True, slots=True)
class Told:
    """What the sections are made of; `now_ms` is the latest event, as of which the report speaks."""

    rows: Sequence[Row]
    context: Context
    figures: Mapping[str, int]
    by_type: Mapping[str, Sequence[Row]]
    now_ms: int

    def of(self, ty: str) -> Sequence[Row]:
        """Return the rows of this type, in order."""
        return self.by_type.get(ty, ())


def _told(rows: Sequence[Row], context: Context) -> Told:
    by_type: dict[str, list[Row]] = {}
    for row in rows:
        by_type.setdefault(row.event["ty"], []).append(row)
    now_ms = counted.last_ms([row.event for row in rows])
    return Told(rows, context, counted.count(rows), by_type, now_ms)


def parts(rows: Sequence[Row], context: Context) -> dict[str, str]:
    """Return what the template has places for, as markup."""
    told = _told(rows, context)
    body = [
        _summary(told),
        _overview(told),
        *(_control(control, told) for control in CONTROLS),
    ]
    return {
        "origin": text(context.origin),
        "controller": text(context.controller.name or "Controller not given"),
        "facts": _facts(told),
        "main": "\n".join(body),
        "keys": _keys(context),
        "checkpoint": text(context.checkpoint),
    }


def _facts(told: Told) -> str:
    context, controller = told.context, told.context.controller
    times = [row.event["t"] for row in told.rows]
    period = f"{_day(min(times))} to {_day(max(times))} (UTC)" if times else "no events"
    entries = f"{plain(context.start)} to {plain(context.end - 1)}" if context.end > context.start else "none"
    if context.hashes:
        entries += f"; {plain(len(told.rows))} selected, so that figures are of these alone"
    facts = {
        "Contact": controller.contact or "not given",
        "Data protection officer": controller.officer or "not given",
        "Period": period,
        "Log": context.origin,
        "Entries": f"{entries}, of {plain(context.size)} in the log at its checkpoint",
    }
    lines = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in facts.items())
    return f'<dl class="facts">{lines}</dl>'


def _summary(told: Told) -> str:
    figures = told.figures
    tiles = (
        ("events", "events in these entries", False),
        ("consent.recorded", "consents given", False),
        ("consent.withdrawn", "consents withdrawn", False),
        ("decision.made/dec=deny", "decisions that denied", False),
        ("dsr.received", "requests of people received", False),
        ("requests.open", "of them not answered yet", False),
        ("objects.on_time", "objects destroyed in time", False),
        ("objects.late", "objects destroyed late", True),
        ("objects.overdue", "objects past their term and not destroyed", True),
        ("subject.erased", "people erased, each with a certificate", False),
        ("payload.erased/nseal", "sealed payloads of the log erased", False),
        ("access.refused", "calls refused", False),
    )
    lines = "".join(
        f"<li{_alert(alerts and figures.get(key, 0) > 0)}><b>{number(figures, key)}</b>{label}</li>"
        for key, label, alerts in tiles
    )
    events = [row.event for row in told.rows]
    chart = ""
    if events:
        width = counted.width_ms(events)
        first = min(event["t"] for event in events)
        count = (told.now_ms - first // DAY_MS * DAY_MS) // width + 1
        title = "Events a day" if width == DAY_MS else f"Events in each {width // DAY_MS} days"
        chart = timeline(title, figures, count, _day(first), _day(told.now_ms))
    heading = '<h2 id="summary">Summary</h2>'
    return (
        f'<section aria-labelledby="summary">\n{heading}\n<ul class="tiles">{lines}</ul>\n{chart}\n</section>'
    )


def _alert(is_raised: bool) -> str:
    return ' class="alert"' if is_raised else ""


def _overview(told: Told) -> str:
    lines = [
        (
            f'<a href="#{control.key}">{text(control.law)}</a>',
            text(control.title),
            number(told.figures, "+".join(control.types)),
        )
        for control in CONTROLS
    ]
    shown = table(
        "Controls, and how many events are evidence for each", ("Control", "Asks for", "#Events"), lines
    )
    note = (
        '<p class="note">An event may be evidence for several controls. This page shows what happened; '
        "whether a control is met is for its auditor to say.</p>"
    )
    return f'<nav aria-labelledby="controls">\n<h2 id="controls">By control</h2>\n{shown}\n{note}\n</nav>'


def _control(control: Control, told: Told) -> str:
    lines = []
    for ty in control.types:
        seen = told.of(ty)
        where = f"{plain(seen[0].index)} \u2026 {plain(seen[-1].index)}" if len(seen) > 1 else ""
        where = where or "".join(plain(row.index) for row in seen) or "\u2013"
        lines.append(
            (text(SAID[ty]), f"<code>{text(ty)}</code>", number(told.figures, ty), where, _dates(seen))
        )
    head = ("What happened", "Event", "#Number", "#Entries", "First and last")
    detail = "\n".join(_DETAILS[name](told) for name in control.detail)
    return (
        f'<section aria-labelledby="{control.key}">\n'
        f'<h2 id="{control.key}"><span class="law">{text(control.law)}</span>{text(control.title)}</h2>\n'
        f"<p>{text(control.asks)}</p>\n{table('Evidence', head, lines)}\n{detail}{_see(control)}\n</section>"
    )


def _see(control: Control) -> str:
    laws = {other.key: other.law for other in CONTROLS}
    links = ", ".join(f'<a href="#{key}">{text(laws[key])}</a>' for key in control.see)
    return f'<p class="note">One by one, with dates and counts: see {links}.</p>' if links else ""


# --- details ---------------------------------------------------------------------------------


def _values(told: Told, caption: str, head: str, *fields: str) -> str:
    """Return bars for every value of `<type>/<field>`, the most frequent first."""
    keys = [key for key in told.figures if any(key.startswith(f"{field}=") for field in fields)]
    keys.sort(key=lambda key: (-told.figures[key], key))
    if not keys:
        return f'<p class="note">{text(caption)}: none.</p>'
    return bars(
        caption, head, told.figures, [(f"<code>{text(key.partition('=')[2])}</code>", key) for key in keys]
    )


def _decisions(told: Told) -> str:
    return _values(told, "Decisions by their reason", "Reason", "decision.made/rc") + _values(
        told, "Decisions by purpose", "Purpose", "decision.made/pur"
    )


def _consents(told: Told) -> str:
    lines = [
        ("given", "consent.recorded"),
        ("withdrawn by the person", "consent.withdrawn/meth=api"),
        ("withdrawn by an erasure", "consent.withdrawn/meth=erasure"),
        ("found invalid", "consent.invalidated"),
        ("to be asked for anew", "consent.renewal"),
        ("given here, neither withdrawn nor past its term", "consents.standing"),
    ]
    return (
        bars("Consents", "What became of them", told.figures, lines)
        + _values(told, "Consents given, by form", "Form", "consent.recorded/form")
        + _values(told, "Consents given, by purpose", "Purpose", "consent.recorded/pur")
    )


def _deletions(told: Told) -> str:
    lines = [
        ("destroyed in time", "objects.on_time"),
        ("destroyed late", "objects.late"),
        ("past its term and not destroyed here", "objects.overdue"),
        ("past its term, kept by a legal hold", "objects.held"),
        ("kept, its term not reached", "objects.standing"),
        ("destroyed, and stored before these entries", "objects.before"),
    ]
    return bars(
        f"Objects against the instant promised when they were stored, as of {_moment(told.now_ms)} UTC",
        "Object",
        told.figures,
        lines,
    ) + _values(told, "Objects destroyed, by what made it", "Cause", "object.destroyed/why")


def _late(told: Told) -> str:
    late = [row for row in told.of("object.destroyed") if f"late/{row.index}" in told.figures]
    lines = [
        (
            plain(row.index),
            f"<code>{text(row.event['obj'])}</code>",
            text(row.event["cat"]),
            _moment(row.event["t"]),
            duration(told.figures, f"late/{row.index}"),
        )
        for row in late[:MAX_LISTED]
    ]
    gone = {row.event["obj"] for row in told.of("object.destroyed")} | held_objects(told.rows)
    overdue = [
        row
        for row in sorted((row for ty in TAKEN for row in told.of(ty)), key=lambda row: row.index)
        if row.event["obj"] not in gone and row.event["exp"] < told.now_ms
    ]
    due = [
        (
            plain(row.index),
            f"<code>{text(row.event['obj'])}</code>",
            text(row.event["cat"]),
            _moment(row.event["exp"]),
        )
        for row in overdue[:MAX_LISTED]
    ]
    head = ("Entry", "Object", "Kind")
    return _listed("Destroyed late", (*head, "Destroyed (UTC)", "#Late by"), lines, len(late)) + _listed(
        "Past the term and not destroyed here", (*head, "To be destroyed by (UTC)"), due, len(overdue)
    )


def _clocks(told: Told) -> str:
    lines = [(f"within {ANSWER_DAYS[0]} days", f"requests.within/{ANSWER_DAYS[0]}")]
    lines += [
        (f"after {after} days, within {days}", f"requests.within/{days}")
        for after, days in pairwise(ANSWER_DAYS)
    ]
    lines += [
        (f"after {ANSWER_DAYS[-1]} days", "requests.within/more"),
        ("not answered yet", "requests.open"),
    ]
    note = (
        '<p class="note">The day on which an answer is due depends on '
        " calendar, holidays and extensions; <code>lethe policy clock</code> computes it.</p>"
    )
    return (
        bars("Requests by the time to their answer", "Answered", told.figures, lines)
        + note
        + _values(told, "Requests by kind", "Kind", "dsr.received/dkind")
        + _values(told, "Requests refused, by reason", "Reason", "dsr.refused/rc")
    )


def _requests(told: Told) -> str:
    answers = counted.answers(told.rows)
    received = told.of("dsr.received")
    lines = []
    for row in received[:MAX_LISTED]:
        answer = answers.get(row.event["dsr"])
        law = row.event["reg"]
        lines.append(
            (
                plain(row.index),
                f"<code>{text(row.event['dsr'][:8])}</code>",
                text(row.event["dkind"]),
                f"{text(law.upper())}: {text(_TERMS.get(law, 'see the rule book'))}",
                _day(row.event["t"]),
                _ANSWERS[answer.event["ty"]] if answer else "open",
                duration(told.figures, f"request/{row.index}"),
            )
        )
    head = ("Entry", "Request", "Kind", "Law and its time", "Received", "Answer", "#Took")
    return _listed("Requests and their clocks", head, lines, len(received))


def _erasures(told: Told) -> str:
    received = {row.event["dsr"]: row.index for row in told.of("dsr.received")}
    erased = told.of("subject.erased")
    lines = []
    for row in erased[:MAX_LISTED]:
        event = row.event
        asked = received.get(event["dsr"])
        lines.append(
            (
                plain(row.index),
                f"<code>{text(event['dsr'][:8])}</code>",
                "asked before" if asked is None else duration(told.figures, f"request/{asked}"),
                _moment(event["t1"]),
                _moment(event["t2"]) if "t2" in event else "not promised",
                text(", ".join(event["cls"])),
                text("; ".join(f"{kept['cls']}: {kept['rule']}" for kept in event["kept"]) or "nothing"),
            )
        )
    head = (
        "Entry",
        "Request",
        "#After",
        "Unreadable here (UTC)",
        "In every backup (UTC)",
        "Erased",
        "Kept, and by which rule",
    )
    totals = [
        ("objects destroyed", "subject.erased/nobj"),
        ("keys destroyed", "subject.erased/nkey"),
        ("jobs whose backend had not confirmed that it forgot them", "subject.erased/nowed"),
    ]
    found = told.of("erasure.incomplete")
    places = [
        (
            plain(row.index),
            f"<code>{text(row.event['dsr'][:8])}</code>",
            _moment(row.event["t"]),
            text(", ".join(row.event["where"])),
            "erased since" if row.event["dsr"] in {done.event["dsr"] for done in erased} else "not certified",
        )
        for row in found[:MAX_LISTED]
    ]
    return (
        _listed("Erasures", head, lines, len(erased))
        + bars("What the erasures destroyed", "What", told.figures, totals)
        + _listed(
            "Found by the search after an erasure",
            ("Entry", "Request", "Found (UTC)", "Where", "Since then"),
            places,
            len(found),
        )
    )


def _payloads(told: Told) -> str:
    lines = [
        ("sealed in these entries", "seals"),
        ("destroyed by an erasure", "payload.erased/nseal"),
        ("destroyed at the end of their term", "payload.expired/nseal"),
    ]
    return bars("Sealed payloads of this log", "Payloads", told.figures, lines)


def _processing(told: Told) -> str:
    backends = sorted({row.event["bak"] for row in told.rows if "bak" in row.event})
    names = told.context.backends
    lines = [
        (
            f"<code>{text(backend)}</code>",
            text(names.get(backend, "not named")),
            number(told.figures, f"job.dispatched/bak={backend}"),
        )
        for backend in backends[:MAX_LISTED]
    ]
    return (
        _values(told, "Objects stored, by category", "Category", "object.sealed/cat")
        + _values(told, "Objects in memory only, by category", "Category", "object.transient/cat")
        + _values(told, "Jobs by purpose", "Purpose", "job.created/pur")
        + _values(told, "Jobs forwarded, by where the backend runs", "Place", "job.dispatched/land")
        + _values(told, "Jobs forwarded, by the backend's contract", "SHA-256", "job.dispatched/ctr")
        + _listed(
            "Recipients: inference backends", ("Backend", "Name", "#Jobs forwarded"), lines, len(backends)
        )
    )


def _refusals(told: Told) -> str:
    return (
        _values(told, "Calls refused, by reason", "Reason", "access.refused/rc")
        + _values(told, "Calls refused, by method", "Method", "access.refused/mthd")
        + _values(told, "Uploads refused, by reason", "Reason", "upload.refused/rc")
        + _values(told, "Jobs failed, by reason", "Reason", "job.failed/rc")
        + _values(told, "Heads disputed by a witness, by what it says", "Says", "log.disputed/why")
    )


_DETAILS: Mapping[str, Callable[[Told], str]] = {
    "decisions": _decisions,
    "consents": _consents,
    "deletions": _deletions,
    "late": _late,
    "clocks": _clocks,
    "requests": _requests,
    "erasures": _erasures,
    "payloads": _payloads,
    "processing": _processing,
    "refusals": _refusals,
}


def _listed(caption: str, head: Sequence[str], lines: Sequence[Sequence[str]], total: int) -> str:
    if not total:
        return f'<p class="note">{text(caption)}: none.</p>'
    more = f"; the first {len(lines)} of {plain(total)}, all are in events.csv" if total > len(lines) else ""
    return table(caption + more, head, lines)


# --- the end ---------------------------------------------------------------------------------


def _keys(context: Context) -> str:
    return "".join(
        f"<dt>Verifier key</dt><dd><code>{text(vkey)}</code></dd>"
        f"<dt>Its SHA-256</dt><dd><code>{hashlib.sha256(vkey.encode()).hexdigest()}</code></dd>"
        for vkey in context.vkeys
    )


def _day(at_ms: int) -> str:
    return instant(at_ms)[:10]


def _dates(rows: Sequence[Row]) -> str:
    days = list(dict.fromkeys(_day(row.event["t"]) for row in (*rows[:1], *rows[-1:])))
    shown = " \u2026 ".join(days) or "\u2013"
    return f'<span class="day">{shown}</span>'


def _moment(at_ms: int) -> str:
    return instant(at_ms)[:16].replace("T", " ")
