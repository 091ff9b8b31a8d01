"""Looks for what an erasure should have removed, by other ways than it was removed.

An erasure goes by the rows that name the subject, through the holdings.  Whatever no row
names any more, or names otherwise, it leaves behind.  So nothing here asks a holding, and no
row is found by the subject's handle; the stores themselves are listed:

    objects   the object store's own listing, against the objects that the erasure noted and
              against those that the audit log knows of
    records   every column of every table that the database's catalogue shows
    keys      the key service's own list of epochs, and its fence
    caches    the opened keys in this process

What is looked for is forgotten with the certificate.  Until then it must survive a restart and must
not be found itself, so it rests sealed in the request's file (`Absence.seal`).
docs/decisions/0025 says why that is sound and what it does not reach.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from gateway.ledger import Ledger
from gateway.ports.keys import KeyService
from gateway.ports.objects import ObjectStore
from gateway.ports.records import Dsr, Leaf, Record, Records, Remembered, SealedPayload, Transaction
from gateway.vault.box import open_box, seal_box
from gateway.vault.keys import KeyCache
from policy.terms import KeyClass

SOUGHT_LABEL = "sought"
"""The key service's label for the key that seals what is sought, one for each request."""

BATCH = 500
OBJECTS, EPOCHS, FENCE, CACHE = "object_store", "epoch_key", "fence", "key_cache"
OTHER_TABLE = "other_table"
"""A table that is none of ours: what it is called is not for the log."""

NAMED_ON: Collection[tuple[type[Record], str]] = (
    (Leaf, "line"),  # the log names things for ever
    (Remembered, "resource"),  # a repeated call is answered with the name of a job that is gone
    (SealedPayload, "key_id"),  # a tombstone says under which key it was sealed (decision 0018)
    (Dsr, "counts"),  # the erasure's own notes, which go with the certificate
)
"""Columns that name things which are gone, by design.  Only things: the handle is sought there, too."""

SLACK = 10_000
"""So many leaves before the first that names a person may be its siblings: what waits together is placed by
its clock, and a clock may have been set back between two leaves of one commit."""
_PACKAGE = "package.made"
_CATEGORY = {"job.created": "original", "job.succeeded": "output", "dataset.added": "output"}
_MADE = tuple(_CATEGORY)


