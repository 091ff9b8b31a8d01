"""A key service in memory that keeps the contract and can be told to break it."""

from __future__ import annotations

import hmac
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.errors import KeyServiceUnavailable, LetheError
from gateway.ports.keys import Epoch, EpochDestroyed, KeyService, UnwrapFailed, rewrap_each


@dataclass
class Faults:
    """What goes wrong next, by method name.

    `lose` makes a call raise before it did anything, `lose_reply` after it did
    everything.  `is_down` makes every call raise until it is unset.
    """

    error: type[LetheError]
    is_down: bool = False
    lost: Counter[str] = field(default_factory=Counter)
    lost_replies: Counter[str] = field(default_factory=Counter)

    def lose(self, method: str, times: int = 1) -> None:
        self.lost[method] += times

    def lose_reply(self, method: str, times: int = 1) -> None:
        self.lost_replies[method] += times

    def before(self, method: str) -> None:
        if self.is_down or self._takes(self.lost, method):
            raise self.error(f"{method} was lost")

    def after(self, method: str) -> None:
        if self._takes(self.lost_replies, method):
            raise self.error(f"the reply of {method} was lost")

    @staticmethod
    def _takes(plan: Counter[str], method: str) -> bool:
        due = plan[method] > 0
        plan[method] -= due
        return due


class FakeKeys:
    """Keeps every key in a dictionary; `faults` breaks it, `latency` and `copies` are what it declares."""

    def __init__(self, *, latency: timedelta = timedelta(0), copies: bool = False) -> None:
        self.faults = Faults(KeyServiceUnavailable)
        self.live: dict[Epoch, bytes] = {}
        self.destroyed: set[Epoch] = set()
        self.fences: set[bytes] = set()
        self._secret = os.urandom(32)
        self._latency = latency
        self._copies = copies

    @property
    def name(self) -> str:
        return "fake"

    @property
    def is_experimental(self) -> bool:
        return False

    @property
    def destroy_latency(self) -> timedelta:
        return self._latency

    @property
    def copies_outside_our_control(self) -> bool:
        return self._copies

    async def create_epoch(self, epoch: Epoch) -> None:
        self.faults.before("create_epoch")
        if epoch in self.destroyed:
            raise EpochDestroyed
        self.live.setdefault(epoch, os.urandom(32))
        self.faults.after("create_epoch")

    async def destroy_epoch(self, epoch: Epoch) -> None:
        self.faults.before("destroy_epoch")
        self.destroyed.add(epoch)
        self.live.pop(epoch, None)
        self.faults.after("destroy_epoch")

    async def epochs(self) -> tuple[Epoch, ...]:
        self.faults.before("epochs")
        return tuple(sorted(self.live))

    async def wrap(self, epoch: Epoch, key: bytes, binding: bytes) -> bytes:
        self.faults.before("wrap")
        nonce = os.urandom(12)
        wrapped = nonce + AESGCM(self._key(epoch)).encrypt(nonce, key, binding)
        self.faults.after("wrap")
        return wrapped

    async def unwrap(self, epoch: Epoch, wrapped: bytes, binding: bytes) -> bytes:
        self.faults.before("unwrap")
        cipher = AESGCM(self._key(epoch))
        try:
            key = cipher.decrypt(wrapped[:12], wrapped[12:], binding)
        except (InvalidTag, ValueError) as error:
            raise UnwrapFailed from error
        self.faults.after("unwrap")
        return key

    async def rewrap(self, old: Epoch, new: Epoch, keys: Sequence[tuple[bytes, bytes]]) -> list[bytes | None]:
        self.faults.before("rewrap")
        made = await rewrap_each(self, old, new, keys)
        self.faults.after("rewrap")
        return made

    async def fence(self, handle: str) -> None:
        self.faults.before("fence")
        self.fences.add(self._digest(handle))
        self.faults.after("fence")

    async def is_fenced(self, handle: str) -> bool:
        self.faults.before("is_fenced")
        return self._digest(handle) in self.fences

    async def mac(self, tenant: str, label: str, data: bytes) -> bytes:
        self.faults.before("mac")
        secret = hmac.digest(self._secret, repr((tenant, label)).encode(), "sha256")
        return hmac.digest(secret, data, "sha256")

    def _key(self, epoch: Epoch) -> bytes:
        if epoch not in self.live:
            raise EpochDestroyed
        return self.live[epoch]

    def _digest(self, handle: str) -> bytes:
        return hmac.digest(self._secret, handle.encode(), "sha256")


class BreakableKeys:
    """The same door over any key service, real ones included, that can be told to break."""

    def __init__(self, inner: KeyService) -> None:
        self.inner = inner
        self.faults = Faults(KeyServiceUnavailable)

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

    async def create_epoch(self, epoch: Epoch) -> None:
        self.faults.before("create_epoch")
        await self.inner.create_epoch(epoch)
        self.faults.after("create_epoch")

    async def destroy_epoch(self, epoch: Epoch) -> None:
        self.faults.before("destroy_epoch")
        await self.inner.destroy_epoch(epoch)
        self.faults.after("destroy_epoch")

    async def epochs(self) -> tuple[Epoch, ...]:
        self.faults.before("epochs")
        return await self.inner.epochs()

    async def wrap(self, epoch: Epoch, key: bytes, binding: bytes) -> bytes:
        self.faults.before("wrap")
        wrapped = await self.inner.wrap(epoch, key, binding)
        self.faults.after("wrap")
        return wrapped

    async def unwrap(self, epoch: Epoch, wrapped: bytes, binding: bytes) -> bytes:
        self.faults.before("unwrap")
        key = await self.inner.unwrap(epoch, wrapped, binding)
        self.faults.after("unwrap")
        return key

    async def rewrap(self, old: Epoch, new: Epoch, keys: Sequence[tuple[bytes, bytes]]) -> list[bytes | None]:
        self.faults.before("rewrap")
        made = await self.inner.rewrap(old, new, keys)
        self.faults.after("rewrap")
        return made

    async def fence(self, handle: str) -> None:
        self.faults.before("fence")
        await self.inner.fence(handle)
        self.faults.after("fence")

    async def is_fenced(self, handle: str) -> bool:
        self.faults.before("is_fenced")
        return await self.inner.is_fenced(handle)

    async def mac(self, tenant: str, label: str, data: bytes) -> bytes:
        self.faults.before("mac")
        return await self.inner.mac(tenant, label, data)
