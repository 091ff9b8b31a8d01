"""A prompt on its way to a backend: scrubbed, sealed, sent, logged by kind, and gone with its picture."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from gateway.errors import IdempotencyConflict, LetheError, PromptRejected, ScrubberUnavailable
from gateway.ports.records import Job, StoredObject
from tests.fakes.inference import FACTS
from tests.world import APP, PORTRAIT, World, chunks, order

SAID = "Portrait of Wanjiru Kamau, wanjiru@example.com, Rembrandt lighting, 85mm"
CLEAN = "Portrait of [person], [email], Rembrandt lighting, 85mm"
ID = "6d4f1c1e-4f8e-4a57-8e5c-0d6f3f6c1a01"


@pytest.fixture
async def w() -> World:
    made = World()
    made.backend.facts = replace(made.backend.facts, takes_prompts=True)
    made.flows.backends.known["studio"] = made.backend.facts
    await made.ready("ann", "bob")
    return made


async def asked(w: World, prompt: str, subject: str = "ann", **changes: object) -> Job:
    made = order(subject, prompt=prompt, **changes)
    return (await w.flows.upload.run(APP, made, chunks(PORTRAIT))).job


def sent(w: World) -> list[str]:
    return [call.prompt for call in w.backend.seen if call.method == "generate"]


async def test_the_backend_is_sent_the_scrubbed_prompt_and_nothing_of_the_other(w: World) -> None:
    await asked(w, SAID)
    await w.work()
    assert sent(w) == [CLEAN]
    assert b"anjiru" not in w.backend.everything_seen()
    w.check()


async def test_the_log_says_what_kinds_were_replaced_and_how_often(w: World) -> None:
    job = await asked(w, SAID)
    (leaf,) = w.events("prompt.scrubbed")
    assert (leaf["job"], leaf["obj"]) == (job.job_id, job.input_object)
    assert leaf["ents"] == {"person": 1, "email": 1}


async def test_a_prompt_rests_sealed_and_goes_with_its_picture(w: World) -> None:
    """GDPR Art. 5(1)(e), 32(1)(a)."""
    job = await asked(w, SAID)
    (stored,) = w.records.all(StoredObject)
    assert stored.sealed_prompt
    assert b"Rembrandt" not in repr(w.records.all(StoredObject)).encode()
    assert b"Rembrandt" not in repr(w.records.all(Job)).encode()
    await w.work()
    assert [row.sealed_prompt for row in w.records.all(StoredObject)] == [b""]
    assert job.input_object not in {row.object_id for row in w.records.all(StoredObject)}


async def test_a_prompt_is_listed_and_handed_out_while_its_job_lives_and_not_after(w: World) -> None:
    """GDPR Art. 15(1), (3)."""
    job = await asked(w, SAID)
    name = f"objects/{job.input_object}/prompt"
    listed = {item.name: item for item in (await w.flows.subjects.stored_data(APP, "ann")).items}
    assert (listed[name].kind, listed[name].size_bytes) == ("prompt", len(CLEAN))
    assert listed[name].expires_at == listed[f"objects/{job.input_object}"].expires_at
    for kind in ("access", "portability"):
        gathered = await w.flows.packages.gatherer.gather(await w.open("ann", kind), w.clock.now())
        assert [image.get("prompt") for image in gathered.document["images"]] == [CLEAN]
    await w.work()
    left = (await w.flows.subjects.stored_data(APP, "ann")).items
    assert not [item for item in left if item.kind == "prompt"]


async def test_where_nothing_is_kept_the_prompt_is_in_memory_only(w: World) -> None:
    w.keep_nothing()
    w.flows.backends.known["studio"] = w.backend.facts
    made = order("ann", prompt=SAID)
    await w.flows.upload.run(APP, made, chunks(PORTRAIT), is_attended=True)
    assert [row.sealed_prompt for row in w.records.all(StoredObject)] == [b""]
    await w.work()
    assert sent(w) == [CLEAN]


async def refused(w: World, refusal: type[LetheError], prompt: str) -> LetheError:
    with pytest.raises(refusal) as caught:
        await asked(w, prompt)
    assert w.count(StoredObject) == w.count(Job) == 0
    (leaf,) = w.events("upload.refused")
    assert leaf["rc"] == caught.value.code
    assert leaf.get("det", "") == caught.value.detail
    return caught.value


async def test_without_its_scrubber_no_prompt_is_taken(w: World) -> None:
    w.prompts.is_down = True
    await refused(w, ScrubberUnavailable, SAID)


async def test_a_prompt_that_policy_refuses_is_refused_by_kind(w: World) -> None:
    w.prompts.actions = {"email": "refuse"}
    assert (await refused(w, PromptRejected, SAID)).detail == "email"


async def test_a_backend_that_takes_no_prompts_gets_none(w: World) -> None:
    w.flows.backends.known["studio"] = replace(w.backend.facts, takes_prompts=False)
    assert (await refused(w, PromptRejected, "a cat")).detail == "backend_takes_none"


async def test_without_consent_a_prompt_is_not_even_looked_at(w: World) -> None:
    w.prompts.is_down = True
    await w.know("eve")
    with pytest.raises(LetheError) as caught:
        await asked(w, SAID, "eve")
    assert caught.value.code.startswith("DENY_")


async def test_the_same_request_with_another_prompt_is_a_conflict(w: World) -> None:
    await asked(w, "a cat", request_id=ID)
    with pytest.raises(IdempotencyConflict):
        await asked(w, "a dog", request_id=ID)


# --- pseudonyms ------------------------------------------------------------------------------------


def pseudonyms(w: World) -> list[str]:
    return [call.subject_pseudonym for call in w.backend.seen if call.method == "generate"]


async def told(w: World, *subjects: str) -> list[str]:
    w.backend.seen.clear()
    for subject in subjects:
        await w.upload(subject)
        await w.work()
    return pseudonyms(w)


def by_subject(w: World, days: int = 30, name: str = "studio") -> None:
    flow = replace(w.flows.generate, subject_spans={name: timedelta(days=days)})
    w.flows = replace(w.flows, generate=flow)


async def test_a_backend_learns_of_the_subject_only_where_the_operator_wants_it(w: World) -> None:
    assert await told(w, "ann", "ann") == ["", ""]
    ids = [call.job_pseudonym for call in w.backend.seen if call.method == "generate"]
    assert len(set(ids)) == 2


async def test_a_subject_is_one_to_a_backend_for_its_span_and_another_after_it(w: World) -> None:
    by_subject(w, days=30)
    first, second, other = await told(w, "ann", "ann", "bob")
    assert first == second != other
    w.clock.advance(timedelta(days=31))
    (later,) = await told(w, "ann")
    assert later not in {first, other}


async def test_no_two_backends_share_a_pseudonym(w: World) -> None:
    by_subject(w)
    (here,) = await told(w, "ann")
    job = await asked(w, "")
    elsewhere = replace(w.flows.generate, subject_spans={"other": timedelta(days=30)})
    there = await elsewhere._subject_pseudonym(replace(job, backend="other"))
    assert len({here, there, job.handle[:32], job.job_id}) == 4


def test_the_fake_takes_no_prompts_unless_told() -> None:
    assert not FACTS.takes_prompts
