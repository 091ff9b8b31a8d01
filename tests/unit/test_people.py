"""Subjects are found by a keyed digest of their id, and what is known of them rests sealed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import KeyServiceUnavailable, LetheError, SubjectBlocked, SubjectUnknown
from gateway.people import Guardian, Profile
from gateway.ports.records import Subject
from tests.fakes.clock import NOON
from tests.world import APP, OTHER_TENANT, TENANT, World

WORDS = st.text(max_size=12)
PROFILES = st.builds(
    Profile,
    subject_id=WORDS,
    residence=WORDS,
    location=WORDS,
    birth_year=st.integers(0, 2026),
    age_band=WORDS,
    guardian=st.none() | st.builds(Guardian, WORDS, WORDS),
)


@given(PROFILES)
def test_a_profile_comes_back_as_it_was(profile: Profile) -> None:
    assert Profile.from_json(profile.to_json()) == profile


@pytest.mark.parametrize(
    ("known", "age"),
    [
        ({"birth_year": 1980}, 45),
        ({"birth_year": 2013}, 12),
        ({"birth_year": 2026}, 0),
        ({"age_band": "16-17"}, 16),
        ({"age_band": "lt13"}, 0),
        ({"age_band": "adult"}, 18),
        ({"birth_year": 1980, "age_band": "lt13"}, 45),
        ({}, None),
    ],
)
def test_the_youngest_age_that_fits_is_taken(known: dict[str, object], age: int | None) -> None:
    """GDPR Art. 8(1): in doubt a child is protected."""
    assert age == Profile("ann", **known).age(NOON)


@pytest.fixture
async def w() -> World:
    made = World()
    await made.know("ann@example.org")
    return made


async def test_the_callers_id_and_the_profile_stand_nowhere_in_clear(w: World) -> None:
    """GDPR Art. 25(1), 32(1)(a)."""
    everything = repr(w.rows)
    assert "ann@example.org" not in everything
    assert "1980" not in everything
    assert (await w.flows.subjects.get(APP, "ann@example.org")).profile.birth_year == 1980


async def test_two_tenants_call_one_person_by_different_handles(w: World) -> None:
    people = w.flows.upload.people
    assert await people.handle(TENANT, "ann@example.org") != await people.handle(
        OTHER_TENANT, "ann@example.org"
    )


async def test_who_is_unknown_and_who_was_erased_are_told_apart(w: World) -> None:
    people = w.flows.upload.people
    with pytest.raises(SubjectUnknown):
        await people.find(TENANT, "bob")
    await w.publish("generate")
    await w.consent("ann@example.org")
    await w.erase("ann@example.org")
    with pytest.raises(SubjectBlocked):
        await people.find(TENANT, "ann@example.org")


async def test_ids_are_told_only_of_those_who_still_have_a_profile(w: World) -> None:
    people = w.flows.upload.people
    handle = await w.handle("ann@example.org")
    assert await people.subject_ids(TENANT, {handle, "0a" * 32}) == {handle: "ann@example.org"}


async def test_a_profile_moved_to_another_subject_does_not_open(w: World) -> None:
    await w.know("bob")
    ann, bob = w.records.all(Subject)
    stolen = Subject(bob.tenant, bob.handle, "active", ann.key_id, ann.sealed_profile, NOON, NOON)
    with pytest.raises(KeyServiceUnavailable, match="does not open"):
        await w.flows.upload.people.open_profile(stolen)


async def test_without_the_key_service_nobody_is_found(w: World) -> None:
    w.keys.faults.is_down = True
    with pytest.raises(LetheError):
        await w.flows.upload.people.find(TENANT, "ann@example.org")
