"""A result goes out only with the marks that the packs demand (Reg. (EU) 2024/1689 Art. 50(2))."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gateway.errors import PolicyDenied
from gateway.ports.records import Job, StoredObject
from tests.fakes.marking import CERTIFICATE, FakeMarker
from tests.world import World

MISSING = "DENY_AI_MARKING_MISSING"


@pytest.fixture
async def w() -> World:
    world = World()
    world.clock.advance(timedelta(days=200))  # the duty began on 2 August
    await world.ready("ada")
    return world


def configure(world: World, marker: FakeMarker | None, **marking: Any) -> None:
    """Start a new process with another signer, or none, and another section `marking`."""
    world.outside = replace(world.outside, marker=marker)
    section = world.settings.marking.model_copy(update=marking)
    world.settings = world.settings.model_copy(update={"marking": section if marker else None})
    world.flows = world.process()


def abroad(world: World) -> None:
    """Let the controller sit in the United States and offer nothing to anybody else."""
    tenants = {
        name: tenant.model_copy(
            update={
                "controller": tenant.controller.model_copy(
                    update={"establishments": ("US",), "targets": ("US",)}
                )
            }
        )
        for name, tenant in world.settings.tenants.items()
    }
    world.settings = world.settings.model_copy(update={"tenants": tenants})


async def refused(world: World, job_id: str) -> str:
    with pytest.raises(PolicyDenied) as denied:
        await world.released(job_id)
    return denied.value.code


async def test_a_result_is_marked_last_and_its_leaves_say_so(w: World) -> None:
    job = await w.portrait("ada")
    result = await w.released(job.job_id)
    assert await w.marker.is_marked(result, "jpeg")
    assert w.marker.sources == ["composite_generated"]
    (leaf,) = w.events("image.marked")
    assert (leaf["obj"], leaf["cert"], leaf["src"]) == (job.result_object, CERTIFICATE, "composite_generated")
    for ty in ("job.succeeded", "result.released"):
        (leaf,) = w.events(ty)
        assert (leaf["mark"], leaf["lack"]) == (["manifest", "watermark"], ["watermark"])
    w.check()


async def test_nothing_is_taken_in_that_could_not_be_marked(w: World) -> None:
    configure(w, None)
    with pytest.raises(PolicyDenied) as denied:
        await w.upload("ada")
    assert (denied.value.code, denied.value.metadata["deciding_pack"]) == (MISSING, "eu_ai_act")
    assert "Art. 50(2)" in denied.value.metadata["citations"]
    assert (w.count(Job), w.count(StoredObject)) == (0, 0)
    assert [leaf["rc"] for leaf in w.events("upload.refused")] == [MISSING]


async def test_nothing_is_forwarded_once_the_signer_is_gone(w: World) -> None:
    accepted = await w.upload("ada")
    configure(w, None)
    await w.work()
    job = w.job(accepted.job.job_id)
    assert (job.state, job.reason) == ("failed", MISSING)
    assert not [call for call in w.backend.seen if call.method == "generate"]


async def test_a_result_that_cannot_be_marked_is_none(w: World) -> None:
    w.marker.is_down = True
    job = await w.portrait("ada")
    assert (job.state, job.reason, job.result_object) == ("failed", "MARKING_UNAVAILABLE", "")
    assert not w.live()
    assert not w.objects.held


async def test_a_mark_that_is_not_believed_any_more_is_none(w: World) -> None:
    job = await w.portrait("ada")
    configure(w, FakeMarker(b"another"))
    assert await refused(w, job.job_id) == MISSING
    configure(w, None)
    assert await refused(w, job.job_id) == MISSING
    assert not w.events("result.released")


async def test_a_watermark_is_put_on_elsewhere_or_waived_or_nothing_goes_out(w: World) -> None:
    configure(w, w.marker, unsafe_no_watermark=False)
    with pytest.raises(PolicyDenied) as denied:
        await w.upload("ada")
    assert denied.value.code == MISSING
    configure(w, w.marker, watermark_elsewhere=True)
    await w.released((await w.portrait("ada")).job_id)
    (leaf,) = w.events("result.released")
    assert leaf["mark"] == ["manifest", "watermark"]
    assert "lack" not in leaf


async def test_where_no_pack_demands_it_a_result_goes_without(w: World) -> None:
    abroad(w)
    configure(w, None)
    await w.know("bob", "JP")
    await w.consent("bob")
    job = await w.portrait("bob")
    await w.released(job.job_id)
    assert not w.events("image.marked")
    (leaf,) = w.events("result.released")
    assert "mark" not in leaf


async def test_whoever_moves_to_the_union_gets_no_unmarked_result(w: World) -> None:
    abroad(w)
    configure(w, None)
    await w.know("bob", "JP")
    await w.consent("bob")
    job = await w.portrait("bob")
    await w.know("bob", "DE")
    assert await refused(w, job.job_id) == MISSING
