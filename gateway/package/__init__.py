"""Makes the package that answers a request for access or portability, and gives it out.

A package is a ZIP file that a person opens: a page in plain words, the same as data,
their pictures, consents, and the log's entries about them with proofs
(docs/reference/access-package.md).  It rests sealed under the class `dsr` until its term
ends, and goes with the subject.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from gateway.caller import Caller
from gateway.errors import (
    LetheError,
    MessageInvalid,
    NotFound,
    ObjectExpired,
    StateConflict,
    SubjectBlocked,
)
from gateway.objects import discard_unkept
from gateway.package import page
from gateway.package.archive import Entry, pack, whole
from gateway.package.gather import LIVE, Gathered, Gatherer, as_json
from gateway.ports.clock import Clock
from gateway.ports.records import Dsr, StoredObject, Subject, SubjectKey, Transaction
from gateway.vault.payload import PayloadKey
from gateway.vault.safe import Draft, Safe
from policy import retention
from policy.terms import PACKAGE, DsrKind

CHUNK = 256 << 10
MOST_BYTES = 4 << 30
ASK_AGAIN = timedelta(seconds=1)
"""After so long an erasure stops a download that is still running."""

KINDS = frozenset({DsrKind.ACCESS.value, DsrKind.PORTABILITY.value})
"""The kinds of requests that a package answers."""

_OVER = frozenset({"refused", "cancelled"})


@dataclass(frozen=True, slots=True)
class Handed:
    """A package on its way out: what it is, and its bytes from `offset` on in chunks of 256 KiB."""

    stored: StoredObject
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Packages:
    """Makes packages and gives them out."""

    gatherer: Gatherer
    safe: Safe
    clock: Clock
    most_bytes: int = MOST_BYTES
    random: Callable[[int], bytes] = os.urandom

    async def make(self, dsr: Dsr) -> str:
        """Return the id of the sealed object that answers the request; where there is one, that one.

        A kill leaves nothing, or bytes that no row claims, which the sweeper removes; calling again is
        always right.  What is gathered is as it stands now, not as it stood when the request arrived.

        Steps:
            (1) What is held is gathered from every holding.
            (2) The file is written, sealed, and stored piece by piece.
            (3) One transaction: the subject is not blocked, no other package was made meanwhile; the
                object and its leaves are kept.

        Raises:
            StateConflict: No package answers such a request, or it is over (detail: its kind or state).
            SubjectBlocked: The subject is erased, or is being erased.
            PayloadTooLarge: The file would be larger than `most_bytes`.
            StoreUnavailable, KeyServiceUnavailable: Something cannot be read now; try again.
        """
        if dsr.kind not in KINDS or dsr.state in _OVER:
            raise StateConflict(detail=dsr.kind if dsr.kind not in KINDS else dsr.state)
        records, now = self.gatherer.records, self.clock.now()
        standing = await records.transact(partial(_standing, dsr=dsr))
        if standing is not None:
            return standing.object_id
        gathered = await self.gatherer.gather(dsr, now)
        handle = dsr.handle or ""  # the gatherer found a subject under it
        key = await self.gatherer.people.payload_key(dsr.tenant, handle)
        draft = Draft(
            tenant=dsr.tenant,
            handle=handle,
            job_id="",
            kind=PACKAGE,
            purpose="",
            image_type="zip",
            width=0,
            height=0,
            image=b"",
            expires_at=retention.expires_at(PACKAGE, now, (self.gatherer.packs[dsr.regime],)).expires_at,
        )
        chunks = pack(self._entries(gathered), now, self.most_bytes)
        stored = replace(await self.safe.seal_stream(draft, chunks), dsr_id=dsr.dsr_id)
        try:
            kept = await records.transact(partial(self._keep, dsr=dsr, stored=stored, key=key))
        except LetheError:
            await discard_unkept(records, self.safe.objects, stored)
            raise
        if kept.object_id != stored.object_id:
            await discard_unkept(records, self.safe.objects, stored)
        return kept.object_id

    async def _entries(self, gathered: Gathered) -> AsyncIterator[Entry]:
        """Yield the files: first what a person opens, then what is large."""
        document = gathered.document
        first = gathered.language if gathered.language in page.LANGUAGES else page.LANGUAGES[0]
        for language in sorted(page.LANGUAGES, key=lambda one: one != first):
            text = await asyncio.to_thread(page.render, document, language, first)
            yield Entry(page.name_of(language, first), whole(text))
        yield Entry("data.json", whole(await asyncio.to_thread(as_json, document)))
        for name, content in sorted(gathered.files.items()):
            yield Entry(name, whole(content))
        for name, picture in gathered.pictures.items():
            yield Entry(name, self.safe.open_stream(picture))

    def _keep(self, tx: Transaction, dsr: Dsr, stored: StoredObject, key: PayloadKey) -> StoredObject:
        first = _standing(tx, dsr)
        if first is not None:
            return first
        standing, subject = tx.get(Dsr, dsr.dsr_id), tx.get(Subject, dsr.tenant, stored.handle)
        if subject is None or subject.state == "blocked" or tx.get(SubjectKey, stored.key_id) is None:
            raise SubjectBlocked
        if standing is None or standing.state in _OVER:
            raise StateConflict(detail=standing.state if standing else "gone")
        tx.add(stored)
        ledger, expires = self.gatherer.ledger, int(stored.expires_at.timestamp() * 1000)
        ledger.record(
            tx, dsr.tenant, "object.sealed", None, obj=stored.object_id, cat=stored.kind, exp=expires
        )
        ledger.record(
            tx,
            dsr.tenant,
            "package.made",
            None,
            sealed=((key, {"request": f"dsrs/{dsr.dsr_id}"}),),
            dsr=dsr.dsr_id,
            obj=stored.object_id,
            dig=stored.sha256,
            size=stored.size_bytes,
        )
        return stored

    async def hand_out(self, caller: Caller, dsr_id: str, offset: int = 0) -> Handed:
        """Return the package of a request, from the byte `offset` on; that it was given out is in the log.

        Raises:
            NotFound: No such request in the caller's tenant.
            StateConflict: It is of a kind that no package answers, is refused or taken back, or its
                package is not made yet (detail: its kind or state).
            ObjectExpired: The package's term is over.
            SubjectBlocked: The subject is erased, or is being erased.
            MessageInvalid: The offset lies behind the end.
        """
        records = self.gatherer.records
        stored = await records.transact(partial(self._permit, caller=caller, dsr_id=dsr_id))
        if offset > stored.size_bytes:
            raise MessageInvalid("offset", violations=(("offset", "offset.beyond_end"),))
        key = await self.gatherer.people.payload_key(caller.tenant, stored.handle)
        await records.transact(partial(self._log, caller=caller, dsr_id=dsr_id, offset=offset, key=key))
        return Handed(stored, self._chunks(caller, dsr_id, stored, offset))

    def _permit(self, tx: Transaction, caller: Caller, dsr_id: str) -> StoredObject:
        dsr = tx.get(Dsr, dsr_id)
        if dsr is None or dsr.tenant != caller.tenant:
            raise NotFound
        if dsr.kind not in KINDS or dsr.state in _OVER:
            raise StateConflict(detail=dsr.kind if dsr.kind not in KINDS else dsr.state)
        subject = tx.get(Subject, caller.tenant, dsr.handle or "")
        if subject is None or subject.state == "blocked":
            raise SubjectBlocked
        stored = _standing(tx, dsr)
        if stored is not None and (stored.state != "live" or stored.expires_at <= self.clock.now()):
            raise ObjectExpired
        if stored is None:
            raise ObjectExpired if dsr.state == "fulfilled" else StateConflict(detail=dsr.state)
        return stored

    def _log(self, tx: Transaction, caller: Caller, dsr_id: str, offset: int, key: PayloadKey) -> None:
        """Log that it is given out, if it still may be: an erasure may have won the race."""
        stored = self._permit(tx, caller, dsr_id)
        self.gatherer.ledger.record(
            tx,
            caller.tenant,
            "package.released",
            caller,
            sealed=((key, {"request": f"dsrs/{dsr_id}"}),),
            dsr=dsr_id,
            obj=stored.object_id,
            **({"from": offset} if offset else {}),
        )

    async def _chunks(
        self, caller: Caller, dsr_id: str, stored: StoredObject, offset: int
    ) -> AsyncIterator[bytes]:
        """Yield the bytes; a slow reader is asked again whether it may have them."""
        asked_at, skip = self.clock.now(), offset
        async for piece in self.safe.open_stream(stored):
            for start in range(min(skip, len(piece)), len(piece), CHUNK):
                asked_at = await self._ask_again(caller, dsr_id, asked_at)
                yield piece[start : start + CHUNK]
            skip = max(0, skip - len(piece))

    async def _ask_again(self, caller: Caller, dsr_id: str, asked_at: datetime) -> datetime:
        if self.clock.now() - asked_at <= ASK_AGAIN:
            return asked_at
        await self.gatherer.records.transact(partial(self._permit, caller=caller, dsr_id=dsr_id))
        return self.clock.now()


def _standing(tx: Transaction, dsr: Dsr) -> StoredObject | None:
    """Return the package of a request that is there, if one is."""
    mine = {"tenant": dsr.tenant, "dsr_id": dsr.dsr_id}
    return next(iter(tx.find(StoredObject, equal=mine, among={"state": LIVE}, limit=1)), None)
