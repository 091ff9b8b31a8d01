"""The same questions to whoever sees to faces: the workers behind their walls, and the fake."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gateway.deidentify import Limits, Rejected
from gateway.deidentify.deidentified import Deidentified, Deidentifier, Profile
from gateway.deidentify.faces.pool import ImageDeidentifier
from tests.fakes.faces import FakeDeidentifier
from tests.unit.deidentify import plant
from tests.unit.deidentify.portraits import closeup, files, group, jpeg, portrait

pytestmark = pytest.mark.asyncio(loop_scope="module")

ONE = jpeg(closeup("collins", 300))
PLANTED = ONE[:2] + b"".join(plant.jpeg_segments().values()) + ONE[2:]
THREE = jpeg(group(300))
NOBODY = jpeg(portrait("collins")[:60, :60])
SHOWN: dict[bytes, int] = {PLANTED: 1, THREE: 3, NOBODY: 0}
"""How many faces a picture shows; a fake must be told."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["fake", "workers"])
async def door(request: pytest.FixtureRequest) -> AsyncIterator[Deidentifier]:
    one = (
        FakeDeidentifier()
        if request.param == "fake"
        else ImageDeidentifier(Limits(), files(), timeout_s=60.0)
    )
    await one.start()
    try:
        yield one
    finally:
        await one.close()


async def ask(door: Deidentifier, data: bytes, profile: Profile, max_faces: int = 1) -> Deidentified:
    if isinstance(door, FakeDeidentifier):
        door.faces = SHOWN.get(data, 1)
    return await door.deidentify(data, profile, max_faces=max_faces)


@pytest.mark.parametrize("profile", ["bystanders", "landmarks", "redact"])
async def test_what_is_said_fits_the_profile_and_no_metadata_comes_through(
    door: Deidentifier, profile: Profile
) -> None:
    assert plant.CANARY in PLANTED
    got = await ask(door, PLANTED, profile)
    assert (got.profile, got.faces, got.picture.mode) == (profile, 1, "canonical")
    assert got.masked == (0 if profile == "bystanders" else 1)
    assert (got.similarity is None) == (profile == "bystanders")
    assert got.similarity is None or 0 <= got.similarity <= 1000
    assert (got.record is None) == (profile != "landmarks")
    assert got.record is None or got.record.faces == 1
    assert plant.CANARY not in got.picture.data


async def test_of_a_group_all_heads_but_one_are_masked_or_all(door: Deidentifier) -> None:
    kept = await ask(door, THREE, "bystanders", 3)
    bare = await ask(door, THREE, "redact", 3)
    assert (kept.faces, kept.masked) == (3, 2)
    assert (bare.faces, bare.masked) == (3, 3)


@pytest.mark.parametrize(
    ("data", "detail"), [(THREE, "too_many_faces"), (NOBODY, "no_face"), (b"none", "not_an_image")]
)
async def test_what_cannot_be_seen_to_is_refused_by_name(
    door: Deidentifier, data: bytes, detail: str
) -> None:
    for profile in ("bystanders", "landmarks", "redact"):
        with pytest.raises(Rejected, match=detail):
            await ask(door, data, profile, 2)
