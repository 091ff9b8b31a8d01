"""The gateway is killed with `kill -9` before and after each call through a door: what is left, what then.

The table in ARCHITECTURE.md ("Where it may crash, and what survives") is what these tests claim.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from lethe.v1 import subject_pb2

from audit.verify import verify_certificate, verify_export
from gateway.adapters.keys_local import LocalKeyring
from gateway.client import Refused
from gateway.ports.keys import Epoch
from gateway.ports.records import ClosedEpoch, Dsr, Leaf, LogHead, StoredObject
from tests import gateway as house
from tests import invariants
from tests.doors import WRITING
from tests.faults.story import (
    PATIENCE_S,
    PLACE,
    SUBJECT,
    SURVIVOR,
    UPLOAD_ID,
    House,
    RequestStory,
    Story,
    copied,
    prepared,
    zygote,
)
from tests.places import running_parts
from tests.sample import sampled

KEPT = "@records.transact/Upload._keep.commit"
APPROVED = "@records.transact/Dsrs.approve.commit"
DESTROYED = "@records.transact/Erasure._destroy.destroy"
CERTIFIED = "@records.transact/Erasure._issue.certify"

UPLOAD_WRITES = (
    "keys.create_epoch",
    "records.transact/Custody._keep_first",
    "objects.put",
    "records.transact/Upload._keep.commit",
    f"records.transact/Generate.run_one.<lambda>{KEPT}",
    "records.transact/Generate._dispatch",
    "records.transact/Generate._note_progress",
    "records.transact/_note_forgotten",
    f"keys.create_epoch{KEPT}",
    f"objects.put{KEPT}",
    "records.transact/Generate._finish.commit",
    f"objects.delete{KEPT}",
    f"records.transact/reap.<lambda>{KEPT}",
    "records.transact/Release.run.<lambda>#2",
    f"records.transact/Sequence._advance{KEPT}",
    f"lock.swap{KEPT}",
    f"records.transact/Sequence._keep{KEPT}",
    f"records.transact/_keep{KEPT}",
)
UPLOAD_READS = (
    "records.transact/People.known.<lambda>",
    "records.transact/Custody.open_by_id.<lambda>",
    "records.transact/Upload._admit.judge",
    "records.transact/Upload._run.<lambda>",
    "records.transact/Custody.obtain.<lambda>",
    "records.transact/Custody._current_epoch.<lambda>",
    "keys.mac",
    "keys.is_fenced",
    "keys.epochs",
    "keys.wrap",
    "keys.unwrap",
    "faces.deidentify",
    f"scrubber.scrub{KEPT}",
    f"records.transact/Jobs.get.<lambda>{KEPT}",
    "records.transact/Generate._open_input.locate",
    "records.transact/Generate._case.<lambda>",
    "objects.get",
    "inference.generate",
    "inference.cancel",
    "inference.forget",
    "records.transact/Generate._let_go.<lambda>",
    "records.transact/Generate._finish.permit",
    "records.transact/Release._case.read",
)
ERASURE_WRITES = (
    "records.transact/Dsrs.create.commit",
    "records.transact/Dsrs.preview.look",
    "records.transact/Dsrs.approve.commit",
    f"records.transact/Erasure.run_one.<lambda>{APPROVED}",
    "records.transact/Erasure._bar.block",
    "keys.fence",
    "records.transact/Erasure._tick",
    "records.transact/Erasure._end_content",
    "records.transact/Erasure._end_pictures",
    "records.transact/Erasure._destroy.destroy",
    "records.transact/Erasure._tick#2",
    f"objects.delete{DESTROYED}",
    "records.transact/drop_row",
    "records.transact/Erasure._tick#3",
    f"keys.create_epoch{DESTROYED}",
    "records.transact/Custody.roll.<lambda>",
    "records.transact/Custody._replace",
    "keys.destroy_epoch",
    f"keys.create_epoch#2{DESTROYED}",
    "keys.destroy_epoch#2",
    "records.scour",
    "records.transact/Erasure._tick#4",
    "records.transact/Erasure._issue.certify",
    f"records.transact/Sequence._advance{CERTIFIED}",
    f"lock.swap{CERTIFIED}",
    "records.transact/Audit.inclusion.read",
    "records.transact/_keep_head",
    "records.transact/Audit._log_export",
)
ERASURE_READS = (
    "records.transact/Controllers.now.<lambda>",
    "records.transact/laws_of.<lambda>",
    "records.transact/Dsrs.create.<lambda>",
    "records.transact/Dsrs.get.<lambda>",
    "records.transact/Dsrs.show.look",
    "records.transact/Erasure._all_hands_off.look",
    "records.transact/Erasure._progress.<lambda>",
    "records.transact/_closed_of",
    f"records.search{DESTROYED}",
    f"records.search#2{DESTROYED}",
    f"records.transact/_payloads{DESTROYED}",
    f"records.transact/_placed{DESTROYED}",
    f"records.transact/_waiting{DESTROYED}",
    "keys.rewrap",
    "records.transact/Dsrs.certificate.<lambda>",
    "records.transact/Audit.export.<lambda>",
    "records.transact/leaves",
    "records.transact/_sealed",
    "records.transact/_later",
    "records.transact/key_book",
    "records.transact/_of_epoch",
    f"lock.load{CERTIFIED}",
    f"records.transact/_standing{CERTIFIED}",
    f"records.transact/_files{CERTIFIED}",
)
OPENED = "@records.transact/Dsrs.create.commit"
REQUEST_WRITES = (
    "records.transact/Dsrs.create.commit",
    "records.transact/Dsrs.verify.commit",
    "records.transact/Dsrs.extend.commit",
    "records.transact/Dsrs.preview.look",
    "records.transact/Dsrs.approve.commit",
    f"records.transact/Fulfilment.run_one.<lambda>{APPROVED}",
    f"records.transact/Fulfilment._act{APPROVED}",
    f"records.transact/Sequence._advance{OPENED}",
)
INSIDE = (
    "objects.put",
    f"objects.put{KEPT}",
    "records.transact/Upload._keep.commit",
    "records.transact/Generate._finish.commit",
    "records.transact/Erasure._destroy.destroy",
    "records.transact/Erasure._issue.certify",
)
BACKGROUND = {
    "inference.describe",
    "objects.list",
    "records.transact/Prune._prune_some",
    "records.transact/Sweep._end_some_holds",
    "records.transact/Sweep._expire_some",
    "records.transact/Sweep._forget",
    "records.transact/Debts.items.<lambda>",
    "records.transact/Debts.resting.<lambda>",
    "records.transact/Fulfilment.run_one.<lambda>",
    "records.transact/Register.left.read",
    "records.transact/Generate._due_debts",
    "records.transact/Incidents.pressing.<lambda>",
    "records.transact/Sweep._end_dataset_keys",
    "records.transact/Sweep._end_datasets",
    "records.transact/Training.run_one.<lambda>",
    "records.transact/Sequence._look",
    "records.transact/Rotation._due.<lambda>",
    "records.transact/Sweep._mark_renewals.<lambda>",
    "records.transact/_claimed",
    "records.transact/_drop_rows",
    "records.transact/tick",
    "records.transact/_some_keys",
    "records.transact/_in_state",
    "records.transact/_owed",
    "records.transact/_with_profile_key",
    "records.transact/Generate._keep_lease.<lambda>",
    "records.transact/Generate._watch.<lambda>",
    "records.transact/keep_packs.keep",
    "records.transact/Suppress._mark.<lambda>",
    "records.transact/refuse_past.newest",
}
"""Passed by every start, sweep, look or list, some as chance wills: nothing of the story happens there."""


def cases(writes: tuple[str, ...], reads: tuple[str, ...]) -> list[str]:
    """Return what is killed: writes before and after, puts and great commits inside, reads before."""
    found = [spec(point, when) for point in writes for when in ("before", "after")]
    found += [spec(point, "inside") for point in writes if point in INSIDE]
    return found + [spec(point, "before") for point in reads]


def spec(point: str, when: str) -> str:
    """Return the `--kill` argument of `point#N@since`."""
    head, _, since = point.partition("@")
    name, _, nth = head.partition("#")
    return f"{name}:{when}" + (f":{nth}" if nth else "") + (f"@{since}" if since else "")


def bare(points: tuple[str, ...]) -> set[str]:
    return {point.partition("@")[0].partition("#")[0] for point in points}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A prepared folder and the zygote of its gateways."""
    with running_parts(PLACE) as parts, zygote() as forks:
        yield prepared(tmp_path_factory.mktemp("kill") / "template", forks, parts)


