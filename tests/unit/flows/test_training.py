"""Training sets: whose pictures are in them, who may have them, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from gateway.compose import Flows
from gateway.errors import (
    DeidentificationRequired,
    IdempotencyConflict,
    LetheError,
    NotFound,
    ScrubberUnavailable,
    StateConflict,
    StoreUnavailable,
    TrainingOff,
)
from gateway.flows.retention import HoldDraft
from gateway.flows.tenant import TenantDraft
from gateway.flows.training import DatasetDraft
from gateway.people import Profile
from gateway.ports.records import Consent, Dataset, DatasetItem, StoredObject, SubjectKey
from policy.training import is_opt_in, unmet
from tests.fakes.inference import paint
from tests.sample import sampled
from tests.world import APP, OFFICER, SECRET, STRANGER, World

REQUEST = "7f9c24e5-0a35-4c0e-8f8a-3b1f6d1c2e4a"


async def ready(*subjects: str) -> World:
    """Return a world with training on, whose subjects have a portrait each and have opted in to train."""
    w = World()
    await w.publish("generate", "retain_output", "train")
    await switch(w, on=True)
    for subject in subjects:
        await w.know(subject)
        await w.consent(subject)
        await w.portrait(subject)
        await w.consent(subject, "train")
    return w


async def switch(w: World, *, on: bool) -> None:
    await w.flows.tenants.update(OFFICER, TenantDraft({"is_training_on": on}))


async def build(w: World, flows: Flows | None = None) -> None:
    while await (flows or w.flows).training.run_one():
        pass


async def made(w: World, label: str = "heads", **draft: Any) -> Dataset:
    """Return a training set that is complete."""
    begun, _ = await w.flows.training.create(OFFICER, DatasetDraft(label, **draft))
    await build(w)
    return dataset(w, begun.dataset_id)


def dataset(w: World, dataset_id: str) -> Dataset:
    return next(row for row in w.records.all(Dataset) if row.dataset_id == dataset_id)


async def download(w: World, found: Dataset) -> dict[str, bytes]:
    """Return the files of a training set as whoever unpacks the tar finds them."""
    chunks = [chunk async for chunk in w.flows.training.download(OFFICER, found.dataset_id)]
    assert max(map(len, chunks)) <= 256 << 10
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def manifest(files: dict[str, bytes]) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(files["manifest.json"])
    return tree


async def withdraw(w: World, subject: str) -> None:
    await w.flows.consents.withdraw(APP, subject_id=subject, purpose="train")


async def test_it_is_off_unless_the_controller_says_otherwise() -> None:
    w = await ready("ann")
    found = await made(w)
    await switch(w, on=False)
    with pytest.raises(TrainingOff):
        await made(w)
    with pytest.raises(TrainingOff):
        await download(w, found)
    assert (await World().flows.tenants.get(OFFICER)).facts.is_training_on is False


async def test_a_set_that_was_begun_waits_while_training_is_off() -> None:
    w = await ready("ann")
    begun, _ = await w.flows.training.create(OFFICER, DatasetDraft("heads"))
    await switch(w, on=False)
    assert not await w.flows.training.run_one()
    await switch(w, on=True)
    await build(w)
    assert dataset(w, begun.dataset_id).size == 1


async def test_a_set_holds_copies_of_whoever_opted_in_and_of_nobody_else() -> None:
    w = await ready("ann")
    await w.know("bob")
    await w.consent("bob")
    await w.portrait("bob")
    found = await made(w)
    assert (found.state, found.size, found.version) == ("ready", 1, 1)
    files = await download(w, found)
    (line,) = manifest(files)["items"]
    (row,) = [row for row in w.records.all(StoredObject) if row.purpose == "train"]
    assert row.handle == await w.handle("ann")
    assert hashlib.sha256(files[line["file"]]).hexdigest() == line["sha256"]
    assert SECRET not in files[line["file"]]
    assert [w.events(f"dataset.{ty}") != [] for ty in ("created", "added", "completed", "released")] == [
        True
    ] * 4
    w.check()


@pytest.mark.parametrize(
    "changes",
    [{"form": "implied"}, {"flags": ()}, {"flags": ("separate", "condition_of_service")}],
)
async def test_what_is_no_opt_in_of_its_own_leaves_the_subject_out(changes: dict[str, Any]) -> None:
    """GDPR Art. 7(2), (4): a consent that is bundled or a condition of the service is none."""
    w = await ready("ann")
    (opted,) = [row for row in w.records.all(Consent) if row.purpose == "train"]
    # As it was recorded before records were refused that do not prove enough.
    await w.records.transact(lambda tx: tx.put(replace(opted, **changes)))
    found = await made(w)
    ((reason, number),) = found.skipped.items()
    assert (found.size, reason.startswith("DENY_"), number) == (0, True, 1)


async def test_a_form_that_even_one_law_takes_is_not_enough_where_it_is_not_separate() -> None:
    """11 CCR 7002 may let a compatible purpose pass with a notice; a set asks for an opt-in all the same."""
    assert not is_opt_in("opt_out", ("separate",))
    assert not is_opt_in("explicit", ())
    assert not is_opt_in("parental", ("separate",))
    assert is_opt_in("express", ("separate",))


def test_a_regime_that_asks_for_more_and_one_nobody_judged_are_named() -> None:
    judged = ["gdpr", "uk_gdpr", "ccpa", "pipeda", "qc_law25", "il_bipa", "tx_cubi", "wa_mhmda", "lgpd"]
    assert unmet(judged) == {}
    assert list(unmet(["gdpr", "coppa", "made_up"])) == ["coppa", "made_up"]


async def test_a_regime_that_asks_for_more_leaves_the_subject_out(monkeypatch: pytest.MonkeyPatch) -> None:
    w = await ready("ann")
    monkeypatch.setattr("policy.training.SUFFICES", {})
    found = await made(w)
    assert (found.size, found.skipped) == (0, {"DEIDENTIFICATION_REQUIRED": 1})


@pytest.mark.parametrize("profile", ["landmarks", "redact"])
async def test_copies_show_no_face_and_log_and_manifest_say_what_was_measured(profile: str) -> None:
    """GDPR Art. 25; 740 ILCS 14/10."""
    w = await ready("ann")
    found = await made(w, profile=profile if profile == "redact" else "")
    (copy,) = [asked for asked in w.faces.asked if asked.profile != "bystanders"]
    assert copy.profile == found.profile == profile
    (line,) = manifest(await download(w, found))["items"]
    assert (line["profile"], line["similarity_thousandths"]) == (profile, 87)
    assert manifest(await download(w, found))["profile"] == profile
    (scrubbed,) = [leaf for leaf in w.events("image.scrubbed") if "sim" in leaf]
    (added,), (created,) = w.events("dataset.added"), w.events("dataset.created")
    assert scrubbed["obj"] == added["obj"]
    assert (scrubbed["sim"], scrubbed["nface"], scrubbed["nhead"]) == (87, 1, 1)
    assert {scrubbed["kind"], added["kind"], created["kind"]} == {profile}
    w.check()


@pytest.mark.parametrize("profile", ["bystanders", "metadata_free", "canonical"])
async def test_what_leaves_the_face_is_refused_for_training(profile: str) -> None:
    w = await ready("ann")
    with pytest.raises(DeidentificationRequired) as caught:
        await made(w, profile=profile)
    assert caught.value.detail == "profile_not_for_purpose"
    assert w.count(Dataset) == 0


async def test_a_picture_that_stays_linked_is_left_out_and_counted() -> None:
    w = await ready("ann", "bob")
    first, second = await w.portrait("ann"), await w.portrait("ann")
    (linked,) = [row for row in w.records.all(StoredObject) if row.object_id == second.result_object]
    w.faces.links = {await w.flows.training.safe.open(linked)}
    found = await made(w)
    files = await download(w, found)
    # The fake paints the same picture for the same subject each time, so all of hers are linked.
    assert first.result_object != second.result_object
    assert found.refused["verifier_linked"] >= 1
    assert manifest(files)["refused"] == found.refused
    assert found.size == len(manifest(files)["items"])
    copies = [row for row in w.records.all(StoredObject) if row.purpose == "train"]
    assert len(copies) == found.size
    w.check()


async def test_a_subject_whose_pictures_all_stay_linked_is_skipped_by_reason() -> None:
    w = await ready("ann")
    w.faces.rejects = "verifier_linked"
    found = await made(w)
    assert (found.state, found.size) == ("ready", 0)
    assert (found.skipped, found.refused) == ({"IMAGE_REJECTED": 1}, {"verifier_linked": 1})


async def test_while_nobody_looks_for_faces_a_set_waits() -> None:
    w = await ready("ann")
    w.faces.is_down = True
    begun, _ = await w.flows.training.create(OFFICER, DatasetDraft("heads"))
    with pytest.raises(ScrubberUnavailable):
        await build(w)
    w.faces.is_down = False
    w.clock.advance(timedelta(minutes=5))
    await build(w)
    assert (dataset(w, begun.dataset_id).size, dataset(w, begun.dataset_id).refused) == (1, {})


async def test_a_set_of_before_faces_were_seen_to_is_not_given_out() -> None:
    w = await ready("ann")
    found = await made(w)
    await w.records.transact(lambda tx: tx.put(replace(found, profile="metadata_free")))
    with pytest.raises(DeidentificationRequired):
        await download(w, found)


async def test_subjects_are_named_by_pseudonyms_that_no_two_sets_share() -> None:
    w = await ready("ann", "bob")
    await w.portrait("ann")
    first = manifest(await download(w, await made(w)))["items"]
    second = manifest(await download(w, await made(w)))["items"]
    names = [{line["subject"] for line in lines} for lines in (first, second)]
    assert [len(found) for found in names] == [2, 2]
    assert names[0].isdisjoint(names[1])
    assert {line["item"] for line in first}.isdisjoint(line["item"] for line in second)
    handles = {await w.handle("ann"), await w.handle("bob")}
    assert not any(handle in json.dumps([first, second]) for handle in handles)


async def test_a_withdrawal_removes_the_pictures_at_once_and_says_which() -> None:
    """GDPR Art. 7(3), 17(1)(b)."""
    w = await ready("ann", "bob")
    found = await made(w)
    before = manifest(await download(w, found))
    await withdraw(w, "ann")
    shown = await w.flows.training.get(OFFICER, found.dataset_id)
    assert (shown.record.state, shown.record.size, len(shown.removed)) == ("stale", 1, 1)
    after = manifest(await download(w, found))
    gone = {line["item"] for line in before["items"]} - {line["item"] for line in after["items"]}
    assert gone == set(shown.removed) == set(after["removed"])
    (event,) = w.events("dataset.reduced")
    assert (event["itm"], event["why"]) == (shown.removed[0], "withdrawn")
    (row,) = [row for row in w.records.all(DatasetItem) if row.state == "removed"]
    assert (row.handle, row.object_id, row.source_object, row.job_id, row.sha256) == (None, "", "", "", "")
    w.check()


async def test_a_withdrawal_takes_the_copy_also_where_the_result_itself_may_be_kept() -> None:
    """Another basis to keep the result is none to keep a copy of it for training."""
    w = await ready("ann")
    await w.consent("ann", "retain_output")
    found = await made(w)
    await withdraw(w, "ann")
    assert not [row for row in w.records.all(StoredObject) if row.purpose == "train" and row.state == "live"]
    assert dataset(w, found.dataset_id).state == "stale"


async def test_an_erasure_reaches_every_set_and_finds_nothing_left() -> None:
    """GDPR Art. 17(1)."""
    w = await ready("ann", "bob")
    sets = [await made(w), await made(w, "others")]
    held = await w.flows.subjects.stored_data(APP, "ann")
    assert [item.kind for item in held.items].count("dataset_item") == 2
    request = await w.erase("ann")
    assert request.state == "fulfilled"
    for found in sets:
        assert dataset(w, found.dataset_id).state == "stale"
        assert len(manifest(await download(w, found))["items"]) == 1
    handle = await w.handle("ann")
    assert not [row for row in w.records.all(DatasetItem) if row.handle == handle]
    assert {event["why"] for event in w.events("dataset.reduced")} == {"erasure"}
    w.check()


async def test_what_an_erasure_left_in_a_set_is_found_by_the_log() -> None:
    """The copy's row is gone and its bytes are not: nothing but the log knows that they were somebody's."""
    w = await ready("ann")
    await made(w)
    (copy,) = [row for row in w.records.all(StoredObject) if row.purpose == "train"]
    await w.records.transact(lambda tx: tx.remove(copy))
    await w.request("ann")
    await w.flows.erasure.run_one()
    assert w.events("erasure.incomplete") != []


async def test_restricted_and_expired_are_left_out() -> None:
    """GDPR Art. 18(2): a restriction leaves nothing but storage."""
    w = await ready("ann", "bob")
    found = await made(w)
    await w.flows.subjects.restrict(OFFICER, "ann", restricted=True)
    tree = manifest(await download(w, found))
    assert (len(tree["items"]), tree["left_out"]) == (1, 1)
    w.clock.advance(timedelta(days=29))
    await w.consent("bob", "generate")
    assert dataset(w, found.dataset_id).state == "ready"
    w.clock.advance(timedelta(days=2))
    with pytest.raises(StateConflict):
        await download(w, found)


async def test_at_its_term_a_set_ends_with_its_copies_and_its_key() -> None:
    w = await ready("ann")
    found = await made(w)
    w.clock.advance(timedelta(days=31))
    await w.flows.sweep.run()
    ended = dataset(w, found.dataset_id)
    assert (ended.state, ended.key_id, w.count(DatasetItem)) == ("gone", "", 0)
    assert found.key_id not in {key.key_id for key in w.records.all(SubjectKey)}
    assert not [row for row in w.records.all(StoredObject) if row.purpose == "train"]
    assert (len(w.events("dataset.expired")), w.events("dataset.reduced")) == (1, [])
    with pytest.raises(StateConflict):
        await download(w, found)


async def test_a_hold_keeps_a_copy_and_the_key_it_needs_and_lets_nobody_have_it() -> None:
    w = await ready("ann")
    found = await made(w)
    hold, _ = await w.flows.retention.place(OFFICER, HoldDraft("ann", "GDPR Art. 17(3)(e)"))
    await withdraw(w, "ann")
    assert manifest(await download(w, found))["items"] == []
    w.clock.advance(timedelta(days=31))
    await w.flows.sweep.run()
    assert found.key_id in {key.key_id for key in w.records.all(SubjectKey)}
    await w.flows.retention.release(OFFICER, hold.hold_id)
    await w.flows.sweep.run()
    assert found.key_id not in {key.key_id for key in w.records.all(SubjectKey)}


async def test_a_copy_opens_neither_without_the_subjects_key_nor_without_the_sets() -> None:
    w = await ready("ann")
    found = await made(w)
    (copy,) = [row for row in w.records.all(StoredObject) if row.purpose == "train"]
    opened = await w.flows.training.safe.open(copy)
    assert SECRET not in opened
    files = await download(w, found)
    assert all(data not in opened for name, data in files.items() if name != "manifest.json")


async def test_a_set_takes_no_more_than_was_asked_for_and_its_label_counts_versions() -> None:
    w = await ready("ann", "bob")
    first, second = await made(w, max_size=1), await made(w, max_size=1)
    assert [(row.size, row.version) for row in (first, second)] == [(1, 1), (1, 2)]


async def test_a_repeated_request_begins_one_set() -> None:
    w = await ready()
    training = w.flows.training
    first, _ = await training.create(OFFICER, DatasetDraft("heads", 0, REQUEST))
    again, receipt = await training.create(OFFICER, DatasetDraft("heads", 0, REQUEST))
    assert (again.dataset_id, receipt, w.count(Dataset)) == (first.dataset_id, None, 1)
    with pytest.raises(IdempotencyConflict):
        await training.create(OFFICER, DatasetDraft("others", 0, REQUEST))


async def test_anothers_set_is_not_there_and_lists_are_ones_own() -> None:
    w = await ready("ann")
    found = [await made(w, label) for label in ("b", "a", "b")]
    with pytest.raises(NotFound):
        await w.flows.training.get(STRANGER, found[0].dataset_id)
    page = await w.flows.training.list(OFFICER, 2, "")
    rest = await w.flows.training.list(OFFICER, 2, page.next_token)
    assert [(row.label, row.version) for row in (*page.items, *rest.items)] == [("a", 1), ("b", 1), ("b", 2)]
    assert (await w.flows.training.list(STRANGER, 2, "")).items == ()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_worker_that_dies_at_any_call_leaves_what_another_finishes(when: Any) -> None:
    probe = await ready("ann", "bob")
    await probe.flows.training.create(OFFICER, DatasetDraft("heads"))
    probe.trip.calls.clear()
    await build(probe)
    for at in sampled(range(len(probe.trip.calls))):
        w = await ready("ann", "bob")
        begun, _ = await w.flows.training.create(OFFICER, DatasetDraft("heads"))
        w.trip.lose(at, when)
        with contextlib.suppress(LetheError):
            await build(w)
        w.clock.advance(timedelta(minutes=5))
        await build(w, w.process())
        found = dataset(w, begun.dataset_id)
        assert (found.state, found.size) == ("ready", 2), (at, when)
        assert len(manifest(await download(w, found))["items"]) == 2
        w.check()


async def test_two_workers_do_not_fill_the_same_set_twice() -> None:
    w = await ready("ann", "bob")
    await w.flows.training.create(OFFICER, DatasetDraft("heads"))
    await asyncio.gather(build(w), build(w, w.process()))
    assert w.records.all(Dataset)[0].size == w.count(DatasetItem) == 2


async def test_a_store_that_does_not_answer_ends_a_download_and_hides_nothing() -> None:
    w = await ready("ann")
    found = await made(w)
    w.records.is_down = True
    with pytest.raises(StoreUnavailable):
        await download(w, found)


# --- whatever happens in whatever order ----------------------------------------------------------

PEOPLE = ("ann", "bob", "cleo")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "create",
                "step",
                "build",
                "opt_in",
                "withdraw",
                "erase",
                "restrict",
                "relax",
                "off",
                "on",
                "sweep",
            ]
        ),
        st.sampled_from(PEOPLE),
    ),
    max_size=14,
)


class Story:
    """A world in which it is known who has opted in, told apart from what the gateway keeps of it."""

    def __init__(self, w: World) -> None:
        self.w = w
        self.opted_in: set[str] = set()
        self.restricted: set[str] = set()
        self.gone: set[str] = set()
        self.is_on = True
        self.pictures: dict[bytes, str] = {}

    @classmethod
    async def begin(cls) -> Story:
        story = cls(await ready())
        w = story.w
        for number, subject in enumerate(PEOPLE):
            await w.flows.subjects.upsert(APP, Profile(subject, residence="DE", birth_year=1980))
            await w.consent(subject)
            accepted = await w.upload(subject, image=paint(subject.encode(), "studio_grey", SECRET))
            await w.work()
            result = await w.released(accepted.job.job_id)
            # A copy is scrubbed anew, and carries no mark.
            plain = (await w.scrubber.scrub(result)).data
            story.pictures[hashlib.sha256(plain).digest()] = subject
            if number < 2:
                await story.do("opt_in", subject)
        assert len(story.pictures) == len(PEOPLE)
        return story

    def may_train(self, subject: str) -> bool:
        return self.is_on and subject in self.opted_in - self.restricted - self.gone

    async def do(self, step: str, subject: str) -> None:
        w, is_there = self.w, subject not in self.gone
        if step == "create" and self.is_on:
            await w.flows.training.create(OFFICER, DatasetDraft("heads"))
        elif step == "build":
            await build(w)
        elif step == "sweep":
            await w.flows.sweep.run()
        elif step in {"on", "off"}:
            self.is_on = step == "on"
            await switch(w, on=self.is_on)
        elif step == "opt_in" and is_there:
            await w.consent(subject, "train")
            self.opted_in.add(subject)
        elif step == "withdraw" and is_there:
            self.opted_in.discard(subject)
            await withdraw(w, subject)
        elif step in {"restrict", "relax"} and is_there:
            (self.restricted.add if step == "restrict" else self.restricted.discard)(subject)
            await w.flows.subjects.restrict(OFFICER, subject, restricted=step == "restrict")
        elif step == "erase" and is_there:
            self.gone.add(subject)
            await w.erase(subject)

    async def look(self, then: Callable[[], Any] | None = None) -> None:
        """Download every set; `then` is done once the first piece is out."""
        for found in self.w.records.all(Dataset):
            await self.read(found, then)

    async def read(self, found: Dataset, then: Callable[[], Any] | None) -> None:
        try:
            async for chunk in self.w.flows.training.download(OFFICER, found.dataset_id):
                self.check(chunk)
                if then is not None:
                    await then()
                    then = None
        except (StateConflict, TrainingOff):
            assert not self.is_on or found.state == "building"

    def check(self, chunk: bytes) -> None:
        """INVARIANT: a picture that leaves is of somebody who has opted in, now."""
        if chunk[:6] == b"items/":
            size = int(chunk[124:135], 8)
            picture = chunk[512 : 512 + size]
            whose = self.pictures[hashlib.sha256(picture).digest()]
            assert self.may_train(whose), whose


@given(
    steps=STEPS,
    meanwhile=st.tuples(st.sampled_from(["withdraw", "erase", "restrict", "off"]), st.sampled_from(PEOPLE)),
)
@effort(max_examples=int(os.environ.get("LETHE_EXAMPLES", "25")), deadline=None)
def test_no_picture_of_whoever_has_no_opt_in_ever_leaves(
    steps: list[tuple[str, str]], meanwhile: tuple[str, str]
) -> None:
    """GDPR Art. 6(1)(a), 7(3): whatever the order, and also while a download runs."""

    async def run() -> None:
        story = await Story.begin()
        for step, subject in steps:
            await story.do(step, subject)
            await story.look()
        await story.do("on", "")
        await story.do("create", "")
        await build(story.w)
        await story.look(lambda: story.do(*meanwhile))
        await story.look()
        story.w.check()

    asyncio.run(run())
