"""What is done about faces on the way in, and what the log says of it."""

from __future__ import annotations

import pytest

from gateway.errors import ImageRejected, ScrubberUnavailable
from gateway.ports.records import Job, StoredObject
from tests.world import APP, PORTRAIT, World, chunks, order


@pytest.fixture
async def w() -> World:
    made = World()
    await made.ready("ann")
    return made


async def test_bystanders_are_masked_before_anything_is_kept_and_the_log_says_how_many(w: World) -> None:
    w.faces.faces = 3
    accepted = await w.upload("ann")
    (asked,) = w.faces.asked
    assert (asked.data, asked.profile, asked.max_faces) == (PORTRAIT, "bystanders", 16)
    (leaf,) = w.events("image.scrubbed")
    assert (leaf["kind"], leaf["mode"], leaf["nface"], leaf["nhead"]) == ("bystanders", "canonical", 3, 2)
    assert leaf["obj"] == accepted.job.input_object
    assert "sim" not in leaf
    assert [event["kind"] for event in w.events("job.created")] == ["bystanders"]


async def test_a_result_shows_the_subject_and_is_only_scrubbed(w: World) -> None:
    await w.portrait("ann")
    assert [asked.profile for asked in w.faces.asked] == ["bystanders"]
    assert [leaf["kind"] for leaf in w.events("image.scrubbed")] == ["bystanders", "metadata"]


@pytest.mark.parametrize(("faces", "detail"), [(0, "no_face"), (17, "too_many_faces")])
async def test_no_face_and_too_many_are_refused_by_name(w: World, faces: int, detail: str) -> None:
    w.faces.faces = faces
    with pytest.raises(ImageRejected) as caught:
        await w.upload("ann")
    assert caught.value.detail == detail
    assert (w.count(StoredObject), w.count(Job), w.objects.held) == (0, 0, {})
    assert [leaf["det"] for leaf in w.events("upload.refused")] == [detail]
    w.check()


async def test_where_nobody_looks_for_faces_nothing_is_taken(w: World) -> None:
    w.faces.is_down = True
    with pytest.raises(ScrubberUnavailable):
        await w.upload("ann")
    assert (w.count(StoredObject), w.count(Job), w.objects.held) == (0, 0, {})


async def test_where_nothing_is_kept_faces_are_seen_to_all_the_same(w: World) -> None:
    w.keep_nothing()
    w.faces.faces = 2
    await w.flows.upload.run(APP, order("ann"), chunks(PORTRAIT), is_attended=True)
    assert [leaf["nhead"] for leaf in w.events("image.scrubbed")] == [1]
