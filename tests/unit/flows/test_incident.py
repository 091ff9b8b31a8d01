"""The register of breaches."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gateway.compose import Watch
from gateway.errors import MessageInvalid, NotFound
from gateway.flows.incident import BANDS, IncidentDraft, Shown, Telling, Text
from gateway.flows.tenant import TenantDraft
from gateway.ports.records import ClosedEpoch, Incident, SubjectKey
from tests.fakes.clock import NOON
from tests.world import OFFICER, STRANGER, World

DAY = timedelta(days=1)
REQUEST = "7f9c24e5-0a35-4c0e-8f8a-3b1f6d1c2e4a"
SECRET = "Anna Example's portrait lay in an open bucket"
DRAFT = IncidentDraft(
    "disclosure",
    NOON - timedelta(hours=2),
    data_categories=("output",),
    residences=("DE",),
    about_subjects=12,
    about_records=40,
    text=Text(SECRET, "somebody may recognise her", "the bucket was closed"),
)


async def record(w: World, **changes: Any) -> Shown:
    shown, _ = await w.flows.incidents.record(OFFICER, replace(DRAFT, **changes))
    return shown


async def test_the_register_says_what_was_recorded_and_whom_to_tell_until_when() -> None:
    w = World()
    shown = await record(w)
    assert shown.text == DRAFT.text
    assert "gdpr" in shown.record.regimes
    assert shown.record.due_at == DRAFT.aware_at + timedelta(hours=72)
    assert [(d.tell, shown.is_settled(d)) for d in shown.duties][:2] == [
        ("authority", False),
        ("subjects", False),
    ]
    (event,) = w.events("incident.recorded")
    assert {k: event[k] for k in ("inc", "ver", "ikind", "packs", "auth", "subj")} == {
        "inc": shown.record.incident_id,
        "ver": 1,
        "ikind": "disclosure",
        "packs": list(shown.record.regimes),
        "auth": "open",
        "subj": "open",
    }


async def test_free_text_rests_sealed_under_a_key_of_its_own() -> None:
    w = World()
    shown, other = await record(w), await record(w)
    assert shown.record.key_id != other.record.key_id
    assert all(SECRET.encode() not in row.sealed_text for row in w.records.all(Incident))
    assert SECRET not in repr(w.records.all(Incident))


async def test_what_is_known_later_is_a_version_and_stops_the_clock_that_was_seen_to() -> None:
    """GDPR Art. 33(4): information may be provided in phases."""
    w = World()
    first = await record(w)
    again = await record(
        w,
        incident_id=first.record.incident_id,
        authority=Telling(NOON - timedelta(hours=1)),
        subjects=Telling(rule="GDPR Art. 34(3)(a)"),
    )
    assert (again.record.version, again.record.due_at, w.count(Incident)) == (2, None, 1)
    assert all(again.is_settled(duty) for duty in again.duties)
    second = w.events("incident.recorded")[-1]
    assert (second["auth"], second["subj"], "due" in second) == ("told", "exempt", False)


async def test_where_nobody_knows_who_is_concerned_every_law_applies() -> None:
    w = World()
    shown = await record(w, residences=())
    assert set(shown.record.regimes) == {name for name, pack in w.flows.packs.items() if pack.rules.breach}


async def test_days_are_counted_where_the_controller_sits_now() -> None:
    w = World()
    await w.flows.tenants.update(OFFICER, TenantDraft({"time_zone": "Europe/Berlin"}))
    shown = await record(w)
    due = shown.duties[0].due
    assert isinstance(due, datetime)
    assert str(due.tzinfo) == "Europe/Berlin"


async def test_a_repeated_request_records_once() -> None:
    w = World()
    first, again = await record(w, request_id=REQUEST), await record(w, request_id=REQUEST)
    assert first == again
    assert len(w.events("incident.recorded")) == 1


async def test_pages_go_through_the_register_by_when_it_was_noticed() -> None:
    w = World()
    made = [await record(w, aware_at=NOON - timedelta(hours=hours)) for hours in (1, 3, 3, 2)]
    found, token = [], ""
    while True:
        page = await w.flows.incidents.list(OFFICER, 1, token)
        found += [shown.record for shown in page.items]
        token = page.next_token
        if not token:
            break
    assert found == sorted((one.record for one in made), key=lambda row: (row.aware_at, row.incident_id))
    assert (await w.flows.incidents.list(STRANGER, 10, "")).items == ()


async def test_where_the_key_of_the_words_is_lost_the_rest_is_shown() -> None:
    w = World()
    shown = await record(w)
    key = next(key for key in w.records.all(SubjectKey) if key.key_id == shown.record.key_id)
    await w.records.transact(lambda tx: tx.remove(key))
    (found,) = (await w.flows.incidents.list(OFFICER, 10, "")).items
    assert (found.text, found.record, found.duties) == (Text(), shown.record, shown.duties)


async def test_anothers_incident_is_not_there() -> None:
    w = World()
    shown = await record(w)
    with pytest.raises(NotFound):
        await w.flows.incidents.record(STRANGER, replace(DRAFT, incident_id=shown.record.incident_id))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"kind": "mishap"}, ("incident.kind", "kind.unknown")),
        ({"residences": ("XX",)}, ("incident.residences", "place.unknown")),
        ({"aware_at": NOON + timedelta(hours=1)}, ("incident.aware_time", "time.future")),
        ({"aware_at": NOON - timedelta(days=7300)}, ("incident.aware_time", "time.too_far")),
        ({"subjects": Telling(rule="they know her")}, ("incident.subjects.rule", "rule.no_citation")),
        (
            {"authority": Telling(NOON - timedelta(days=1))},
            ("incident.authority.tell_time", "time.impossible"),
        ),
    ],
)
async def test_what_cannot_be_is_refused(changes: dict[str, Any], fault: tuple[str, str]) -> None:
    w = World()
    with pytest.raises(MessageInvalid) as refusal:
        await record(w, **changes)
    assert refusal.value.violations == (fault,)


async def test_the_less_time_is_left_the_louder() -> None:
    w, watch = World(), Watch(CollectorRegistry())
    await record(w)
    heard = []
    for hours in (0, 1, 48, 12, 0, 12):
        w.clock.advance(timedelta(hours=hours))
        watch.press(await w.flows.incidents.pressing())
        sums = [
            watch.registry.get_sample_value("lethe_alarms_total", {"alarm": f"incident_{b}"}) for b in BANDS
        ]
        heard.append([int(number or 0) for number in sums])
    assert heard == [[0, 0, 0, 1]] * 2 + [[0, 0, 1, 1]] + [[0, 1, 1, 1]] * 2 + [[1, 1, 1, 1]]
    assert watch.registry.get_sample_value("lethe_incidents_due", {"left": "overdue"}) == 1


async def test_at_its_term_it_leaves_the_register_with_its_key() -> None:
    w = World()
    shown = await record(w)
    w.clock.advance(timedelta(days=5 * 366 + 2))
    await w.flows.sweep.run()
    assert w.count(Incident) == 0
    assert shown.record.key_id not in {key.key_id for key in w.records.all(SubjectKey)}
    assert w.count(ClosedEpoch) == 1
    assert [event["inc"] for event in w.events("record.expired")] == [shown.record.incident_id]
