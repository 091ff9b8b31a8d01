"""The log over the flows: its head outside, witnesses, files, and what an erasure takes out of it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from audit import fsck, note
from audit.checkpoint import Checkpoint as Head
from audit.checkpoint import open_checkpoint, parse
from audit.errors import LeafInvalid
from audit.leaf import decode
from audit.proof import verify
from audit.quorum import Policy
from audit.tree import verify_consistency
from gateway import compose
from gateway.adapters.log_folder import LogFolder
from gateway.errors import AuditUnavailable, MessageInvalid, StoreUnavailable, SubjectBlocked
from gateway.flows.publish import Publish, alarm_of
from gateway.ports.records import Checkpoint, Leaf, LogHead, SealedPayload, Subject, SubjectKey
from gateway.ports.witness import WitnessConflict, WitnessRefused, WitnessUnavailable
from gateway.settings import ConfigInvalid
from tests.doors import around
from tests.fakes.witness import FakeWitness
from tests.world import APP, OFFICER, ORIGIN, TENANT, World


@pytest.fixture
async def w() -> World:
    world = World()
    await world.ready("ann", "bob")
    return world


def heads(w: World) -> dict[str, LogHead]:
    return {head.log: head for head in w.records.all(LogHead)}


def published(w: World) -> Checkpoint:
    return max((row for row in w.records.all(Checkpoint) if row.log == ORIGIN), key=lambda row: row.size)


def own(w: World) -> list[note.Verifier]:
    return [signer.verifier for signer in w.signers[ORIGIN]]


# --- the head -------------------------------------------------------------------------------


async def test_the_lock_holds_what_is_signed_before_it_is_published(w: World) -> None:
    """R2."""
    await w.flows.sequence.run()
    locked = open_checkpoint(w.lock.notes[ORIGIN], own(w))
    assert locked.size == heads(w)[ORIGIN].size > 0
    assert w.records.all(Checkpoint) == []


@pytest.mark.parametrize("step", ["lose", "lose_reply"])
async def test_a_head_that_could_not_be_locked_is_signed_later_and_never_twice(w: World, step: str) -> None:
    getattr(w.lock.faults, step)("swap")
    with pytest.raises(AuditUnavailable):
        await w.flows.sequence.run()
    await w.know("carl")
    await w.log()
    assert open_checkpoint(w.lock.notes[ORIGIN], own(w)).size == heads(w)[ORIGIN].size == published(w).size


async def test_a_locked_head_that_a_crash_kept_from_the_records_is_noted_by_the_next_run(w: World) -> None:
    await w.log()
    await w.know("carl")
    w.lock.faults.lose_reply("swap")
    with pytest.raises(AuditUnavailable):
        await w.flows.sequence.run()
    await w.log()  # nothing new waits
    assert open_checkpoint(w.lock.notes[ORIGIN], own(w)).size == heads(w)[ORIGIN].size == published(w).size


async def test_a_restored_database_signs_nothing(w: World) -> None:
    """R12: the lock is newer than the records."""
    await w.log()
    backup = dict(w.records._tables)
    await w.know("carl")
    await w.log()
    w.records._tables = backup
    await w.know("dora")  # another past than was signed
    before = dict(w.lock.notes)
    with pytest.raises(AuditUnavailable) as refused:
        await w.flows.sequence.run()
    assert refused.value.detail == "log_rolled_back"
    for name in ("eve", "fred", "gina", "hal"):
        await w.know(name)  # even once it is as long again
    with pytest.raises(AuditUnavailable):
        await w.flows.sequence.run()
    assert before == w.lock.notes


async def test_two_sequencers_make_one_log(w: World) -> None:
    other = w.process()
    for number in range(6):
        await w.know(f"s{number}")
        await asyncio.gather(w.flows.sequence.run(), other.sequence.run())
    await w.log()
    assert [leaf.seq for leaf in sorted_leaves(w)] == list(range(published(w).size))


def sorted_leaves(w: World) -> list[Leaf]:
    mine = [leaf for leaf in w.records.all(Leaf) if leaf.log == ORIGIN and leaf.seq is not None]
    return sorted(mine, key=lambda leaf: leaf.seq or 0)


async def test_a_clock_behind_the_log_by_more_than_the_skew_starts_nothing(w: World) -> None:
    """R9: a leaf written now would lie in the past of the log."""
    await w.log()
    w.clock.set_back(timedelta(seconds=5))
    await compose.refuse_past(w.process())
    w.clock.set_back(timedelta(seconds=1))
    with pytest.raises(ConfigInvalid, match="the clock is behind"):
        await compose.refuse_past(w.process())


async def test_a_clock_that_is_set_back_while_we_run_does_not_set_back_the_log(w: World) -> None:
    before = [event["t"] for event in map(decode, sorted_lines(w))][-1]
    w.clock.set_back(timedelta(hours=1))
    await w.know("carl")
    await w.log()
    times = [event["t"] for event in map(decode, sorted_lines(w))]
    assert times == sorted(times)
    assert times[-1] == before


def sorted_lines(w: World) -> list[bytes]:
    rows = [leaf for leaf in w.records.all(Leaf) if leaf.log == ORIGIN]
    return [leaf.line for leaf in sorted(rows, key=lambda row: row.queued_at)]


async def test_an_event_that_is_too_large_takes_its_change_with_it(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of today's types can be: the bound is for those to come."""
    before = w.count(Leaf), w.count(Subject)
    monkeypatch.setattr("audit.leaf.MAX_BYTES", 100)
    with pytest.raises(LeafInvalid, match="leaf_too_large"):
        await w.know("carl")
    monkeypatch.undo()
    assert before == (w.count(Leaf), w.count(Subject))
    await w.know("carl")
    await w.log()


