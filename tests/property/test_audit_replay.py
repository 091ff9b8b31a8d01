"""An honest gateway's log breaks no rule, and every single lie in it is found."""

from __future__ import annotations

from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from audit import leaf
from audit.replay import ReplayReport, replay
from tests.unit.audit.honest import DEEDS, HOUR_MS, TERM_MS, decide, lived
from tests.unit.audit.logs import PACK, PACK_DIGEST

Rows = list[tuple[int, dict[str, Any]]]
# Often what leads somewhere: a consent, a job, a picture.
MAIN = ("consent", "upload", "upload", "dispatch", "finish", "release")
lives = st.builds(
    lived, st.integers(0, 1 << 32), st.lists(st.sampled_from((*DEEDS, *MAIN)), min_size=8, max_size=40)
)

WITHDRAWN = ("consent", "consent", "consent", "upload", "upload", "upload", "dispatch", "dispatch")
withdrawals = st.builds(
    lived,
    st.integers(0, 1 << 32),
    st.lists(st.sampled_from(DEEDS), max_size=10).map(lambda deeds: [*WITHDRAWN, *["withdraw"] * 3, *deeds]),
)

# Pictures are in every one of them; where lives have to be sought that hold one, most are thrown away.
pictured = st.builds(
    lived,
    st.integers(0, 1 << 32),
    st.lists(st.sampled_from((*DEEDS, *MAIN)), max_size=40).map(
        lambda deeds: ["publish", *["consent"] * 4, *["upload"] * 6, *deeds]
    ),
)

NEEDED = {
    ("decision.made", "job"): {"job.created", "job.dispatched", "result.released"},
    ("job.created", "job"): {"job.dispatched", "job.failed", "job.cancelled"},
    ("job.dispatched", "job"): {"job.succeeded"},
    ("job.succeeded", "job"): {"result.released"},
    ("image.scrubbed", "obj"): {"object.sealed"},
    ("object.sealed", "obj"): {"object.destroyed", "job.created"},
    ("consent.recorded", "con"): {"consent.withdrawn"},
    ("notice.published", "ntc"): {"consent.recorded"},
    ("dsr.received", "dsr"): {
        "dsr.approved",
        "dsr.refused",
        "dsr.cancelled",
        "dsr.extended",
        "dsr.fulfilled",
        "dsr.verified",
        "subject.erased",
    },
    ("dsr.approved", "dsr"): {"dsr.fulfilled", "subject.blocked", "subject.erased"},
}
"""Event type and field to the types that must not stand without it."""


def replayed(rows: Rows) -> ReplayReport:
    for _, event in rows:
        leaf.encode(event)
    return replay(rows, (), {PACK_DIGEST: PACK}, decide)


def renumbered(events: list[dict[str, Any]]) -> Rows:
    return list(enumerate(events))


@settings(deadline=None)
@given(lives)
def test_an_honest_log_breaks_no_rule(gateway: Any) -> None:
    report = replayed(gateway.rows())
    assert report.violations == ()
    assert report.verdict == "kept"
    assert report.coded == sum(event["ty"] == "decision.made" for event in gateway.events)
    assert all(tally.unclear == tally.unseen == tally.broken == 0 for tally in report.promises.values())


@settings(deadline=None)
@given(lives, st.integers(0, 200))
def test_a_part_of_an_honest_log_breaks_no_rule(gateway: Any, start: int) -> None:
    """An export that begins later, or is filtered, holds nothing against the log that it does not show."""
    rows = gateway.rows()
    assert replayed(rows[start:]).violations == ()
    assert replayed(rows[::2]).violations == ()


@settings(deadline=None)
@given(lives, st.data())
def test_an_event_that_another_needs_is_missed(gateway: Any, data: st.DataObject) -> None:
    places = [
        place
        for place, event in enumerate(gateway.events)
        for (ty, name), types in NEEDED.items()
        if event["ty"] == ty and name in event
        # A job that was dispatched twice is not without its dispatch once one of them is gone.
        if sum(other["ty"] == ty and other.get(name) == event[name] for other in gateway.events) == 1
        if any(
            other["ty"] in types and other.get(name) == event[name] for other in gateway.events[place + 1 :]
        )
    ]
    assume(places)
    gone = data.draw(st.sampled_from(places))
    assert replayed(renumbered([*gateway.events[:gone], *gateway.events[gone + 1 :]])).violations


