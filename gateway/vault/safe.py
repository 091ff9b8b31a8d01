"""The safe: seals bytes into the object store and opens them again."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from gateway.errors import LetheError, StoreUnavailable
from gateway.ports.clock import Clock
from gateway.ports.objects import ObjectMissing, ObjectStore
from gateway.ports.records import StoredObject
from gateway.vault import stream
from gateway.vault.custody import Custody
from gateway.vault.keys import Binding, unwrap_dek, wrap_dek
from policy.retention import retention_month
from policy.terms import KeyClass


def object_binding(stored: StoredObject) -> Binding:
    """Return the associated data of a sealed object: tenant, handle, class, object and purpose."""
    return Binding(
        tenant=stored.tenant,
        handle=stored.handle,
        cls=KeyClass.CONTENT.value,
        item=stored.object_id,
        purpose=stored.purpose,
    )


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to be sealed: a scrubbed picture, whose it is, what for, and until when."""

    tenant: str
    handle: str
    job_id: str
    kind: str
    purpose: str
    image_type: str
    width: int
    height: int
    image: bytes
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Safe:
    """Seals and opens objects under per-object keys."""

    custody: Custody
    objects: ObjectStore
    clock: Clock
    random: Callable[[int], bytes] = os.urandom

    async def seal(self, draft: Draft) -> StoredObject:
        """Store `draft` sealed and return the record that makes it readable, not yet kept.

        Ciphertext first: until the caller commits the record, the bytes in the
        store are garbage that nothing opens and the sweeper removes.
        """
        held = await self.custody.obtain(
            draft.tenant, draft.handle, KeyClass.CONTENT.value, retention_month(draft.expires_at)
        )
        dek = self.random(32)
        bare = StoredObject(
            object_id=self.random(16).hex(),
            tenant=draft.tenant,
            handle=draft.handle,
            key_id=held.record.key_id,
            job_id=draft.job_id,
            kind=draft.kind,
            purpose=draft.purpose,
            image_type=draft.image_type,
            width=draft.width,
            height=draft.height,
            size_bytes=len(draft.image),
            wrapped_dek=b"",
            state="live",
            created_at=self.clock.now(),
            expires_at=draft.expires_at,
        )
        binding = object_binding(bare)
        sealed = stream.seal(dek, binding.aad(), [draft.image])
        try:
            await self.objects.put(bare.object_id, _as_async(sealed))
        except LetheError:
            # It may have persisted all the same; we give up, so it must not stay.
            with contextlib.suppress(LetheError):
                await self.objects.delete(bare.object_id)
            raise
        return replace(bare, wrapped_dek=wrap_dek(held.key, dek, binding))

    async def open(self, stored: StoredObject) -> bytes:
        """Return the plaintext of a live object.

        Raises:
            StoreUnavailable: The bytes are gone or broken (detail `object_lost`).
            KeyServiceUnavailable: Its key does not open.
        """
        key = await self.custody.open_by_id(stored.key_id)
        binding = object_binding(stored)
        try:
            dek = unwrap_dek(key, stored.wrapped_dek, binding)
            sealed = [piece async for piece in self.objects.get(stored.object_id)]
            return b"".join(stream.open_(dek, binding.aad(), sealed))
        except (ObjectMissing, stream.SealBroken) as error:
            raise StoreUnavailable("a sealed object is lost or broken", detail="object_lost") from error


async def _as_async(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