# --- witnesses ------------------------------------------------------------------------------


class Heard:
    """What the operator would see: answers as they are counted, and those that raise an alarm."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self.alarms: list[str] = []

    def __call__(self, _witness: str, code: str, is_new: bool) -> None:
        self.counted[code] += 1
        if is_new:
            self.alarms.append(alarm_of(code))


class OneWitness(FakeWitness):
    """A witness that answers some calls as it is told."""

    def __init__(self, *answers: Exception) -> None:
        super().__init__()
        self.answers = list(answers)
        self.asked: list[int] = []

    async def add_checkpoint(self, old: int, proof: Sequence[bytes], checkpoint: str) -> tuple[str, ...]:
        self.asked.append(old)
        if self.answers:
            raise self.answers.pop(0)
        return await super().add_checkpoint(old, proof, checkpoint)


def quorum_of(*witnesses: FakeWitness, count: int) -> Policy:
    lines = [f"witness w{place} {witness.vkey()}" for place, witness in enumerate(witnesses)]
    names = " ".join(f"w{place}" for place in range(len(witnesses)))
    return Policy.parse("\n".join([*lines, f"group g {count} {names}", "quorum g"]) + "\n")


def witnessed(
    w: World, *witnesses: FakeWitness, heard: Heard | None = None, count: int = 1, deadline_s: float = 5
) -> Publish:
    """Return a publisher that needs `count` of the witnesses."""
    return Publish(
        w.records,
        w.clock,
        w.flows.ledger,
        {ORIGIN: quorum_of(*witnesses, count=count)},
        witnesses,
        on_answer=heard or Heard(),
        deadline_s=deadline_s,
    )


def disputes(w: World) -> list[tuple[str, int | None]]:
    return [(event["why"], event.get("known")) for event in w.events("log.disputed")]


async def test_a_head_is_published_with_its_cosignature(w: World) -> None:
    await w.flows.sequence.run()
    heard = Heard()
    publish = witnessed(w, witness := OneWitness(), heard=heard)
    assert await publish.run() == 1
    assert note.open_note(published(w).note, [note.Verifier.parse(witness.vkey())])
    assert await publish.run() == 0
    assert (heard.counted, heard.alarms) == ({"cosigned": 1}, [])


@pytest.mark.parametrize(
    ("answer", "alarms"),
    [
        (WitnessUnavailable("silent"), []),
        (WitnessUnavailable("busy", code="witness_busy"), []),
        (WitnessRefused("witness_bad_request"), ["witness_refuses"]),
        (WitnessRefused("witness_key_unknown"), ["witness_refuses"]),
        (WitnessRefused("witness_origin_unknown"), ["witness_refuses"]),
    ],
    ids=["silent", "busy", "400", "403", "404"],
)
async def test_without_a_quorum_events_are_durable_and_nothing_is_published(
    w: World, answer: Exception, alarms: list[str]
) -> None:
    await w.flows.sequence.run()
    heard = Heard()
    publish = witnessed(w, OneWitness(answer, answer, answer), heard=heard)
    for _ in range(3):
        with pytest.raises(AuditUnavailable) as refused:
            await publish.run()
        assert refused.value.detail == "quorum_not_met"
    assert w.records.all(Checkpoint) == []
    await w.know("carl")  # goes on
    await w.flows.sequence.run()
    assert await publish.run() == 1
    assert published(w).size == heads(w)[ORIGIN].size
    assert (sum(heard.counted.values()), heard.alarms) == (4, alarms)
    assert disputes(w) == []


async def test_a_witness_that_knows_an_older_size_is_asked_from_there(w: World) -> None:
    await w.flows.sequence.run()
    asked = OneWitness(WitnessConflict(1))
    asked.known[ORIGIN] = first(w)
    assert await witnessed(w, asked).run() == 1
    assert asked.asked == [0, 1]


def first(w: World) -> Head:
    """Return the log when it had one leaf."""
    return Head(ORIGIN, 1, sorted_leaves(w)[0].leaf_hash)


async def test_a_witness_that_was_moved_by_another_process_is_asked_again_later(w: World) -> None:
    await w.flows.sequence.run()
    heard = Heard()
    asked = OneWitness(WitnessConflict(1), WitnessConflict(2))
    publish = witnessed(w, asked, heard=heard)
    with pytest.raises(AuditUnavailable):
        await publish.run()
    assert (heard.counted, heard.alarms) == ({"witness_moved": 1}, [])
    assert await publish.run() == 1


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (WitnessConflict(10_000), ("ahead", 10_000)),
        (WitnessConflict(1 << 60), ("ahead", None)),  # no size of a log of ours
        (WitnessConflict(0), ("root", 0)),
    ],
    ids=["ahead", "far ahead", "same size"],
)
async def test_a_witness_that_knows_another_log_stops_publication_and_the_log_says_so_once(
    w: World, answer: WitnessConflict, why: tuple[str, int | None]
) -> None:
    """A fork, or a database that was restored; whatever the other witnesses say."""
    await w.flows.sequence.run()
    heard = Heard()
    asked, other = OneWitness(*[answer] * 3), FakeWitness("witness.example/w2", seed=bytes(32))
    publish = witnessed(w, asked, other, heard=heard)
    for _ in range(3):
        with pytest.raises(AuditUnavailable) as refused:
            await publish.run()
        assert refused.value.detail == "log_forked"
        await w.flows.sequence.run()
    assert w.records.all(Checkpoint) == []
    assert heard.alarms == ["log_forked"]
    assert disputes(w) == [why]
    (said,) = w.events("log.disputed")
    assert said["wit"] == [note.Verifier.parse(asked.vkey()).key_id.hex()]


async def test_a_witness_that_refuses_our_past_disputes_the_log_and_others_may_make_the_quorum(
    w: World,
) -> None:
    """422: the proof does not lead from the root that it knows."""
    await w.flows.sequence.run()
    heard = Heard()
    doubter, other = FakeWitness(), FakeWitness("witness.example/w2", seed=bytes(32))
    doubter.known[ORIGIN] = Head(ORIGIN, 1, bytes(32))
    publish = witnessed(w, doubter, other, heard=heard)
    assert await publish.run() == 1
    assert (heard.alarms, disputes(w)) == (["log_forked"], [("proof", 1)])
    await w.flows.sequence.run()
    assert await publish.run() == 1
    assert (heard.alarms, len(disputes(w))) == (["log_forked"], 1)


async def test_a_lying_witness_is_told_and_costs_the_others_nothing(w: World) -> None:
    """Its line is over another root: whoever takes it makes a note that nobody opens."""
    await w.flows.sequence.run()
    heard = Heard()
    liar, other = FakeWitness(), FakeWitness("witness.example/w2", seed=bytes(32))
    liar.faults.lies = True
    publish = witnessed(w, liar, other, heard=heard)
    assert await publish.run() == 1
    _, signed = note.open_note(published(w).note, [note.Verifier.parse(one.vkey()) for one in (liar, other)])
    assert [key.name for key in signed] == ["witness.example/w2"]
    assert (heard.alarms, disputes(w)) == (["witness_lied"], [("lied", None)])


async def test_a_witness_that_lies_again_after_it_was_honest_is_told_again(w: World) -> None:
    heard = Heard()
    liar, other = FakeWitness(), FakeWitness("witness.example/w2", seed=bytes(32))
    publish = witnessed(w, liar, other, heard=heard)
    for number, lies in enumerate((True, False, True)):
        liar.faults.lies = lies
        await w.know(f"s{number}")
        await w.flows.sequence.run()
        assert await publish.run() == 1
    assert heard.alarms == ["witness_lied"] * 2


async def test_a_dispute_that_could_not_be_kept_is_written_by_the_next_run(w: World) -> None:
    await w.flows.sequence.run()
    heard = Heard()
    asked = OneWitness(*[WitnessConflict(10_000)] * 2)
    publish = replace(witnessed(w, asked, heard=heard), records=around(w.outside, w.trip).records)
    w.trip.lose(4, "before")  # what stands, what it saw, the proof, whether it is beyond; then the event
    with pytest.raises(StoreUnavailable):
        await publish.run()
    assert (disputes(w), heard.alarms) == ([], [])
    with pytest.raises(AuditUnavailable):
        await publish.run()
    assert (disputes(w), heard.alarms) == ([("ahead", 10_000)], ["log_forked"])


async def test_a_hung_witness_costs_one_deadline_and_no_log_waits_for_it_twice(w: World) -> None:
    await w.flows.sequence.run()
    heard = Heard()
    hung, other = FakeWitness(), FakeWitness("witness.example/w2", seed=bytes(32))
    hung.faults.hang()
    publish = witnessed(w, hung, other, heard=heard, deadline_s=0.05)
    for origin in w.signers:
        publish.policies[origin] = publish.policies[ORIGIN]  # type: ignore[index]
    assert await asyncio.wait_for(publish.run(), 5) == len(w.signers)
    assert heard.counted == {"witness_timeout": 1, "cosigned": len(w.signers)}
    assert (heard.alarms, disputes(w)) == ([], [])
    hung.faults.release()


# --- files ----------------------------------------------------------------------------------


async def test_the_published_folder_is_a_log_that_checks_out_at_every_size(w: World, tmp_path: Path) -> None:
    publish = Publish(w.records, w.clock, w.flows.ledger, w.flows.publish.policies, (), LogFolder(tmp_path))
    for number in range(40):
        await w.know(f"s{number}")
        if number % 7 == 0:
            await w.flows.sequence.run()
            await publish.run()
            report = fsck.fsck(fsck.folder_reader(tmp_path / ORIGIN), own(w), deep=True)
            assert (report.verdict, report.fault) == ("valid", "")
            assert report.size == published(w).size
    assert await publish.run() == 0


async def test_a_published_file_that_would_change_is_refused(w: World, tmp_path: Path) -> None:
    await w.flows.sequence.run()
    publish = Publish(w.records, w.clock, w.flows.ledger, w.flows.publish.policies, (), LogFolder(tmp_path))
    await publish.run()
    (tmp_path / ORIGIN / "checkpoint").unlink()
    bundle = next((tmp_path / ORIGIN / "tile" / "entries").rglob("*.p/*"))
    bundle.write_bytes(bundle.read_bytes()[::-1])
    with pytest.raises(AuditUnavailable) as refused:
        await publish.run()
    assert refused.value.detail == "log_changed"


async def test_events_are_listed_by_type_and_time(w: World) -> None:
    await w.flows.sequence.run()
    w.clock.advance(timedelta(minutes=5))
    start = w.clock.now()
    await w.publish("train")
    w.clock.advance(timedelta(minutes=5))
    end = w.clock.now()
    await w.publish("analytics")
    await w.flows.sequence.run()

    async def listed(**chosen: datetime) -> list[str]:
        page = await w.flows.audit.events(OFFICER, "notice.published", 10, "", **chosen)
        return [leaf.event_id for leaf in page.items]

    ids = [leaf["id"] for leaf in w.events("notice.published")]
    assert await listed(since=start, until=end) == ids[-2:-1]
    assert await listed(since=start) == ids[-2:]
    assert await listed(until=start) == ids[:-2]
    assert await listed(since=end, until=end) == []


async def test_a_page_of_other_times_is_another_page(w: World) -> None:
    await w.flows.sequence.run()
    page = await w.flows.audit.events(OFFICER, "", 1, "")
    assert page.next_token
    with pytest.raises(MessageInvalid):
        await w.flows.audit.events(OFFICER, "", 1, page.next_token, since=w.clock.now())


async def test_an_event_is_decided_on_again_when_the_picture_is_sent(w: World) -> None:
    job = await w.portrait("ann")
    accepted, sent = w.events("decision.made")
    assert {accepted["job"], sent["job"]} == {job.job_id}
    assert (sent["dec"], sent["base"]) == ("allow", accepted["base"])


# --- payloads -------------------------------------------------------------------------------


async def payloads(w: World, subject: str) -> list[SealedPayload]:
    handle = await w.handle(subject)
    return [row for row in w.records.all(SealedPayload) if row.handle == handle]


async def test_a_decision_fixes_its_facts_and_the_subjects_key_opens_them(w: World) -> None:
    await w.upload("ann")
    (decided,) = w.events("decision.made")
    row = next(row for row in await payloads(w, "ann") if row.event_id == decided["id"])
    key = await w.flows.upload.people.payload_key(TENANT, await w.handle("ann"))
    _, payload = key.open(ORIGIN, decided["seals"][0], row.blob)
    assert json.loads(payload)["subject"]["residence"] == "DE"
    assert decided["seals"][0][0] == key.token(bytes.fromhex(decided["n"]))


async def test_a_person_is_named_in_the_log_by_a_payload_alone(w: World) -> None:
    key = await w.flows.upload.people.staff_key(OFFICER)
    w.flows.ledger.know(OFFICER, key)
    await w.publish("generate")
    leaf = w.events("notice.published")[-1]
    assert leaf["act"] == f"tok:{leaf['seals'][0][0]}"
    row = next(row for row in w.records.all(SealedPayload) if row.event_id == leaf["id"])
    _, payload = key.open(ORIGIN, leaf["seals"][0], row.blob)
    assert json.loads(payload) == {"actor": "officer", "role": "privacy_officer"}


async def test_an_erasure_takes_the_payloads_and_says_how_many(w: World) -> None:
    await w.portrait("ann")
    mine, others = await payloads(w, "ann"), await payloads(w, "bob")
    assert mine
    await w.erase("ann")
    (said,) = w.events("payload.erased")
    gone = {(row.event_id, row.slot): row for row in w.records.all(SealedPayload)}
    # The request itself came after: it is gone, too.
    assert said["nseal"] == len(mine) + 1
    for row in mine:
        left = gone[row.event_id, row.slot]
        assert (left.blob, left.handle, left.erased_by) == (b"", None, said["id"])
    assert others == await payloads(w, "bob")
    assert not [key for key in w.records.all(SubjectKey) if key.cls == "audit" and key.handle is None]


async def test_payloads_end_with_their_month_and_the_log_says_so(w: World) -> None:
    """GDPR Art. 5(1)(e)."""
    held = [row for row in w.records.all(SealedPayload) if row.log == ORIGIN]
    assert held
    (month,) = {row.month for row in held}
    w.clock.advance(w.flows.upload.people.payload_term)
    await w.flows.sweep.run()
    assert w.events("payload.expired") == []  # the month has not ended
    w.clock.advance(timedelta(days=31))
    await w.flows.sweep.run()
    (said,) = w.events("payload.expired")
    assert (said["month"], said["nseal"]) == (month, len(held))
    assert {row.blob for row in w.records.all(SealedPayload) if row.month == month} == {b""}
    assert not [key for key in w.records.all(SubjectKey) if key.cls == "audit" and key.month == month]
    assert not [epoch for epoch in w.keys.live if epoch.cls == "audit" and epoch.month == month]
    await w.flows.sweep.run()
    assert len(w.events("payload.expired")) == 1


async def test_no_payload_is_written_for_who_is_being_erased(w: World) -> None:
    """The fence and the commit race: whoever holds a key from before must not write under it."""
    key = await w.flows.upload.people.payload_key(TENANT, await w.handle("ann"))
    await w.erase("ann")
    with pytest.raises(SubjectBlocked):
        await w.records.transact(
            lambda tx: w.flows.ledger.record(
                tx, TENANT, "signal.recorded", APP, sealed=((key, {"x": 1}),), sig=[]
            )
        )
    with pytest.raises(SubjectBlocked):
        await w.flows.upload.people.payload_key(TENANT, await w.handle("ann"))


async def test_leaves_share_only_what_names_the_same_thing(w: World) -> None:
    """No eight bytes are common to two leaves unless they name an object, a consent, a request or so."""
    await w.portrait("ann")
    await w.portrait("bob")
    await w.erase("ann")
    things = {"obj", "con", "job", "dsr", "bak", "ctr", "ntc", "pol", "dig", "cert"}
    seen: Counter[str] = Counter()
    for leaf in (json.loads(row.line) for row in w.records.all(Leaf)):
        hexes = {leaf["id"], leaf["n"], leaf["act"].removeprefix("tok:")} - {"sys:lethe", "svc:app"}
        hexes |= {value for entry in leaf["seals"] for value in (entry[0], entry[2])}
        hexes |= {value for name, value in leaf.items() if name == "opn"}
        assert {name for name, value in leaf.items() if isinstance(value, str) and len(value) >= 32} <= (
            things | {"id", "n", "act", "opn"}
        )
        seen.update(
            chunk for value in hexes for chunk in {value[at : at + 16] for at in range(len(value) - 15)}
        )
    assert [chunk for chunk, times in seen.items() if times > 1] == []


async def test_every_proof_ever_made_still_verifies_after_an_erasure(w: World) -> None:
    await w.portrait("ann")
    await w.log()
    proofs = [
        (await w.flows.audit.inclusion(OFFICER, index=index)).tlog_proof for index in range(published(w).size)
    ]
    before = published(w)
    await w.erase("ann")
    await w.log()
    for text in proofs:
        verify(text, own(w), None)
    assert parse(note.parse(before.note)[0]).root == before.root
    links = await w.flows.audit.consistency(OFFICER, before.size, published(w).size)
    now = published(w)
    verify_consistency(
        first=before.size, second=now.size, first_root=before.root, second_root=now.root, proof=links
    )