@pytest.fixture
async def left(template: House, tmp_path: Path) -> AsyncIterator[House]:
    made = await copied(template, tmp_path / "dev")
    yield made
    await made.place.remove()


async def test_every_point_that_the_story_passes_is_written_out_here(left: House) -> None:
    story, learned = Story(left), left.layout.root / "points.json"
    # Else it sometimes does first what the story would have done.
    left.place.configure("sweep", interval_s=3600.0)
    async with left.open("--points", str(learned)):
        await story.tell()
    passed = json.loads(learned.read_text())
    written = bare(UPLOAD_WRITES) | bare(ERASURE_WRITES)
    known = written | bare(UPLOAD_READS) | bare(ERASURE_READS)
    assert known == set(passed) - BACKGROUND
    # Where the machine is slow a lease is renewed, which is a write of the background.
    assert written == {point for point, wrote in passed.items() if wrote} - BACKGROUND
    assert {point for point in passed if "/" not in point and passed[point]} == WRITING
    await check_end(left, story)


async def survive(left: House, story: Story, kill: str) -> None:
    """Tell the story to a gateway that is killed, look, tell it on to another, and look again."""
    async with left.open("--kill", kill):
        await story.until_killed()
        assert story.house.said().count("gateway_stopped") == 0, "it ended by itself"
    before = await check_corpse(left)
    left.age_bytes()
    async with left.open(), asyncio.timeout(PATIENCE_S):
        await story.tell()
        await check_others(left)
        await left.swept()
    await check_end(left, story)
    for size in before:
        assert size <= max(head.size for head in (await left.rows())[LogHead])