@settings(deadline=None)
@given(lives, st.data())
def test_a_denial_turned_into_a_permission_is_found_and_so_is_the_reverse(
    gateway: Any, data: st.DataObject
) -> None:
    decisions = [place for place, event in gateway.rows() if event["ty"] == "decision.made"]
    assume(decisions)
    place = data.draw(st.sampled_from(decisions))
    was = gateway.events[place]
    turned = {"allow": "deny", "deny": "allow"}[was["dec"]]
    gateway.events[place] = {**was, "dec": turned}
    found = replayed(gateway.rows()).violations
    assert [v.rule for v in found if v.index == place][:1] == ["decision_differs"]
    # A forger may make the codes fit as well; then the log's own words on the consent do not.
    said = [{**one, "st": "standing" if turned == "allow" else "withdrawn"} for one in was["cons"]]
    base = [one["con"] for one in said] if turned == "allow" else []
    gateway.events[place] = {**was, "dec": turned, "cons": said, "base": base}
    assert any(v.index == place for v in replayed(gateway.rows()).violations)


@settings(deadline=None)
@given(lives, st.data())
def test_whatever_happens_twice_is_found(gateway: Any, data: st.DataObject) -> None:
    # What was answered may be asked again.
    skipped = {"job.dispatched", "decision.made", "dsr.verified", "result.released", "subject.blocked"}
    skipped |= {"dsr.paused"}
    places = [place for place, event in gateway.rows() if event["ty"] not in skipped]
    place = data.draw(st.sampled_from(places))
    again = {**gateway.events[place], "t": gateway.now + 5_000}
    assert replayed(renumbered([*gateway.events, again])).violations


@settings(deadline=None)
@given(pictured, st.data(), st.booleans())
def test_an_object_that_outlives_its_term_is_found(gateway: Any, data: st.DataObject, is_late: bool) -> None:
    """Destroyed late, or never although the export ends long after."""
    sealed = [event for event in gateway.events if event["ty"] == "object.sealed"]
    assume(sealed)
    obj = data.draw(st.sampled_from(sealed))
    late = obj["exp"] + HOUR_MS + 60_000
    events = [e for e in gateway.events if e["ty"] != "object.destroyed" or e["obj"] != obj["obj"]]
    at = max(late, gateway.now)
    if is_late:
        witness = next(e for e in gateway.events if e["ty"] == "object.sealed")
        gone = {**witness, "ty": "object.destroyed", "obj": obj["obj"], "cat": obj["cat"], "why": "expired"}
        events.append({k: v for k, v in gone.items() if k not in {"exp", "pur"}} | {"t": at})
    else:
        events.append({**gateway.events[0], "ntc": "f" * 32, "t": at})
    found = {violation.rule for violation in replayed(renumbered(events)).violations}
    assert ("destroyed_late" if is_late else "not_destroyed") in found


@settings(deadline=None)
@given(withdrawals, st.data())
def test_a_job_that_is_forwarded_after_it_was_stopped_or_its_consent_withdrawn_is_found(
    gateway: Any, data: st.DataObject
) -> None:
    over = {"job.stopping", "job.cancelled", "consent.withdrawn"}
    ends = [place for place, event in gateway.rows() if event["ty"] in over]
    dispatched = {e["job"]: e for e in gateway.events if e["ty"] == "job.dispatched"}
    rests_on = {e["job"]: e["base"] for e in gateway.events if e["ty"] == "decision.made" and "job" in e}
    pairs = [
        (place, job)
        for place in ends
        for job in dispatched
        for end in (gateway.events[place],)
        if end.get("job") == job or end.get("con") in rests_on[job]
    ]
    assume(pairs)
    place, job = data.draw(st.sampled_from(pairs))
    again = {**dispatched[job], "t": gateway.events[place]["t"] + 500}
    events = [*gateway.events[: place + 1], again, *gateway.events[place + 1 :]]
    found = {v.rule for v in replayed(renumbered(events)).violations if v.index == place + 1}
    assert found & {"forwarded_after_stop", "job_over", "consent_withdrawn"}


def test_the_model_lives_long_enough_to_say_something() -> None:
    gateway = lived(5, [*MAIN, *DEEDS, *MAIN, *DEEDS] * 3)
    types = {event["ty"] for event in gateway.events}
    assert types >= {ty for types in NEEDED.values() for ty in types}
    assert gateway.now > gateway.events[0]["t"] + TERM_MS
    assert replayed(gateway.rows()).promises.keys() == {
        "accepted_with_permission",
        "answered_in_time",
        "destroyed_in_time",
        "erased_on_approval",
        "forwarded_with_consent",
        "marked_when_demanded",
        "released_with_permission",
    }
