"""The sequencer's crash behaviour as a machine: whatever is lost, and whoever else runs, the log never forks.

The specification, as invariants over all heads that were ever locked or published:
    (1) One root for one size, and each head a past of every later one (R2, R12).
    (2) Places are 0, 1, 2 ... without a hole, and no leaf ever changes its place (R3).
    (3) Nothing is locked or published whose leaves are not durable (R1).
    (4) After a run in which nothing failed, everything that was durable is published.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from audit import note, tree
from audit.checkpoint import Checkpoint as Head
from audit.checkpoint import parse
from gateway.errors import AuditUnavailable, LetheError
from gateway.ports.records import Checkpoint, Leaf
from tests.sample import examples
from tests.world import ORIGIN, TENANT, World

FAULTS = st.sampled_from(["", "lost", "lost_reply"])


class Sequencer(RuleBasedStateMachine):
    """Two processes over one database and one lock, each step of which may be lost or lose its reply."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.w = World()
        self.processes = [self.w.flows, self.w.process()]
        self.places: dict[str, int] = {}
        self.heads: dict[int, bytes] = {}
        self.backup: dict[Any, Any] | None = None

    def teardown(self) -> None:
        self.loop.close()

    @rule(number=st.integers(1, 5))
    def happen(self, number: int) -> None:
        """Events become durable with their changes."""

        def write(tx: Any) -> None:
            for _ in range(number):
                self.w.flows.ledger.record(tx, TENANT, "signal.recorded", None, sig=["gpc"])

        self.loop.run_until_complete(self.w.records.transact(write))

    @rule(who=st.integers(0, 1), database=FAULTS, after=st.integers(0, 3), lock=FAULTS)
    def run(self, who: int, database: str, after: int, lock: str) -> None:
        """One process sequences and publishes; a commit or a swap may be lost, or its reply."""
        if database:
            self.w.records.fail_next(database, after=after)  # type: ignore[arg-type]  # one of the two
        if lock:
            getattr(self.w.lock.faults, {"lost": "lose", "lost_reply": "lose_reply"}[lock])("swap")
        with contextlib.suppress(LetheError):
            self.loop.run_until_complete(self.log(who))
        self.w.records._faults.clear()
        self.w.lock.faults.lost.clear()
        self.w.lock.faults.lost_replies.clear()

    @rule(lock=FAULTS)
    def run_both(self, lock: str) -> None:
        """Both run at once."""
        if lock:
            getattr(self.w.lock.faults, {"lost": "lose", "lost_reply": "lose_reply"}[lock])("swap")

        async def both() -> None:
            await asyncio.gather(self.log(0), self.log(1), return_exceptions=True)

        self.loop.run_until_complete(both())
        self.w.lock.faults.lost.clear()
        self.w.lock.faults.lost_replies.clear()

    @rule()
    def rest(self) -> None:
        """(4)."""
        self.loop.run_until_complete(self.log(0))
        published = max(row.size for row in self.w.records.all(Checkpoint) if row.log == ORIGIN)
        assert published == len(self.leaves())

    @rule()
    def back_up(self) -> None:
        self.backup = dict(self.w.records._tables)

    @precondition(lambda self: self.backup is not None)
    @rule()
    def restore(self) -> None:
        """A backup of the database alone: if the lock holds more, nothing is signed until it is undone."""
        present, self.w.records._tables = self.w.records._tables, self.backup
        before = dict(self.w.lock.notes)
        locked = self.locked()
        if locked is not None and locked.size > len(self.placed()):
            self.happen(1)
            with pytest.raises(AuditUnavailable, match="records"):
                self.loop.run_until_complete(self.log(0))
            assert before == self.w.lock.notes
        self.w.records._tables = present

    async def log(self, who: int) -> None:
        await self.processes[who].sequence.run()
        await self.processes[who].publish.run()

    def leaves(self) -> list[Leaf]:
        return [leaf for leaf in self.w.records.all(Leaf) if leaf.log == ORIGIN]

    def placed(self) -> list[Leaf]:
        return sorted(
            (leaf for leaf in self.leaves() if leaf.seq is not None), key=lambda leaf: leaf.seq or 0
        )

    def locked(self) -> Head | None:
        text = self.w.lock.notes.get(ORIGIN)
        return parse(note.parse(text)[0]) if text else None

    @invariant()
    def places_stand(self) -> None:
        """(2)."""
        found = self.placed()
        assert [leaf.seq for leaf in found] == list(range(len(found)))
        for leaf in found:
            assert self.places.setdefault(leaf.event_id, leaf.seq or 0) == leaf.seq

    @invariant()
    def heads_agree(self) -> None:
        """(1), (3)."""
        hashes = [leaf.leaf_hash for leaf in self.placed()]
        shown = [
            parse(note.parse(row.note)[0]) for row in self.w.records.all(Checkpoint) if row.log == ORIGIN
        ]
        for head in [*shown, *filter(None, [self.locked()])]:
            assert head.size <= len(hashes)
            self.heads.setdefault(head.size, head.root)
        for size, root in self.heads.items():
            assert tree.root_of_leaves(hashes[:size]) == root


TestSequencer = Sequencer.TestCase
TestSequencer.settings = settings(
    max_examples=examples(80),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
