"""A wrapper over every door, that tells a hook before and after each call.

A point is `door.method`, for records with the name of the work:
`records.transact/Upload._keep.commit`.  The hook is told `before` the call, `inside` it
(records: all statements are made, nothing is committed; objects: the first bytes are
handed over) and `after` it.  What it raises, the caller sees: raised before, the call
is lost; raised after, its reply is.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal, Protocol, TypeVar

from gateway.compose import Outside
from gateway.deidentify import Mode, Scrubbed, Scrubber
from gateway.deidentify.deidentified import Deidentified, Deidentifier, Profile
from gateway.ports.inference import BackendFacts, Inference, Progress, Result
from gateway.ports.keys import Epoch, KeyService
from gateway.ports.lock import CheckpointLock
from gateway.ports.objects import ObjectStore, StoredBytes
from gateway.ports.records import Records, Searched, Transaction

T = TypeVar("T")
When = Literal["before", "inside", "after"]
WRITING = frozenset({"objects.put", "objects.delete", "records.scour", "lock.swap"}) | frozenset(
    {"keys.create_epoch", "keys.destroy_epoch", "keys.fence"}
)
"""Calls that change something, apart from transactions, which are looked at one by one."""


class Hook(Protocol):
    """Is told of every call; `wrote` is known from `inside` on."""

    def __call__(self, point: str, when: When, *, wrote: bool) -> None: ...


def around(outside: Outside, hook: Hook) -> Outside:
    """Return the same outside with the hook at every door."""
    return replace(
        outside,
        records=HookedRecords(outside.records, hook),
        objects=HookedObjects(outside.objects, hook),
        keys=HookedKeys(outside.keys, hook),
        scrubber=HookedScrubber(outside.scrubber, hook),
        deidentifier=HookedDeidentifier(outside.deidentifier, hook),
        lock=HookedLock(outside.lock, hook),
        backends={name: HookedInference(backend, hook) for name, backend in outside.backends.items()},
    )


def name_of(work: Callable[..., Any]) -> str:
    """Return the stable name of a transaction's work: `Upload._keep.commit`."""
    while isinstance(work, functools.partial):
        work = work.func
    return work.__qualname__.replace("<locals>.", "")


@dataclass
class _Spy:
    """A transaction that notes whether anything was written."""

    inner: Transaction
    wrote: bool = False

    def add(self, *records: Any) -> None:
        self.wrote |= bool(records)
        self.inner.add(*records)

    def get(self, kind: Any, *key: Any) -> Any:
        return self.inner.get(kind, *key)

    def find(self, kind: Any, **conditions: Any) -> Any:
        return self.inner.find(kind, **conditions)

    def count(self, kind: Any, **conditions: Any) -> int:
        return self.inner.count(kind, **conditions)

    def put(self, *records: Any) -> None:
        self.wrote |= bool(records)
        self.inner.put(*records)

    def change(self, kind: Any, **conditions: Any) -> int:
        self.wrote = True
        return self.inner.change(kind, **conditions)

    def discard(self, kind: Any, **conditions: Any) -> int:
        self.wrote = True
        return self.inner.discard(kind, **conditions)

    def remove(self, *records: Any) -> None:
        self.wrote |= bool(records)
        self.inner.remove(*records)


@dataclass
class HookedRecords:
    inner: Records
    hook: Hook

    async def transact(self, work: Callable[[Transaction], T]) -> T:
        point, wrote = f"records.transact/{name_of(work)}", False

        def watched(tx: Transaction) -> T:
            nonlocal wrote
            spy = _Spy(tx)
            result = work(spy)
            wrote = spy.wrote
            self.hook(point, "inside", wrote=wrote)
            return result

        self.hook(point, "before", wrote=False)
        result = await self.inner.transact(watched)
        self.hook(point, "after", wrote=wrote)
        return result

    async def scour(self) -> None:
        await _around(self.hook, "records.scour", self.inner.scour())

    async def search(self, needles: Collection[bytes], *, skip: Any = ()) -> Searched:
        found: Searched = await _around(self.hook, "records.search", self.inner.search(needles, skip=skip))
        return found

    async def close(self) -> None:
        await self.inner.close()


async def _around(hook: Hook, point: str, call: Any) -> Any:
    try:
        hook(point, "before", wrote=False)
    except BaseException:
        call.close()
        raise
    result = await call
    hook(point, "after", wrote=point in WRITING)
    return result