@dataclass(frozen=True, slots=True)
class Sought:
    """What must not be found: the subject's handle (or none), key ids with their class and month, job ids."""

    handle: str = ""
    keys: tuple[tuple[str, str, str], ...] = ()
    jobs: tuple[str, ...] = ()

    def __or__(self, other: Sought) -> Sought:
        """Return what either of them looks for; both are of one subject."""
        return Sought(
            self.handle or other.handle,
            tuple(sorted({*self.keys, *other.keys})),
            tuple(sorted({*self.jobs, *other.jobs})),
        )


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look found, and how far it reached.

    `places` are codes for the log; `names` the same for an operator, the tables by their own names.
    """

    places: frozenset[str]
    names: frozenset[str]
    tables: int
    unread: int
    objects: int
    epochs: int


@dataclass(frozen=True, slots=True)
class Absence:
    """Looks for what should be gone."""

    records: Records
    objects: ObjectStore
    keys: KeyService
    cache: KeyCache
    ledger: Ledger

    async def key(self, tenant: str, dsr_id: str) -> bytes:
        """Return the key that seals what a request looks for.

        Raises:
            KeyServiceUnavailable: The key service does not answer.
        """
        return await self.keys.mac(tenant, SOUGHT_LABEL, dsr_id.encode())

    @staticmethod
    def seal(key: bytes, dsr_id: str, sought: Sought) -> str:
        """Return what is sought as a text for the request's file."""
        return seal_box(key, json.dumps(asdict(sought)).encode(), dsr_id.encode()).hex()

    @staticmethod
    def unseal(key: bytes, dsr_id: str, counts: Mapping[str, Any]) -> Sought:
        """Return what a request's file says is sought; nothing, where it says nothing yet.

        Raises:
            SealBroken: It is not what was sealed for this request.
        """
        if "sought" not in counts:
            return Sought()
        told = json.loads(open_box(key, bytes.fromhex(counts["sought"]), dsr_id.encode()))
        return Sought(told["handle"], tuple(tuple(key) for key in told["keys"]), tuple(told["jobs"]))

    async def look(
        self,
        tenant: str,
        sought: Sought,
        objects: Collection[str],
        epochs: Collection[str],
        *,
        is_content_gone: bool,
    ) -> Looked:
        """Look everywhere for what is sought, for the objects and for the epochs (text form).

        Where content was kept, the objects that the log knows of are not looked for.

        Raises:
            StoreUnavailable: A store cannot be searched: then nothing is known to be gone.
            KeyServiceUnavailable: Nor where the key service does not answer.
        """
        logged = await self.logged_objects(tenant, sought) if is_content_gone else {}
        objects = {*objects, *logged}
        who = _spellings(sought.handle) if sought.handle else frozenset()
        ids = [*(key_id for key_id, _, _ in sought.keys), *sought.jobs, *objects]
        what = frozenset[bytes]().union(*map(_spellings, ids))
        of_whom = await self.records.search(who)
        of_what = await self.records.search(what, skip=NAMED_ON)
        seen = of_whom.seen | of_what.seen
        others = {await self._object_store(objects), *await self._key_service(sought, epochs)}
        if self.cache.holds(sought.handle, {key_id for key_id, _, _ in sought.keys}):
            others.add(CACHE)
        if sought.handle and self.ledger.knows(sought.handle):
            others.add(CACHE)
        others.discard("")
        return Looked(
            places=frozenset(others | {one.table if one.is_known else OTHER_TABLE for one in seen}),
            names=frozenset(others | {_shown(one.table, who | what) for one in seen}),
            tables=min(of_whom.tables, of_what.tables),
            unread=max(of_whom.unread, of_what.unread),
            objects=len(objects),
            epochs=len(epochs),
        )

    async def _object_store(self, objects: Collection[str]) -> str:
        async for stored in self.objects.list():
            if stored.object_id in objects:
                return OBJECTS
        return ""

    async def _key_service(self, sought: Sought, epochs: Collection[str]) -> list[str]:
        found = []
        if not {str(epoch) for epoch in await self.keys.epochs()}.isdisjoint(epochs):
            found.append(EPOCHS)
        if sought.handle and not await self.keys.is_fenced(sought.handle):
            found.append(FENCE)
        return found

    async def logged_objects(self, tenant: str, sought: Sought) -> dict[str, str]:
        """Return the objects (id to category) that the audit log ties to the subject.

        A leaf names nobody, but decisions about a person carry payloads under that person's
        `audit` keys, whose rows say so by the key's id even when they are emptied; a decision names
        its job, and a job's leaves name its objects.  A package's leaf has such a payload, and names
        its object itself.  What was pruned from the log is not found.
        """
        log = self.ledger.origins[tenant]
        jobs, first = set(sought.jobs), -1
        starts = []
        found: dict[str, str] = {}
        for key_id, cls, month in sought.keys:
            if cls == KeyClass.AUDIT:
                async for leaf, slot in self._sealed_under(log, key_id, month):
                    starts.append(leaf.seq)
                    jobs |= _job_of(leaf, slot)
                    found |= _package_of(leaf, slot)
        if not jobs:
            return found
        if starts and None not in starts:
            first = max(min(seq for seq in starts if seq is not None) - SLACK, 0) - 1
        async for leaf in self._leaves(log, first, _MADE):
            event = json.loads(leaf.line)
            if event["job"] in jobs:
                found[event["obj"]] = _CATEGORY[leaf.ty]
        return found

    async def logged_ends(self, tenant: str, objects: Collection[str]) -> set[str]:
        """Return which of the objects the log says were destroyed."""
        log = self.ledger.origins[tenant]
        ends = [json.loads(leaf.line)["obj"] async for leaf in self._leaves(log, -1, ("object.destroyed",))]
        return {*objects} & {*ends}

    async def _sealed_under(self, log: str, key_id: str, month: str) -> AsyncIterator[tuple[Leaf, int]]:
        """Yield the leaves with a payload under that key, and the payload's place."""
        after = ""
        while True:
            batch = await self.records.transact(
                partial(_payloads, log=log, key_id=key_id, month=month, after=after)
            )
            for leaf, slot in batch:
                yield leaf, slot
            if not batch:
                return
            after = batch[-1][0].event_id

    async def _leaves(self, log: str, above: int, types: tuple[str, ...]) -> AsyncIterator[Leaf]:
        """Yield the leaves of these types above a place of the log, and those that wait for theirs."""
        for leaf in await self.records.transact(partial(_waiting, log=log, types=types)):
            yield leaf
        while batch := await self.records.transact(partial(_placed, log=log, above=above, types=types)):
            for leaf in batch:
                yield leaf
            above = batch[-1].seq or 0


