"""Who holds which key: finds, mints, opens and re-wraps subject keys.

A subject key is random and belongs to one (tenant, subject, class, retention
month).  It rests wrapped under an epoch key that lives inside the key service.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from gateway.errors import KeyServiceUnavailable, SubjectBlocked
from gateway.ports.backup import Survivors
from gateway.ports.clock import Clock
from gateway.ports.keys import Epoch, EpochDestroyed, KeyService, UnwrapFailed
from gateway.ports.records import ClosedEpoch, Records, SubjectKey, Transaction
from gateway.vault.keys import KeyCache

BATCH = 500
"""So many keys are wrapped anew in one transaction."""

OPEN_TERM = "open"
"""The retention month of what has no term known in advance (profile, evidence)."""


@dataclass(frozen=True, slots=True)
class HeldKey:
    """A subject key, opened: its record and its 32 bytes."""

    record: SubjectKey
    key: bytes


def wrap_binding(tenant: str, key_id: str, cls: str, month: str) -> bytes:
    """Return the associated data of a wrapped subject key.

    It names the key's id rather than the subject: a kept class outlives the
    subject's handle.
    """
    return f"lethe.dev/subject-key/v1\n{tenant}\n{key_id}\n{cls}\n{month}".encode()


@dataclass(frozen=True, slots=True)
class Custody:
    """Mints and opens subject keys; every failure of the key service fails closed.

    `on_lost` hears of subject keys that did not open when they were to be re-wrapped.
    `survivors` keeps those that were, so that backups from before a roll open for who stayed.
    """

    records: Records
    keys: KeyService
    clock: Clock
    cache: KeyCache
    on_lost: Callable[[int], None] = lambda _number: None
    random: Callable[[int], bytes] = os.urandom
    survivors: Survivors | None = None
    opening: dict[tuple[str, str], asyncio.Future[bytes]] = field(default_factory=dict, repr=False)
    """The keys that are being opened now, by id and epoch."""

    async def obtain(self, tenant: str, handle: str, cls: str, month: str = OPEN_TERM) -> HeldKey:
        """Return the subject's key of that class and month, minted if there is none.

        Raises:
            SubjectBlocked: The subject is fenced: it was erased and gets no key again.
            KeyServiceUnavailable: The key service does not answer.
        """
        found = await self.records.transact(lambda tx: self._find(tx, tenant, handle, cls, month))
        if found is not None:
            return HeldKey(found, await self.open(found))
        while found is None:
            if await self.keys.is_fenced(handle):
                raise SubjectBlocked
            minted = await self._mint(tenant, handle, cls, month)
            found = await self.records.transact(partial(self._keep_first, minted=minted))
        # A fence may have gone up while the key was being minted: the key must not outlive it.
        if found.key_id == minted.key_id and await self.keys.is_fenced(handle):
            await self.records.transact(lambda tx: tx.remove(minted))
            raise SubjectBlocked
        return HeldKey(found, await self.open(found))

    def _keep_first(self, tx: Transaction, minted: SubjectKey) -> SubjectKey | None:
        """Return the key that stands: the first one made, or None where the epoch was closed meanwhile."""
        first = self._find(tx, minted.tenant, minted.handle or "", minted.cls, minted.month)
        if first is not None:
            return first
        if tx.get(ClosedEpoch, minted.epoch) is not None:
            return None
        tx.add(minted)
        return minted

    async def open(self, record: SubjectKey) -> bytes:
        """Return the 32 bytes of a subject key; who asks while it is being opened waits for that.

        Raises:
            KeyServiceUnavailable: It cannot be opened now, or its epoch is gone.
        """
        cached = self.cache.get(record.key_id)
        if cached is not None:
            return cached
        # As it is wrapped: after a roll the same key may be asked for under the epoch that is gone.
        which = (record.key_id, record.epoch)
        opening = self.opening.get(which)
        if opening is None:
            opening = self.opening[which] = asyncio.ensure_future(self._unwrap(record))
            opening.add_done_callback(partial(self._opened, which))
        return await asyncio.shield(opening)

    def _opened(self, which: tuple[str, str], opening: asyncio.Future[bytes]) -> None:
        self.opening.pop(which, None)
        if not opening.cancelled():
            opening.exception()  # whoever asked may be gone; else nobody would have looked at it

    async def _unwrap(self, record: SubjectKey) -> bytes:
        binding = wrap_binding(record.tenant, record.key_id, record.cls, record.month)
        try:
            key = await self.keys.unwrap(Epoch.parse(record.epoch), record.wrapped, binding)
        except (EpochDestroyed, UnwrapFailed) as error:
            raise KeyServiceUnavailable("a subject key does not open", detail="key_lost") from error
        self.cache.put(record.key_id, record.handle or "", key)
        return key

    async def open_by_id(self, key_id: str) -> bytes:
        """Return the 32 bytes of the key with that id; see `open`."""
        record = await self.records.transact(lambda tx: tx.get(SubjectKey, key_id))
        if record is None:
            raise KeyServiceUnavailable("a subject key is gone", detail="key_lost")
        return await self.open(record)

    def evict(self, handle: str) -> None:
        """Drop the subject's opened keys from memory."""
        self.cache.evict(handle)

    async def roll(self, epoch: Epoch) -> int:
        """Re-wrap every key of `epoch` under its next roll, destroy `epoch`, and return how many survived.

        The bytes of a deleted row linger in heaps, WALs, replicas and backups; once
        the epoch key is destroyed they open nothing.  Safe to repeat: what was
        re-wrapped is skipped, and destroying again changes nothing.  Meanwhile the
        next roll may itself be rolled, and destroyed: survivors go to one that stands.
        """
        await self.records.transact(lambda tx: self._close(tx, epoch))
        moved, after = 0, ""
        while True:
            batch = await self.records.transact(partial(_of_epoch, epoch=epoch, after=after))
            if not batch:
                break
            rows = await self._rewrap(batch, epoch)
            kept = await self.records.transact(partial(self._replace, old=epoch, rows=rows))
            moved += kept
            if kept < len(rows):
                continue  # the successor is being rolled by now: what is left of the batch needs another
            after = batch[-1].key_id
            if len(rows) < len(batch):
                self.on_lost(len(batch) - len(rows))
        await self._keep_survivors(epoch)
        await self.keys.destroy_epoch(epoch)
        if self.survivors is not None:
            await self.survivors.drop(str(epoch))
        return moved

    async def _keep_survivors(self, old: Epoch) -> None:
        """Make what the later rolls wrap durable outside the records, before `old` is destroyed.

        As it stands in the records, not as it was re-wrapped: whoever was erased
        meanwhile is not among them, and a row that goes from here on takes its epoch along.
        """
        if self.survivors is None:
            return
        for epoch in await self.keys.epochs():
            if epoch.roll <= old.roll or replace(epoch, roll=old.roll) != old:
                continue
            kept: list[tuple[str, bytes]] = []
            after = ""
            while batch := await self.records.transact(partial(_of_epoch, epoch=epoch, after=after)):
                kept += [(record.key_id, record.wrapped) for record in batch]
                after = batch[-1].key_id
            await self.survivors.keep(str(epoch), kept)

    async def _rewrap(self, batch: Sequence[SubjectKey], old: Epoch) -> tuple[SubjectKey, ...]:
        """Return the keys wrapped anew under a roll that stands.

        One that does not open is left out: a lost key must hold up nobody.
        """
        keys = [(row.wrapped, wrap_binding(row.tenant, row.key_id, row.cls, row.month)) for row in batch]
        new = await self._current_epoch(old.tenant, old.cls, old.month)
        while True:
            try:
                await self.keys.create_epoch(new)
                made = await self.keys.rewrap(old, new, keys)
            except EpochDestroyed:
                new = replace(new, roll=new.roll + 1)
            else:
                break
        tried = zip(batch, made, strict=True)
        return tuple(replace(row, epoch=str(new), wrapped=box) for row, box in tried if box is not None)

    @staticmethod
    def _replace(tx: Transaction, old: Epoch, rows: tuple[SubjectKey, ...]) -> int:
        """Put the re-wrapped rows whose originals are still there under the old epoch.

        None goes under an epoch that is being rolled itself: its key dies as soon as
        no row is found under it.
        """
        if any(tx.get(ClosedEpoch, epoch) is not None for epoch in {row.epoch for row in rows}):
            return 0
        ids = [row.key_id for row in rows]
        standing = {
            row.key_id: row for row in tx.find(SubjectKey, equal={"epoch": str(old)}, among={"key_id": ids})
        }
        moved = [
            replace(standing[row.key_id], epoch=row.epoch, wrapped=row.wrapped)
            for row in rows
            if row.key_id in standing
        ]
        tx.put(*moved)
        return len(moved)

    def _close(self, tx: Transaction, epoch: Epoch) -> None:
        if tx.get(ClosedEpoch, str(epoch)) is None:
            tx.add(ClosedEpoch(epoch=str(epoch), closed_at=self.clock.now()))

    async def _mint(self, tenant: str, handle: str, cls: str, month: str) -> SubjectKey:
        key, key_id = self.random(32), self.random(16).hex()
        epoch, wrapped = await self._wrap(
            await self._current_epoch(tenant, cls, month), key, wrap_binding(tenant, key_id, cls, month)
        )
        return SubjectKey(
            key_id=key_id,
            tenant=tenant,
            handle=handle,
            cls=cls,
            month=month,
            epoch=str(epoch),
            wrapped=wrapped,
            created_at=self.clock.now(),
        )

    async def _wrap(self, epoch: Epoch, key: bytes, binding: bytes) -> tuple[Epoch, bytes]:
        """Wrap under `epoch`, or under the next roll that was not destroyed."""
        while True:
            try:
                await self.keys.create_epoch(epoch)
                return epoch, await self.keys.wrap(epoch, key, binding)
            except EpochDestroyed:
                epoch = replace(epoch, roll=epoch.roll + 1)

    async def _current_epoch(self, tenant: str, cls: str, month: str) -> Epoch:
        """Return the newest roll that exists and is not closed."""
        rolls = [
            e.roll for e in await self.keys.epochs() if (e.tenant, e.cls, e.month) == (tenant, cls, month)
        ]
        newest = Epoch(tenant, cls, month, max(rolls, default=0))
        closed = await self.records.transact(lambda tx: tx.get(ClosedEpoch, str(newest)))
        return newest if closed is None else replace(newest, roll=newest.roll + 1)

    @staticmethod
    def _find(tx: Transaction, tenant: str, handle: str, cls: str, month: str) -> SubjectKey | None:
        keys = tx.find(
            SubjectKey,
            equal={"tenant": tenant, "handle": handle, "cls": cls, "month": month},
            order_by=("key_id",),
            limit=1,
        )
        return keys[0] if keys else None


def _of_epoch(tx: Transaction, epoch: Epoch, after: str) -> list[SubjectKey]:
    return tx.find(
        SubjectKey,
        equal={"epoch": str(epoch)},
        above={"key_id": after},
        order_by=("key_id",),
        limit=BATCH,
    )