@dataclass
class HookedObjects:
    inner: ObjectStore
    hook: Hook

    async def put(self, object_id: str, chunks: AsyncIterable[bytes]) -> int:
        async def watched() -> AsyncIterator[bytes]:
            async for chunk in chunks:
                yield chunk
                self.hook("objects.put", "inside", wrote=True)

        size: int = await _around(self.hook, "objects.put", self.inner.put(object_id, watched()))
        return size

    async def delete(self, object_id: str) -> None:
        await _around(self.hook, "objects.delete", self.inner.delete(object_id))

    async def get(self, object_id: str) -> AsyncIterator[bytes]:
        self.hook("objects.get", "before", wrote=False)
        async for chunk in self.inner.get(object_id):
            yield chunk
        self.hook("objects.get", "after", wrote=False)

    async def list(self) -> AsyncIterator[StoredBytes]:
        self.hook("objects.list", "before", wrote=False)
        async for found in self.inner.list():
            yield found
        self.hook("objects.list", "after", wrote=False)


@dataclass
class HookedLock:
    inner: CheckpointLock
    hook: Hook

    async def load(self, origin: str) -> str | None:
        found: str | None = await _around(self.hook, "lock.load", self.inner.load(origin))
        return found

    async def swap(self, origin: str, old: str | None, new: str) -> bool:
        done: bool = await _around(self.hook, "lock.swap", self.inner.swap(origin, old, new))
        return done


@dataclass
class HookedKeys:
    inner: KeyService
    hook: Hook

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def is_experimental(self) -> bool:
        return self.inner.is_experimental

    @property
    def destroy_latency(self) -> timedelta:
        return self.inner.destroy_latency

    @property
    def copies_outside_our_control(self) -> bool:
        return self.inner.copies_outside_our_control

    async def _ask(self, method: str, *arguments: Any) -> Any:
        return await _around(self.hook, f"keys.{method}", getattr(self.inner, method)(*arguments))

    async def create_epoch(self, epoch: Epoch) -> None:
        await self._ask("create_epoch", epoch)

    async def destroy_epoch(self, epoch: Epoch) -> None:
        await self._ask("destroy_epoch", epoch)

    async def epochs(self) -> tuple[Epoch, ...]:
        return await self._ask("epochs")  # type: ignore[no-any-return]  # the door's own answer

    async def wrap(self, epoch: Epoch, key: bytes, binding: bytes) -> bytes:
        return await self._ask("wrap", epoch, key, binding)  # type: ignore[no-any-return]  # likewise

    async def unwrap(self, epoch: Epoch, wrapped: bytes, binding: bytes) -> bytes:
        return await self._ask("unwrap", epoch, wrapped, binding)  # type: ignore[no-any-return]  # likewise

    async def rewrap(self, old: Epoch, new: Epoch, keys: Any) -> list[bytes | None]:
        return await self._ask("rewrap", old, new, keys)  # type: ignore[no-any-return]  # likewise

    async def fence(self, handle: str) -> None:
        await self._ask("fence", handle)

    async def is_fenced(self, handle: str) -> bool:
        return await self._ask("is_fenced", handle)  # type: ignore[no-any-return]  # likewise

    async def mac(self, tenant: str, label: str, data: bytes) -> bytes:
        return await self._ask("mac", tenant, label, data)  # type: ignore[no-any-return]  # likewise


@dataclass
class HookedScrubber:
    inner: Scrubber
    hook: Hook

    async def scrub(self, data: bytes, mode: Mode = "canonical") -> Scrubbed:
        return await _around(self.hook, "scrubber.scrub", self.inner.scrub(data, mode))  # type: ignore[no-any-return]  # likewise


@dataclass
class HookedDeidentifier:
    inner: Deidentifier
    hook: Hook

    async def deidentify(self, data: bytes, profile: Profile, *, max_faces: int = 1) -> Deidentified:
        asked = self.inner.deidentify(data, profile, max_faces=max_faces)
        return await _around(self.hook, "faces.deidentify", asked)  # type: ignore[no-any-return]  # likewise


@dataclass
class HookedInference:
    inner: Inference
    hook: Hook

    async def describe(self) -> BackendFacts:
        return await _around(self.hook, "inference.describe", self.inner.describe())  # type: ignore[no-any-return]  # likewise

    async def generate(
        self, job_pseudonym: str, style: str, image: bytes, image_type: str, **also: str
    ) -> AsyncIterator[Progress | Result]:
        self.hook("inference.generate", "before", wrote=False)
        async with aclosing(self.inner.generate(job_pseudonym, style, image, image_type, **also)) as messages:
            async for message in messages:
                if isinstance(message, Result):
                    self.hook("inference.generate", "after", wrote=False)
                yield message

    async def cancel(self, job_pseudonym: str) -> None:
        await _around(self.hook, "inference.cancel", self.inner.cancel(job_pseudonym))

    async def forget(self, job_pseudonym: str) -> None:
        await _around(self.hook, "inference.forget", self.inner.forget(job_pseudonym))

    async def close(self) -> None:
        await self.inner.close()


def passed() -> tuple[dict[str, bool], Hook]:
    """Return a table of the points that were passed, whether each ever wrote, and the hook that fills it."""
    table: dict[str, bool] = {}

    def note(point: str, when: When, *, wrote: bool) -> None:
        table[point] = table.get(point, False) or wrote

    return table, note
