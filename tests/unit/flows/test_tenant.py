"""The controller's facts: configured first, then kept with versions, and what decisions are made by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.compose import Flows
from gateway.controllers import ControllerFacts
from gateway.errors import IdempotencyConflict, MessageInvalid, StateConflict
from gateway.flows.tenant import TenantDraft
from gateway.people import Profile
from gateway.ports.records import TenantVersion
from tests.fakes.clock import NOON
from tests.world import APP, OFFICER, STRANGER, World

REQUEST = "7f9c24e5-0a35-4c0e-8f8a-3b1f6d1c2e4a"


async def update(w: World, etag: str = "", request_id: str = "", **changes: Any) -> int:
    known, _ = await w.flows.tenants.update(OFFICER, TenantDraft(changes, etag, request_id))
    return known.version


async def regimes(flows: Flows, residence: str) -> tuple[str, ...]:
    """Return the packs that a process finds to apply to somebody who lives there."""
    profile, judge = Profile("ann", residence=residence), flows.release.judge
    return await flows.records.transact(lambda tx: judge.regimes(tx, APP.tenant, profile, NOON))


async def test_until_they_are_changed_the_configured_facts_count() -> None:
    w = World()
    known = await w.flows.tenants.get(APP)
    assert (known.facts.name, known.version, known.etag) == ("Example", 0, "v0")


async def test_a_change_is_a_version_and_an_event_and_leaves_the_rest_as_it_was() -> None:
    w = World()
    assert await update(w, targets=("DE", "US-CA"), time_zone="Europe/Berlin") == 1
    assert await update(w, calendar="DE") == 2
    known = await w.flows.tenants.get(APP)
    assert known.facts == ControllerFacts(
        "Example", "privacy@lethe.test", None, ("DE", "US-CA"), "Europe/Berlin", "DE"
    )
    first, second = w.events("tenant.updated")
    assert (first["ver"], first["chg"], first["tgt"]) == (1, ["targets", "time_zone"], ["DE", "US-CA"])
    assert (second["ver"], second["chg"]) == (2, ["calendar"])
    assert w.count(TenantVersion) == 2
    assert (await w.flows.tenants.get(STRANGER)).version == 0


async def test_every_decision_of_every_process_is_made_by_the_new_facts_at_once() -> None:
    """GDPR Art. 3(1): an establishment in the EEA is enough, wherever the person is."""
    w = World()
    other = w.process()
    await update(w, establishments=("US-CA",), targets=("CA",))
    for flows in (w.flows, other):
        assert "gdpr" not in await regimes(flows, "CA-ON")
    await update(w, establishments=("DE",))
    for flows in (w.flows, other):
        assert "gdpr" in await regimes(flows, "CA-ON")


async def test_a_fact_that_is_taken_back_is_not_said_any_more() -> None:
    w = World()
    await update(w, establishments=("DE",))
    await update(w, establishments=None)
    assert (await w.flows.tenants.get(APP)).facts.establishments is None
    assert w.events("tenant.updated")[-1]["est"] == []


async def test_who_saw_older_facts_changes_nothing() -> None:
    w = World()
    seen = (await w.flows.tenants.get(OFFICER)).etag
    await update(w, contact="dpo@lethe.test", etag=seen)
    with pytest.raises(StateConflict) as refusal:
        await update(w, contact="other@lethe.test", etag=seen)
    assert refusal.value.detail == "etag"
    assert (await w.flows.tenants.get(OFFICER)).facts.contact == "dpo@lethe.test"


async def test_a_repeated_request_changes_once_and_with_other_content_not_at_all() -> None:
    w = World()
    assert await update(w, request_id=REQUEST, calendar="DE") == 1
    assert await update(w, request_id=REQUEST, calendar="DE") == 1
    with pytest.raises(IdempotencyConflict):
        await update(w, request_id=REQUEST, calendar="FR")
    assert len(w.events("tenant.updated")) == 1


async def test_what_is_rehearsed_or_the_same_leaves_no_trace() -> None:
    w = World()
    rehearsed, receipt = await w.flows.tenants.update(OFFICER, TenantDraft({"calendar": "DE"}), rehearse=True)
    assert (rehearsed.facts.calendar, receipt) == ("DE", None)
    assert await update(w, name="Example") == 0
    assert w.count(TenantVersion) == 0
    assert w.events("tenant.updated") == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"establishments": ("XX",)}, ("tenant.establishments", "place.unknown")),
        ({"establishments": ("de",)}, ("tenant.establishments", "place.unknown")),
        ({"targets": ("DE", "EU-1234")}, ("tenant.targets", "place.unknown")),
        ({"time_zone": "Europe/Nowhere"}, ("tenant.time_zone", "zone.unknown")),
        ({"time_zone": "../etc/passwd"}, ("tenant.time_zone", "zone.unknown")),
        ({"time_zone": ""}, ("tenant.time_zone", "zone.unknown")),
        ({"calendar": "ZZ"}, ("tenant.calendar", "calendar.unknown")),
        ({"thresholds": {"ccpa_busyness": True}}, ("tenant.thresholds", "threshold.unknown")),
        ({"name": " "}, ("tenant.controller", "controller.empty")),
    ],
)
async def test_a_fact_that_policy_cannot_reckon_with_is_refused(
    changes: dict[str, Any], fault: tuple[str, str]
) -> None:
    w = World()
    with pytest.raises(MessageInvalid) as refusal:
        await update(w, **changes)
    assert refusal.value.violations == (fault,)
    assert w.count(TenantVersion) == 0


async def test_a_change_and_its_event_are_one() -> None:
    w = World()
    w.records.fail_next("lost")
    with pytest.raises(Exception, match="records"):
        await update(w, calendar="DE")
    assert (w.count(TenantVersion), w.events("tenant.updated")) == (0, [])


async def test_thresholds_are_kept_on_record() -> None:
    w = World()
    await update(w, thresholds={"ccpa_business": False})
    known = await w.flows.tenants.get(OFFICER)
    assert known.facts == replace(
        w.flows.tenants.controllers.seeds[APP.tenant], thresholds={"ccpa_business": False}
    )
