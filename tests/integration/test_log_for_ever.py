"""A log across all tile boundaries, a tenth of its subjects erased: all that was published holds."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from audit import checkpoint, fsck, note, tree
from audit.note import Signer
from audit.verify import verify_export
from gateway import compose
from gateway.adapters.keys_local import LocalKeyring
from gateway.adapters.lock_file import FileLock
from gateway.adapters.log_folder import LogFolder
from gateway.adapters.sql.records import open_records
from gateway.adapters.sql.schema import migrate
from gateway.caller import Caller, Role
from gateway.flows.audit import Wish
from gateway.ports.records import Leaf, SealedPayload, SubjectKey, Transaction
from gateway.vault.payload import PayloadKey
from policy.erasure import ErasurePlan
from policy.terms import KeyClass
from tests.fakes.clock import FrozenClock
from tests.world import ORIGIN, TENANT, World, settings

AUDITOR = Caller(TENANT, "auditor", Role.AUDITOR, is_person=False)
SUBJECTS, EVENTS, GROUP = 200, 70_000, 500
CANARY = "canary-{}-lives-in-Lisbon"
STOPS = (1, 255, 256, 257, 4_000, 65_535, 65_536, 65_537)


class Ground:
    """The real adapters in a folder, and the flows over them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.world = World()
        self.signers = {ORIGIN: (Signer(ORIGIN, bytes(32)), Signer(ORIGIN, bytes([1]) * 32, "ml-dsa-44"))}
        self.clock = FrozenClock()

    async def open(self) -> None:
        (self.root / "log").mkdir()
        url = f"sqlite://{self.root}/lethe.db"
        await migrate(url)
        self.records = open_records(url)
        self.keys = LocalKeyring.create(self.root / "keys")
        made = settings()
        made = made.model_copy(update={"tenants": {TENANT: made.tenants[TENANT]}})
        outside = compose.Outside(
            clock=self.clock,
            records=self.records,
            objects=self.world.objects,
            keys=self.keys,
            scrubber=self.world.scrubber,
            deidentifier=self.world.outside.deidentifier,
            prompts=self.world.prompts,
            confinement={},
            backends={},
            lock=FileLock.create(self.root / "lock"),
            log_files=LogFolder(self.root / "log"),
        )
        self.flows = compose.flows(made, outside, self.signers)

    async def log(self) -> str:
        """Sequence and publish; return the checkpoint."""
        await self.flows.sequence.run()
        await self.flows.publish.run()
        return (await self.flows.audit.checkpoint(AUDITOR)).note

    def holds(self, needle: bytes) -> list[str]:
        """Return the files that hold the needle anywhere."""
        return [str(path) for path in self.root.rglob("*") if path.is_file() and needle in path.read_bytes()]


@pytest.fixture
async def ground(tmp_path: Path):
    made = Ground(tmp_path)
    await made.open()
    yield made
    await made.records.close()


async def grow(ground: Ground, keys: list[PayloadKey], start: int, end: int) -> None:
    ledger, chance = ground.flows.ledger, random.Random(start)
    for first in range(start, end, GROUP):
        owners = [chance.randrange(SUBJECTS) for _ in range(first, min(first + GROUP, end))]

        def write(tx: Transaction, owners: list[int] = owners) -> None:
            for owner in owners:
                said = {"said": CANARY.format(owner)}
                ledger.record(tx, TENANT, "signal.recorded", None, sealed=((keys[owner], said),), sig=["gpc"])

        await ground.records.transact(write)


async def test_everything_published_holds_after_a_tenth_is_erased(ground: Ground) -> None:
    people, flows = ground.flows.upload.people, ground.flows
    handles = [await people.handle(TENANT, f"s{number}") for number in range(SUBJECTS)]
    keys = [await people.payload_key(TENANT, handle) for handle in handles]
    published, exports, at = [], [], 0
    for stop in (*STOPS, EVENTS):
        await grow(ground, keys, at, stop)
        at = stop
        published.append(await ground.log())
        if stop in {257, 4_000}:
            exports.append(await flows.audit.export(AUDITOR, Wish(end=stop)))
            at += 1  # the export itself
    size = (await flows.audit.checkpoint(AUDITOR)).size
    assert size >= EVENTS

    # A tenth goes.
    gone = range(0, SUBJECTS, 10)
    plan = ErasurePlan(erase=tuple(KeyClass), keep=())
    erased = 0
    for number in gone:
        flows.erasure.custody.evict(handles[number])
        await ground.keys.fence(handles[number])
        erased += (
            await ground.records.transact(
                lambda tx, handle=handles[number]: flows.erasure.holdings.erase(tx, TENANT, handle, plan)
            )
        )["nseal"]
    for epoch in await ground.keys.epochs():
        await flows.erasure.custody.roll(epoch)
    await ground.records.scour()
    published.append(await ground.log())
    assert erased > EVENTS // 20

    # Every checkpoint ever published still verifies, and any two are consistent.
    trust = "".join(f"{signer.vkey()}\n" for signer in ground.signers[ORIGIN])
    verifiers = [signer.verifier for signer in ground.signers[ORIGIN]]
    heads = [checkpoint.open_checkpoint(text, verifiers) for text in published]
    for place, older in enumerate(heads):
        for newer in heads[place + 1 :]:
            links = await flows.audit.consistency(AUDITOR, older.size, newer.size)
            tree.verify_consistency(
                first=older.size,
                second=newer.size,
                first_root=older.root,
                second_root=newer.root,
                proof=links,
            )
    # Old exports, the folder, and a new export that opens what is left.
    for files in exports:
        assert verify_export(files, trust).verdict == "valid"
    report = fsck.fsck(fsck.folder_reader(ground.root / "log" / ORIGIN), verifiers)
    assert (report.verdict, report.fault) == ("valid", "")
    expires = int(ground.clock.now().timestamp() * 1000) + 1
    wish = Wish(end=4_000, disclosed=("audit",), expires_ms=expires)
    again = await flows.audit.export(AUDITOR, wish)
    verdict = verify_export(again, trust)
    assert (verdict.verdict, verdict.fault) == ("valid", "")
    states = [json.loads(line)["state"] for line in again["payloads.jsonl"].splitlines()]
    assert {"opened", "erased"} == set(states)

    # Nothing of the erased is left: neither what was said nor a key; of the others it rests sealed.
    assert [
        CANARY.format(number) for number in gone if CANARY.format(number).encode() in again["payloads.jsonl"]
    ] == []
    assert ground.holds(b"lives-in-Lisbon") == []
    rows = await ground.records.transact(lambda tx: tx.find(SealedPayload))
    assert erased == sum(not row.blob for row in rows)
    assert {row.handle for row in rows if row.blob}.isdisjoint(handles[number] for number in gone)
    left = await ground.records.transact(lambda tx: tx.find(SubjectKey))
    assert {key.handle for key in left}.isdisjoint(handles[number] for number in gone)
    for number in gone:
        assert ground.holds(keys[number].holder.wrapped) == []
        assert ground.holds(handles[number].encode()) == []

    # Two leaves share eight bytes only where they name the same thing: here nothing is named.
    lines = await ground.records.transact(
        lambda tx: tx.find(Leaf, equal={"ty": "signal.recorded"}, limit=9_000)
    )
    seen: set[str] = set()
    for event in (json.loads(leaf.line) for leaf in lines):
        (entry,) = event["seals"]
        for value in (event["id"], event["n"], entry[0], entry[2]):
            chunks = {value[start : start + 16] for start in range(len(value) - 15)}
            assert seen.isdisjoint(chunks)
            seen |= chunks
    assert note.parse(published[-1])[0]