async def check_corpse(left: House) -> list[int]:
    """What the dead gateway left: every effect with its leaf, every byte sealed; returns the log's sizes."""
    rows = await left.rows()
    invariants.check(rows)
    live = {row.object_id for row in rows[StoredObject] if row.state == "live"}
    assert live <= left.place.stored()
    assert all(
        row.seq is None or row.seq < head.size
        for head in rows[LogHead]
        for row in rows[Leaf]
        if row.log == head.log
    )
    await check_nothing_in_clear(left)
    return [head.size for head in rows[LogHead]]


async def check_nothing_in_clear(left: House) -> None:
    """No file holds the subject's id or a piece of the portrait, neither WAL nor the gateway's own log."""
    portrait = house.PORTRAIT.read_bytes()
    pieces = [portrait[at : at + 24] for at in range(20_000, len(portrait) - 24, 20_000)]
    needles = [SUBJECT.encode(), *pieces]
    assert await left.place.holding(*needles) == {}


async def check_end(left: House, story: Story) -> None:
    """What holds once the story was told to its end, whatever happened on the way."""
    # The work finished.
    assert len(story.result) > 100
    assert story.certificate is not None
    trust = left.layout.trust.read_text()
    certificate = verify_certificate(story.certificate.tlog_proof, story.certificate.opening, trust)
    assert certificate.verdict == "valid", certificate.fault
    export = verify_export(story.export, trust)
    assert export.verdict == "valid", export.fault
    rows = await left.rows()
    invariants.check(rows)
    log = invariants.events(rows)
    assert len(log["job.created"]) == 2  # the survivor's and this one: no repetition made another
    assert len(log["dsr.received"]) == 1
    # Nothing is left, of the subject or of a broken write.
    invariants.check_bytes(rows, left.place.stored())
    assert left.place.drafts() == []
    keyring = LocalKeyring(left.layout.keys)
    invariants.check_gone(rows, (await keyring.mac("demo", "handle", SUBJECT.encode())).hex())
    closed = {Epoch.parse(row.epoch) for row in rows[ClosedEpoch]}
    assert len(closed) >= 3  # content, profile, evidence
    assert closed.isdisjoint(await keyring.epochs())
    await check_nothing_in_clear(left)
    assert await left.place.holding(*(story.result[at : at + 24] for at in range(100, 600, 100))) == {}


async def check_others(left: House) -> None:
    """Others lost nothing, and the subject gets nothing again."""
    async with left.client("app") as app:
        _, picture = await app.download((left.layout.root / "survivor-job").read_text())
        assert picture.startswith(b"\xff\xd8\xff")
        with pytest.raises(Refused) as refused:
            await app.create_job(house.header(SUBJECT, request_id=UPLOAD_ID), house.PORTRAIT.read_bytes())
        assert refused.value.reason == "SUBJECT_BLOCKED"


async def check_answered(left: House) -> None:
    """The correction was received, extended, approved and answered once, in its time, and has its effect."""
    async with left.client("app") as app:
        name = subject_pb2.GetSubjectRequest(name=f"subjects/{SURVIVOR}")
        assert (await app.call(app.subjects.GetSubject, name)).subject.residence == "FR"
    rows = await left.rows()
    invariants.check(rows)
    log = invariants.events(rows)
    once = ("received", "extended", "approved", "fulfilled")
    assert [len(log[f"dsr.{word}"]) for word in once] == [1, 1, 1, 1]
    (dsr,) = rows[Dsr]
    assert (dsr.state, dsr.outcome, dsr.due_on) == ("fulfilled", "complied", dsr.extended_due_on)
    assert (dsr.due_key, dsr.sealed_wish) == (None, b"")


class TestKilledInAnUpload:
    """The first six rows of the table, and the sequencer's."""

    @pytest.mark.parametrize("kill", sampled(cases(UPLOAD_WRITES, UPLOAD_READS)))
    async def test_the_job_is_done_all_the_same_and_no_byte_is_left_over(
        self, left: House, kill: str
    ) -> None:
        await survive(left, Story(left), kill)


class TestKilledInARequest:
    """The rows of the table that begin with "a request"."""

    @pytest.mark.parametrize("kill", sampled(cases(REQUEST_WRITES, ())))
    async def test_the_request_is_answered_once_in_its_time_and_has_its_effect(
        self, left: House, kill: str
    ) -> None:
        story = RequestStory(left)
        async with left.open("--kill", kill):
            await story.until_killed()
        await check_corpse(left)
        async with left.open(), asyncio.timeout(PATIENCE_S):
            await story.tell()
            await check_answered(left)


class TestKilledInAnErasure:
    """The rows of the table that begin with "erasure", and the sequencer's."""

    @pytest.mark.parametrize("kill", sampled(cases(ERASURE_WRITES, ERASURE_READS)))
    async def test_the_erasure_is_fulfilled_all_the_same_and_nothing_is_left(
        self, left: House, kill: str
    ) -> None:
        await survive(left, Story(left), kill)