def _payloads(tx: Transaction, log: str, key_id: str, month: str, after: str) -> list[tuple[Leaf, int]]:
    rows = tx.find(
        SealedPayload,
        equal={"log": log, "month": month, "key_id": key_id},
        above={"event_id": after},
        order_by=("event_id",),
        limit=BATCH,
    )
    leaves = {leaf.event_id: leaf for leaf in tx.find(Leaf, among={"event_id": [r.event_id for r in rows]})}
    return [(leaves[row.event_id], row.slot) for row in rows if row.event_id in leaves]


def _waiting(tx: Transaction, log: str, types: tuple[str, ...]) -> list[Leaf]:
    return [leaf for leaf in tx.find(Leaf, equal={"log": log, "seq": None}) if leaf.ty in types]


def _placed(tx: Transaction, log: str, above: int, types: tuple[str, ...]) -> list[Leaf]:
    return tx.find(
        Leaf,
        equal={"log": log},
        among={"ty": types},
        above={"seq": above},
        order_by=("seq",),
        limit=BATCH,
    )


def _job_of(leaf: Leaf, slot: int) -> set[str]:
    """Return the job that a decision about the payload's subject names.

    Whoever decides is named by a payload as well, whose token is the actor's: the job is not theirs.
    """
    event = json.loads(leaf.line)
    if leaf.ty != "decision.made" or _is_actors(event, slot):
        return set()
    return {event["job"]} if "job" in event else set()


def _package_of(leaf: Leaf, slot: int) -> dict[str, str]:
    """Return the package of the payload's subject that a leaf names, with its category."""
    event = json.loads(leaf.line)
    return {} if leaf.ty != _PACKAGE or _is_actors(event, slot) else {event["obj"]: "package"}


def _is_actors(event: Mapping[str, Any], slot: int) -> bool:
    return bool(event["act"] == f"tok:{event['seals'][slot][0]}")


def _spellings(digits: str) -> frozenset[bytes]:
    """Return the forms in which an id or a handle of hexadecimal digits may lie about."""
    raw = bytes.fromhex(digits)
    forms = {digits.lower().encode(), digits.upper().encode(), raw}
    forms |= {base64.b64encode(raw).rstrip(b"="), base64.urlsafe_b64encode(raw).rstrip(b"=")}
    if len(raw) == 16:
        dashed = str(uuid.UUID(bytes=raw))
        forms |= {dashed.encode(), dashed.upper().encode()}
    return frozenset(forms)


def _shown(table: str, needles: Collection[bytes]) -> str:
    """Return a table's name, unless the name itself says what nobody may read."""
    return OTHER_TABLE if any(needle in table.encode() for needle in needles) else table
