"""A log's keys change at one size, once, whatever is lost and whoever else runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import note
from audit.checkpoint import open_checkpoint, parse, sign
from audit.errors import KeyRefused
from audit.keys import KeyBook
from audit.note import Signer
from audit.proof import verify
from audit.quorum import Policy
from audit.trust import read_trust
from audit.verify import verify_export
from gateway import compose
from gateway.errors import AuditUnavailable, LetheError, NotFound, StateConflict
from gateway.flows.audit import Wish
from gateway.flows.publish import Publish
from gateway.flows.revoke import Revoke
from gateway.ports.records import Checkpoint, Leaf, LogHead, LogKeys, Transaction
from gateway.settings import ConfigInvalid
from tests.doors import When, around
from tests.fakes.witness import FakeWitness
from tests.sample import examples
from tests.world import OFFICER, ORIGIN, World

OTHER = "lethe.test/0b"


@pytest.fixture
async def w() -> World:
    world = World()
    await world.ready("ann")
    await world.log()
    return world


def book(w: World, origin: str = ORIGIN) -> KeyBook:
    return KeyBook.parse(next(row.text for row in w.records.all(LogKeys) if row.log == origin))


def published(w: World) -> Checkpoint:
    return max((row for row in w.records.all(Checkpoint) if row.log == ORIGIN), key=lambda row: row.size)


def head(w: World, origin: str = ORIGIN) -> LogHead:
    return next(row for row in w.records.all(LogHead) if row.log == origin)


def keys(w: World, of: str = "signers") -> list[note.Verifier]:
    return [signer.verifier for signer in getattr(w, of)[ORIGIN]]


async def refused(flows: compose.Flows) -> str:
    with pytest.raises(AuditUnavailable) as refusal:
        await flows.sequence.run()
    return refusal.value.detail


def mend(w: World) -> None:
    w.records._faults.clear()
    w.lock.faults.lost.clear()
    w.lock.faults.lost_replies.clear()


# --- the book -------------------------------------------------------------------------------


async def test_the_first_run_makes_the_book_of_the_configured_keys(w: World) -> None:
    assert book(w) == KeyBook.of(keys(w))
    assert book(w, OTHER) == KeyBook.of(signer.verifier for signer in w.signers[OTHER])
    before = w.records.all(LogKeys)
    await w.process().sequence.run()
    assert before == w.records.all(LogKeys)


async def test_a_log_from_before_there_were_books_gets_one_of_the_keys_that_signed_it(w: World) -> None:
    """Also where the first start with a book is a rotation."""
    await w.records.transact(lambda tx: tx.remove(*tx.find(LogKeys)))
    old = keys(w)
    w.rekey(7)
    await w.log()
    size = head(w).size
    assert book(w) == KeyBook.of(old).rotated(keys(w), size)


async def test_a_log_that_others_signed_gets_no_book(w: World) -> None:
    await w.records.transact(lambda tx: tx.remove(*tx.find(LogKeys)))
    w.rekey(7)
    w.rekey(8)
    assert await refused(w.flows) == "log_changed"
    assert w.records.all(LogKeys) == []


async def test_a_new_log_begins_with_the_new_keys_and_hands_nothing_over() -> None:
    w = World()
    w.rekey(7)
    await w.log()
    assert book(w) == KeyBook.of(keys(w))
    assert w.events("log.rekeyed") == []


# --- the rotation ---------------------------------------------------------------------------


async def test_a_rotation_ends_the_old_keys_where_both_sign_and_the_log_says_so(w: World) -> None:
    before = head(w)
    w.rekey(7)
    await w.log()
    size = head(w).size
    assert size == before.size + 1
    assert book(w) == KeyBook.of(keys(w, "retiring")).rotated(keys(w), size)
    assert book(w).check_handover(published(w).note).size == size
    (said,) = [
        json.loads(row.line) for row in w.records.all(Leaf) if (row.log, row.seq) == (ORIGIN, size - 1)
    ]
    assert said["ty"] == "log.rekeyed"
    assert said["old"] == [key.key_id.hex() for key in keys(w, "retiring")]
    assert said["new"] == [key.key_id.hex() for key in keys(w)]
    # The other log, in which nothing ever happened, too.
    assert book(w, OTHER).check_handover(w.lock.notes[OTHER]).size == head(w, OTHER).size == 1


async def test_after_it_the_new_keys_sign_alone_and_the_old_ones_may_be_taken_away(w: World) -> None:
    w.rekey(7)
    await w.log()
    w.retiring = {}
    w.flows = w.process()
    await w.log()
    await w.know("bob")
    await w.log()
    assert open_checkpoint(published(w).note, book(w)).size == head(w).size
    assert len(note.parse(published(w).note)[1]) == len(keys(w))
    assert len([row for row in w.records.all(Leaf) if row.ty == "log.rekeyed"]) == len(w.signers)


async def test_all_that_waits_gets_its_place_before_the_keys_change(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.flows.sequence.BATCH", 3)
    for number in range(7):
        await w.know(f"s{number}")
    waiting = [row for row in w.records.all(Leaf) if row.seq is None]
    w.rekey(7)
    await w.log()
    assert len(waiting) > 6
    assert published(w).size == head(w).size == next(key.first for key in book(w).keys if key.first)
    (place,) = [row.seq for row in w.records.all(Leaf) if (row.ty, row.log) == ("log.rekeyed", ORIGIN)]
    assert place == head(w).size - 1


async def test_keys_change_again_and_again_and_every_proof_still_verifies(w: World) -> None:
    proofs = []
    for number in (7, 8, 9):
        w.rekey(number)
        await w.log()
        await w.know(f"s{number}")
        await w.log()
        proofs += [(await w.flows.audit.inclusion(OFFICER, index=index)).tlog_proof for index in range(4)]
    for text in proofs:
        verify(text, read_trust(book(w).text()), None)
    assert len(book(w).keys) == 1 + 3 * 2


# --- who signs ------------------------------------------------------------------------------


async def test_a_process_with_the_old_keys_signs_nothing_more_and_loses_no_event(w: World) -> None:
    old = w.flows
    w.rekey(7)
    await w.log()
    before = dict(w.lock.notes)
    new, w.flows = w.flows, old
    await w.know("bob")
    assert await refused(old) == "log_key_retired"
    assert before == w.lock.notes
    with pytest.raises(AuditUnavailable) as refusal:
        await old.audit.export(OFFICER, Wish())
    assert refusal.value.detail == "log_key_retired"
    w.flows = new
    await w.log()
    assert {row.seq for row in w.records.all(Leaf) if row.log == ORIGIN} == set(range(published(w).size))


async def test_a_process_that_was_about_to_sign_with_the_old_keys_looks_again(w: World) -> None:
    """The rotation happens between its look at the book and its swap."""
    old = w.flows
    await w.know("bob")
    load = w.lock.load

    w.rekey(7)
    new = w.flows
    swap = w.lock.swap

    async def later(origin: str, before: str | None, after: str) -> bool:
        w.lock.swap = swap  # type: ignore[method-assign]  # once
        await new.sequence.run()
        return await swap(origin, before, after)

    w.lock.swap = later  # type: ignore[method-assign]
    assert await refused(old) == "log_key_retired"
    assert book(w).check_handover(await load(ORIGIN) or "").size == head(w).size
    await w.log()
    assert open_checkpoint(published(w).note, book(w)).size == head(w).size


@pytest.mark.parametrize(
    ("configure", "detail"),
    [
        (lambda w: w.retiring.clear(), "log_key_unknown"),
        (lambda w: w.retiring.update({ORIGIN: (Signer(ORIGIN, bytes([9]) * 32),)}), "log_key_unknown"),
        (lambda w: w.signers.update({ORIGIN: (*w.retiring[ORIGIN], *w.signers[ORIGIN])}), "log_key_unknown"),
    ],
    ids=["nothing retires", "others retire", "one stays"],
)
async def test_keys_that_the_log_does_not_know_sign_nothing(
    w: World, configure: Callable[[World], Any], detail: str
) -> None:
    w.rekey(7)
    configure(w)
    flows = w.process()
    before = dict(w.lock.notes), w.records.all(LogKeys), w.count(Leaf)
    assert await refused(flows) == detail
    with pytest.raises(ConfigInvalid, match=detail):
        await compose.refuse_rollback(flows)
    assert before == (dict(w.lock.notes), w.records.all(LogKeys), w.count(Leaf))


async def test_a_key_of_the_log_that_is_not_configured_is_missed(w: World) -> None:
    w.rekey(7)
    await w.log()
    w.signers = {origin: signers[:1] for origin, signers in w.signers.items()}
    assert await refused(w.process()) == "log_key_missing"


async def test_a_handover_that_nobody_signed_yet_needs_the_old_keys(w: World) -> None:
    w.rekey(7)
    w.lock.faults.lose("swap")
    assert await refused(w.flows) != "log_key_missing"
    retiring, w.retiring = w.retiring, {}
    await w.know("bob")
    assert await refused(w.process()) == "log_key_missing"
    with pytest.raises(ConfigInvalid, match="log_key_missing"):
        await compose.refuse_rollback(w.process())
    w.retiring = retiring
    w.flows = w.process()
    await w.log()
    assert published(w).size == head(w).size  # and what waited is sequenced, too
    handover = next(key.first for key in book(w).keys if key.first)
    assert published(w).size > handover


async def test_a_book_that_fell_back_is_noticed(w: World) -> None:
    """Who can write the database takes the rotation back: the lock holds heads by keys that are not in it."""
    backup = w.records.all(LogKeys)
    old = w.flows
    w.rekey(7)
    await w.log()
    await w.records.transact(lambda tx: tx.put(*backup))
    assert await refused(old) == await refused(w.flows) == "log_changed"


# --- revoked keys ---------------------------------------------------------------------------


async def revoke(w: World, key: note.Verifier, size: int) -> None:
    def write(tx: Transaction) -> None:
        (row,) = tx.find(LogKeys, equal={"log": ORIGIN})
        tx.put(replace(row, text=book(w).revoked(key, size).text()))

    await w.records.transact(write)


async def test_a_revoked_key_signs_nothing_more(w: World) -> None:
    before = dict(w.lock.notes)
    await revoke(w, keys(w)[0], head(w).size)
    await w.know("bob")
    assert await refused(w.flows) == "log_key_retired"
    assert before == w.lock.notes
    with pytest.raises(AuditUnavailable):
        await w.flows.audit.export(OFFICER, Wish())


async def test_what_stands_beside_a_revoked_key_hands_over(w: World) -> None:
    w.rekey(7)
    await w.log()
    ed25519, mldsa = w.signers[ORIGIN]
    await revoke(w, ed25519.verifier, head(w).size)
    w.rekey(8)
    w.retiring = {**w.retiring, ORIGIN: (mldsa,)}
    w.flows = w.process()
    await w.log()
    assert book(w).check_handover(published(w).note).size == head(w).size
    with pytest.raises(KeyRefused):
        book(w).open(sign(ORIGIN, head(w).size, head(w).root, ed25519))


async def test_a_checkpoint_that_a_revoked_key_signed_is_neither_published_nor_exported(w: World) -> None:
    w.rekey(7)
    await w.log()
    before = published(w)
    await w.flows.audit.export(OFFICER, Wish())
    await w.flows.sequence.run()
    await revoke(w, keys(w)[0], before.size)
    with pytest.raises(AuditUnavailable) as refusal:
        await w.flows.publish.run()
    assert refusal.value.detail == "key_revoked"
    assert before.size == published(w).size
    mldsa = {**w.signers, ORIGIN: w.signers[ORIGIN][:0:-1]}
    ed25519 = Signer(ORIGIN, bytes([8]) * 32)
    w.retiring, w.signers = mldsa, {**w.signers, ORIGIN: (ed25519,)}
    w.flows = w.process()
    await w.log()
    with pytest.raises(StateConflict) as conflict:
        await w.flows.audit.export(OFFICER, Wish(size=before.size))
    assert conflict.value.detail == "key_revoked"
    assert verify_export(await w.flows.audit.export(OFFICER, Wish()), book(w).text()).verdict == "valid"


# --- the command that revokes ---------------------------------------------------------------


async def rotated_twice() -> World:
    """Return a world in which the seeds of both logs were the same, and were rotated away since."""
    w = World()
    w.rekey(7)
    await w.ready("ann")
    await w.log()
    w.rekey(8)
    w.clock.advance(timedelta(hours=1))
    await w.log()
    await w.know("bob")
    await w.log()
    return w


def ids(*verifiers: note.Verifier) -> list[str]:
    return [key.key_id.hex() for key in verifiers]


def ended(w: World, origin: str = ORIGIN) -> list[tuple[int | None, int | None]]:
    return [(key.last, key.revoked) for key in book(w, origin).keys if key.last is not None]


async def test_a_stolen_key_is_believed_below_the_size_only_and_the_log_says_so() -> None:
    w = await rotated_twice()
    ed25519, mldsa = w.retiring[ORIGIN]
    turned, seen = next(key.first for key in book(w).keys if key.first), head(w)
    at = turned - 1
    done = await Revoke(w.records, w.flows.ledger).run(ids(ed25519.verifier), at, "KEY_STOLEN")
    assert [(one.origin, one.keys, one.size) for one in done] == [(ORIGIN, tuple(ids(ed25519.verifier)), at)]
    assert ended(w) == [(turned, at), (turned, None)]
    assert ended(w, OTHER) == [(1, None)] * 2
    (said,) = w.events("log.keyrevoked")
    assert (said["key"], said["from"], said["rc"]) == (ids(ed25519.verifier), at, "KEY_STOLEN")
    forged = sign(ORIGIN, at, bytes(32), (ed25519, mldsa))
    with pytest.raises(KeyRefused, match="key_revoked"):
        book(w).open(forged)
    assert book(w).open(sign(ORIGIN, at - 1, bytes(32), (ed25519, mldsa))).size == at - 1
    assert book(w).open(seen.note).size == seen.size
    await w.log()
    assert published(w).size == seen.size + 1
    assert verify_export(await w.flows.audit.export(OFFICER, Wish()), book(w).text()).verdict == "valid"


async def test_exports_made_before_verify_by_the_new_file_below_the_size_and_not_from_there_on() -> None:
    w = World()
    w.rekey(7)
    await w.ready("ann")
    await w.log()
    early = await w.flows.audit.export(OFFICER, Wish())
    await w.log()
    late = await w.flows.audit.export(OFFICER, Wish())
    at = published(w).size
    w.rekey(8)
    await w.log()
    before = book(w).text()
    await Revoke(w.records, w.flows.ledger).run(ids(*keys(w, "retiring")), at, "KEY_STOLEN")
    assert [verify_export(one, before).verdict for one in (early, late)] == ["valid", "valid"]
    found = [verify_export(one, book(w).text()) for one in (early, late)]
    assert [one.verdict for one in found] == ["valid", "invalid"]
    assert found[1].fault.startswith("key_revoked")


async def test_an_instant_is_a_size_in_each_log_whose_keys_had_the_seed() -> None:
    w = World()
    w.rekey(7)
    await w.ready("ann")
    await w.log()
    at = head(w).size
    w.clock.advance(timedelta(hours=1))
    stolen_at = w.clock.now()
    await w.know("bob")
    await w.log()
    w.rekey(8)
    await w.log()
    (key, _) = keys(w, "retiring")
    done = await Revoke(w.records, w.flows.ledger).run(ids(key), stolen_at, "KEY_STOLEN")
    # What has the first leaf of that instant is signed then or later, what has not may be older.
    assert {one.origin: one.size for one in done} == {ORIGIN: at + 1, OTHER: 1}
    assert len(w.events("log.keyrevoked")) == 2


async def test_a_rehearsal_counts_what_would_verify_no_more_and_changes_nothing() -> None:
    w = World()
    w.rekey(7)
    await w.ready("ann")
    await w.log()
    for _ in range(2):
        await w.flows.audit.export(OFFICER, Wish())  # keeps its checkpoint
        await w.log()
    w.rekey(8)
    await w.log()
    before = w.records.all(LogKeys), w.count(Leaf)
    (done,) = await Revoke(w.records, w.flows.ledger).run(
        ids(*keys(w, "retiring")), 2, "KEY_STOLEN", rehearse=True
    )
    assert done.checkpoints == len([row for row in w.records.all(Checkpoint) if row.log == ORIGIN]) == 3
    assert before == (w.records.all(LogKeys), w.count(Leaf))


async def test_what_cannot_be_revoked_is_refused_and_changes_nothing() -> None:
    w = await rotated_twice()
    revoke = Revoke(w.records, w.flows.ledger)
    turned = next(key.first for key in book(w).keys if key.first)
    old, new = ids(keys(w, "retiring")[0]), ids(keys(w)[0])
    await revoke.run(old, turned - 2, "KEY_STOLEN")
    before = w.records.all(LogKeys), w.count(Leaf)
    for key_ids, since, detail in (
        (new, 1, "log_key_standing"),
        ([*old, *new], 1, "log_key_standing"),
        (old, turned - 2, "log_key_retired"),  # revoked there
        (old, turned - 1, "log_key_retired"),  # would be believed more
        (ids(keys(w, "retiring")[1]), turned + 1, "log_key_retired"),
    ):
        with pytest.raises(StateConflict) as refusal:
            await revoke.run(key_ids, since, "KEY_STOLEN")
        assert refusal.value.detail == detail
    with pytest.raises(NotFound):
        await revoke.run(["00000000", *old], 1, "KEY_STOLEN")
    assert before == (w.records.all(LogKeys), w.count(Leaf))
    (done,) = await revoke.run(old, 1, "KEY_STOLEN")  # less belief, always
    assert (done.size, ended(w)[0]) == (1, (turned, 1))


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_revocation_that_is_cut_is_done_and_said_or_neither(when: When) -> None:
    w = await rotated_twice()
    old = ids(keys(w, "retiring")[0])
    w.trip.lose(0, when)
    revoke = Revoke(around(w.outside, w.trip).records, w.flows.ledger)
    with pytest.raises(LetheError):
        await revoke.run(old, 2, "KEY_STOLEN")
    is_done = when == "after"
    assert [is_done, is_done] == [ended(w)[0][1] == 2, len(w.events("log.keyrevoked")) == 1]


async def test_a_key_that_is_revoked_before_the_rotations_head_is_signed_does_not_sign_it() -> None:
    w = World()
    w.rekey(7)
    await w.ready("ann")
    await w.log()
    w.rekey(8)
    w.lock.faults.lose("swap")
    await refused(w.flows)
    await Revoke(w.records, w.flows.ledger).run(ids(*keys(w, "retiring")), 1, "KEY_STOLEN")
    await w.log()
    assert open_checkpoint(published(w).note, book(w)).size == head(w).size
    first = next(row for row in w.records.all(LogKeys) if row.log == ORIGIN).handover
    assert book(w).open(first).size == next(key.first for key in book(w).keys if key.first)


# --- exports and witnesses ------------------------------------------------------------------


async def test_exports_verify_across_the_rotation_by_whom_they_should(w: World) -> None:
    old = book(w).text()
    first = await w.flows.audit.export(OFFICER, Wish())
    old_size = published(w).size
    w.rekey(7)
    await w.log()
    second = await w.flows.audit.export(OFFICER, Wish(size=old_size))  # an old checkpoint, a new manifest
    third = await w.flows.audit.export(OFFICER, Wish(previous=old_size))
    new = book(w).text()
    assert "\n".join(await w.flows.audit.keys(OFFICER)) + "\n" == new
    assert verify_export(first, old).verdict == verify_export(first, new).verdict == "valid"
    for files in (second, third):
        assert files["keys.txt"].decode() == new
        assert verify_export(files, new, first).fault == ""
        assert verify_export(files, None).verdict == "untrusted"
        assert verify_export(files, old).verdict == "invalid"
    await w.know("bob")
    await w.log()
    last = await w.flows.audit.export(OFFICER, Wish(previous=third_size(third)))
    assert verify_export(last, new, third).fault == ""


def third_size(files: dict[str, bytes]) -> int:
    return int(json.loads(files["manifest.json"])["size"])


async def test_an_erasure_beyond_the_rotation_is_proven_in_the_export_of_an_older_checkpoint(
    w: World,
) -> None:
    await compose.keep_packs(w.flows)
    await w.portrait("ann")
    await w.log()
    size = published(w).size
    await w.flows.audit.export(OFFICER, Wish())
    w.rekey(7)
    await w.erase("ann")
    await w.log()
    files = await w.flows.audit.export(OFFICER, Wish(size=size))
    assert "proofs/later-checkpoint" in files
    assert verify_export(files, book(w).text()).fault == ""


async def test_a_head_that_the_old_key_signs_after_it_is_refused_by_an_auditor(w: World) -> None:
    w.rekey(7)
    await w.log()
    await w.know("bob")
    await w.log()
    forged = sign(ORIGIN, head(w).size, head(w).root, w.retiring[ORIGIN])
    with pytest.raises(KeyRefused, match="key_retired"):
        read_trust(book(w).text()).open(forged)
    open_checkpoint(forged, KeyBook.of(keys(w, "retiring")))  # which is why auditors need the new file


async def test_witnesses_cosign_the_head_at_which_the_keys_change(w: World) -> None:
    witness = FakeWitness()
    asked = Policy.parse(f"witness w {witness.vkey()}\nquorum w\n")
    w.rekey(7)
    await w.flows.sequence.run()
    publish = Publish(w.records, w.clock, w.flows.ledger, {ORIGIN: asked}, (witness,))
    assert await publish.run() == 1
    assert book(w).check_handover(published(w).note) == witness.known[ORIGIN]
    assert read_trust(f"log {w.signers[ORIGIN][0].vkey()}\n{asked.text()}").open(published(w).note).size > 0


async def test_a_witness_that_was_away_during_the_rotation_sees_that_head_first(w: World) -> None:
    """It knows the old keys alone, and would refuse every later head."""
    witness, sizes = FakeWitness(), []
    asked = Policy.parse(f"witness w {witness.vkey()}\nquorum w\n")
    publish = Publish(w.records, w.clock, w.flows.ledger, {ORIGIN: asked}, (witness,))
    w.rekey(7)
    witness.faults.is_down = True
    await w.flows.sequence.run()
    handover = head(w)
    await w.know("bob")
    await w.flows.sequence.run()
    with pytest.raises(AuditUnavailable):
        await publish.run()
    witness.faults.is_down = False
    cosign = witness.add_checkpoint

    async def noting(old: int, proof: Sequence[bytes], text: str) -> tuple[str, ...]:
        sizes.append(parse(note.parse(text)[0]).size)
        return await cosign(old, proof, text)

    witness.add_checkpoint = noting  # type: ignore[method-assign]  # and cosigns
    assert await publish.run() == 1
    assert sizes == [handover.size, head(w).size]
    kept = next(row for row in w.records.all(Checkpoint) if (row.log, row.size) == (ORIGIN, handover.size))
    assert kept.is_kept
    assert book(w).check_handover(kept.note).size == handover.size


async def test_a_handover_by_a_key_that_was_revoked_since_holds_nothing_up(w: World) -> None:
    w.rekey(7)
    await w.flows.sequence.run()
    handover = head(w).size
    await revoke(w, keys(w)[0], handover)
    mldsa, ed25519 = w.signers[ORIGIN][1:], Signer(ORIGIN, bytes([8]) * 32)
    w.retiring, w.signers = {**w.signers, ORIGIN: mldsa}, {**w.signers, ORIGIN: (ed25519,)}
    w.flows = w.process()
    await w.log()
    assert published(w).size == head(w).size > handover


# --- crashes --------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "inside", "after"])
async def test_killed_at_each_step_and_started_again_it_is_one_rotation(when: When) -> None:
    """`at` walks over every call through a door until the rotation has no more of them."""
    for at in range(100):
        w = World()
        await w.ready("ann")
        await w.log()
        old = keys(w)
        await w.know("bob")
        w.rekey(7)
        w.trip.lose(at, when)
        with contextlib.suppress(LetheError):
            await w.log()
        is_over, w.trip.act = len(w.trip.calls) <= at, None
        w.flows = w.process()
        await compose.refuse_rollback(w.flows)
        await w.log()
        size = head(w).size
        assert published(w).size == size == book(w).check_handover(published(w).note).size
        assert book(w) == KeyBook.of(old).rotated(keys(w), size)
        assert [row.seq for row in w.records.all(Leaf) if (row.log, row.ty) == (ORIGIN, "log.rekeyed")] == [
            size - 1
        ]
        if is_over:
            break
    assert at > 5


FAULTS = st.sampled_from(["", "lost", "lost_reply"])


@settings(max_examples=examples(60), deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["new", "old", "both"]), FAULTS, st.integers(0, 5), FAULTS, st.booleans()),
        max_size=6,
    )
)
def test_whatever_is_lost_there_is_one_rotation(steps: list[tuple[str, str, int, str, bool]]) -> None:
    """A process with the old keys runs all the while; each commit and each swap may be lost, or its reply."""

    async def run() -> None:
        w = World()
        await w.ready("ann")
        await w.log()
        old_keys, old = keys(w), w.flows
        w.rekey(7)
        new, signed = w.flows, []

        async def go(flows: compose.Flows) -> None:
            with contextlib.suppress(LetheError):
                await flows.sequence.run()
                await flows.publish.run()
            signed.append(w.lock.notes[ORIGIN])

        for who, database, after, lock, happens in steps:
            if happens:
                w.flows = old
                await w.know(f"s{len(signed)}")
            if database:
                w.records.fail_next(database, after=after)  # type: ignore[arg-type]  # one of the two
            if lock:
                getattr(w.lock.faults, {"lost": "lose", "lost_reply": "lose_reply"}[lock])("swap")
            await asyncio.gather(*(go(flows) for flows in {"new": [new], "old": [old]}.get(who, [old, new])))
            mend(w)
        w.flows = new
        await w.log()
        size = next(key.first for key in book(w).keys if key.first)
        assert book(w) == KeyBook.of(old_keys).rotated(keys(w), size)
        said = [row for row in w.records.all(Leaf) if (row.log, row.ty) == (ORIGIN, "log.rekeyed")]
        assert [row.seq for row in said] == [size - 1]
        assert published(w).size == len([row for row in w.records.all(Leaf) if row.log == ORIGIN])
        # Whatever was ever locked, auditors with the new keys take, and at that size both have signed.
        for text in [*signed, published(w).note]:
            if book(w).open(text).size == size:
                book(w).check_handover(text)

    asyncio.run(run())


async def test_two_processes_with_the_new_keys_rotate_once(w: World) -> None:
    w.rekey(7)
    other = w.process()
    await asyncio.gather(w.flows.sequence.run(), other.sequence.run())
    await w.log()
    assert len([row for row in w.records.all(Leaf) if (row.log, row.ty) == (ORIGIN, "log.rekeyed")]) == 1
    assert book(w).check_handover(published(w).note).size == head(w).size
