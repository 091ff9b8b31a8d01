"""The safe: seals bytes into the object store and opens them again."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from gateway.errors import LetheError, StoreUnavailable
from gateway.ports.clock import Clock
from gateway.ports.objects import ObjectMissing, ObjectStore
from gateway.ports.records import StoredObject
from gateway.vault import stream
from gateway.vault.box import derive, open_box, seal_box
from gateway.vault.custody import Custody, HeldKey
from gateway.vault.errors import SealBroken
from gateway.vault.keys import Binding, unwrap_dek, wrap_dek
from policy.retention import retention_month

PROMPT_LABEL = b"lethe.dev/prompt/v1"
"""What a prompt's key is derived with, from the key of the object that it came with."""


def object_binding(stored: StoredObject) -> Binding:
    """Return the associated data of a sealed object: tenant, handle, class, object and purpose."""
    return Binding(
        tenant=stored.tenant,
        handle=stored.handle,
        cls=stored.cls.value,
        item=stored.object_id,
        purpose=stored.purpose,
    )


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to be sealed: a scrubbed picture and prompt, whose it is, what for, and until when."""

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
    prompt: str = ""

    def bare(self, object_id: str, now: datetime) -> StoredObject:
        """Return the record of it as long as no key opens it."""
        return StoredObject(
            object_id=object_id,
            tenant=self.tenant,
            handle=self.handle,
            key_id="",
            job_id=self.job_id,
            kind=self.kind,
            purpose=self.purpose,
            image_type=self.image_type,
            width=self.width,
            height=self.height,
            size_bytes=len(self.image),
            wrapped_dek=b"",
            state="live",
            created_at=now,
            expires_at=self.expires_at,
        )


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
        bare = draft.bare(self.random(16).hex(), self.clock.now())
        held, dek = await self._keys(bare)
        binding = object_binding(bare)
        await self._put(bare.object_id, _as_async(stream.seal(dek, binding.aad(), [draft.image])))
        return replace(
            bare,
            key_id=held.record.key_id,
            wrapped_dek=wrap_dek(held.key, dek, binding),
            sealed_prompt=_seal_prompt(dek, draft.prompt, binding),
        )

    async def open_prompt(self, stored: StoredObject) -> str:
        """Return the prompt that came with a live object; it opens as long as the object does.

        Raises:
            StoreUnavailable: It is broken (detail `object_lost`).
            KeyServiceUnavailable: The object's key does not open.
        """
        if not stored.sealed_prompt:
            return ""
        key = await self.custody.open_by_id(stored.key_id)
        binding = object_binding(stored)
        try:
            dek = unwrap_dek(key, stored.wrapped_dek, binding)
            return open_box(derive(dek, PROMPT_LABEL), stored.sealed_prompt, binding.aad()).decode()
        except SealBroken as error:
            raise StoreUnavailable("a sealed prompt is broken", detail="object_lost") from error

    async def seal_stream(self, draft: Draft, chunks: AsyncIterable[bytes]) -> StoredObject:
        """Store what comes in `chunks` sealed, a segment at a time, and return its record; see `seal`.

        The record has the size and the SHA-256 of what came; `draft.image` is not read.
        """
        bare = draft.bare(self.random(16).hex(), self.clock.now())
        held, dek = await self._keys(bare)
        binding, seen = object_binding(bare), _Seen()
        await self._put(bare.object_id, stream.seal_stream(dek, binding.aad(), seen.passing(chunks)))
        return replace(
            bare,
            key_id=held.record.key_id,
            wrapped_dek=wrap_dek(held.key, dek, binding),
            size_bytes=seen.size,
            sha256=seen.digest.hexdigest(),
        )

    async def _keys(self, bare: StoredObject) -> tuple[HeldKey, bytes]:
        month = retention_month(bare.expires_at)
        return await self.custody.obtain(bare.tenant, bare.handle, bare.cls.value, month), self.random(32)

    async def _put(self, object_id: str, sealed: AsyncIterator[bytes]) -> None:
        try:
            await self.objects.put(object_id, sealed)
        except LetheError:
            # It may have persisted all the same; we give up, so it must not stay.
            with contextlib.suppress(LetheError):
                await self.objects.delete(object_id)
            raise

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

    async def open_stream(self, stored: StoredObject) -> AsyncIterator[bytes]:
        """Yield the plaintext of a live object in pieces of at most 1 MiB; see `open`.

        Only the end says that nothing is missing: whoever passes pieces on says how many bytes there will be.
        """
        key = await self.custody.open_by_id(stored.key_id)
        binding = object_binding(stored)
        try:
            dek = unwrap_dek(key, stored.wrapped_dek, binding)
            async for piece in stream.open_stream(dek, binding.aad(), self.objects.get(stored.object_id)):
                yield piece
        except (ObjectMissing, stream.SealBroken) as error:
            raise StoreUnavailable("a sealed object is lost or broken", detail="object_lost") from error


def _seal_prompt(dek: bytes, prompt: str, binding: Binding) -> bytes:
    return seal_box(derive(dek, PROMPT_LABEL), prompt.encode(), binding.aad()) if prompt else b""


@dataclass(slots=True)
class _Seen:
    """Size and digest of what has passed."""

    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    async def passing(self, chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            self.size += len(chunk)
            self.digest.update(chunk)
            yield chunk


async def _as_async(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
