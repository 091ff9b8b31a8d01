"""A key service in two places: epoch keys in a service far away, everything that only grows in a directory.

Such services make, use and destroy keys well, but hold no hundred thousand small
facts: tags and aliases are few, and their listings slow.  Fences, bars of destroyed
epochs and the root of the pseudonyms therefore rest in a local keyring, whose own
`epochs/` stays empty.  That directory is part of the service: processes on several
machines need the same one, and a lost one lets nothing be opened or fenced.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from gateway.adapters.keys_local import LocalKeyring
from gateway.ports.keys import Epoch, EpochDestroyed, rewrap_each


class FarKeys(Protocol):
    """Epoch keys in a service; every method raises `KeyServiceUnavailable` when it does not answer."""

    @property
    def name(self) -> str:
        """The adapter's name."""

    @property
    def is_experimental(self) -> bool:
        """Whether it was never tried against the real service."""

    @property
    def destroy_latency(self) -> timedelta:
        """Time from `destroy` returning until the key is gone for good."""

    @property
    def copies_outside_our_control(self) -> bool:
        """What the operator declares of copies."""

    async def create(self, epoch: Epoch) -> None:
        """Make the epoch key durable, unless there is one."""

    async def destroy(self, epoch: Epoch) -> None:
        """Destroy the epoch key; one that is not there is destroyed."""

    async def epochs(self) -> set[Epoch]:
        """List the epochs that have a key."""

    async def wrap(self, epoch: Epoch, key: bytes, binding: bytes) -> bytes:
        """Return `key` encrypted, as the port has it."""

    async def unwrap(self, epoch: Epoch, wrapped: bytes, binding: bytes) -> bytes:
        """Return the key inside `wrapped`, as the port has it."""

    async def close(self) -> None:
        """Let the service go."""


@dataclass(frozen=True, slots=True)
class SplitKeys:
    """The `KeyService` over epoch keys far away and a register nearby."""

    far: FarKeys
    near: LocalKeyring

    @property
    def name(self) -> str:
        """The adapter's name."""
        return self.far.name

    @property
    def is_experimental(self) -> bool:
        """As the service's adapter says."""
        return self.far.is_experimental

    @property
    def destroy_latency(self) -> timedelta:
        """As the service's adapter says."""
        return self.far.destroy_latency

    @property
    def copies_outside_our_control(self) -> bool:
        """As the service's adapter says."""
        return self.far.copies_outside_our_control

    async def create_epoch(self, epoch: Epoch) -> None:
        """Make the epoch key durable; see the port."""
        await self._refuse_barred(epoch)
        await self.far.create(epoch)
        try:
            # A destruction in between either destroyed the key or left its bar before we look.
            await self._refuse_barred(epoch)
        except EpochDestroyed:
            await self.far.destroy(epoch)
            raise

    async def destroy_epoch(self, epoch: Epoch) -> None:
        """Destroy in an order that a crash may cut anywhere: (1) bar, (2) destroy."""
        await self.near.bar(epoch)
        await self.far.destroy(epoch)

    async def epochs(self) -> tuple[Epoch, ...]:
        """List the epochs whose keys exist, sorted; keys that a crash left of destroyed ones go now."""
        found = await self.far.epochs()
        barred = {epoch for epoch in found if await self.near.is_barred(epoch)}
        if not found:
            # A register that is not there must not pass for one that bars nothing.
            await self.near.is_fenced("")
        for epoch in barred:
            await self.far.destroy(epoch)
        return tuple(sorted(found - barred))

    async def wrap(self, epoch: Epoch, key: bytes, binding: bytes) -> bytes:
        """Return `key` encrypted under the epoch key; see the port."""
        await self._refuse_barred(epoch)
        return await self.far.wrap(epoch, key, binding)

    async def unwrap(self, epoch: Epoch, wrapped: bytes, binding: bytes) -> bytes:
        """Return the key inside `wrapped`; see the port."""
        await self._refuse_barred(epoch)
        return await self.far.unwrap(epoch, wrapped, binding)

    async def rewrap(self, old: Epoch, new: Epoch, keys: Sequence[tuple[bytes, bytes]]) -> list[bytes | None]:
        """Return the keys of `old` wrapped under `new`; see the port."""
        return await rewrap_each(self, old, new, keys)

    async def fence(self, handle: str) -> None:
        """Record durably that this handle never gets a key again."""
        await self.near.fence(handle)

    async def is_fenced(self, handle: str) -> bool:
        """Tell whether `fence` was called for this handle."""
        return await self.near.is_fenced(handle)

    async def mac(self, tenant: str, label: str, data: bytes) -> bytes:
        """Return HMAC-SHA256 of `data` under the tenant's key for `label`."""
        return await self.near.mac(tenant, label, data)

    async def _refuse_barred(self, epoch: Epoch) -> None:
        if await self.near.is_barred(epoch):
            raise EpochDestroyed("the epoch was destroyed")


def name_of(epoch: Epoch) -> str:
    """Return the epoch's text form in letters and digits that every service takes in a name (base32).

    Raises:
        ValueError: The text form would read back as another epoch.
    """
    return base64.b32encode(epoch.text().encode()).decode().rstrip("=").lower()


def read_names(names: Iterable[str]) -> Iterator[Epoch]:
    """Yield the epochs; a name that is none of ours is passed over."""
    for name in names:
        with contextlib.suppress(ValueError):
            padded = name.upper() + "=" * (-len(name) % 8)
            epoch = Epoch.parse(base64.b32decode(padded).decode())
            if name_of(epoch) == name:
                yield epoch
