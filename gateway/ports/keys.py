"""The door to the key service: epoch keys, fences, keyed pseudonyms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol


@dataclass(frozen=True, slots=True, order=True)
class Epoch:
    """Names one epoch key: it wraps the subject keys of a tenant, class and retention month.

    `month` is `YYYY-MM`, the month in which what it protects expires, or `open`
    where no term is known in advance.  `roll` counts up when survivors are
    re-wrapped so that an older roll can be destroyed.
    """

    tenant: str
    cls: str
    month: str
    roll: int

    def __str__(self) -> str:
        """Give the stable text form `tenant/cls/month/roll`, used as associated data."""
        return f"{self.tenant}/{self.cls}/{self.month}/{self.roll}"

    @classmethod
    def parse(cls, text: str) -> Epoch:
        """Read the text form back."""
        tenant, key_class, month, roll = text.split("/")
        return cls(tenant, key_class, month, int(roll))

    def text(self) -> str:
        """Return the text form, for use as a name.

        Raises:
            ValueError: It would read back as another epoch.
        """
        text = str(self)
        if text.count("/") != 3 or Epoch.parse(text) != self:
            raise ValueError("a part of the epoch's name contains a slash")
        return text


class KeyService(Protocol):
    """Epoch keys that never leave, and what is done with them.

    Every method raises `KeyServiceUnavailable` when the service cannot answer;
    the caller then does nothing else (fail closed).
    """

    @property
    def name(self) -> str:
        """The adapter's name, as shown by `lethe key status`."""

    @property
    def is_experimental(self) -> bool:
        """Whether the adapter was never tried against the real service."""

    @property
    def destroy_latency(self) -> timedelta:
        """Time from `destroy_epoch` returning until the key is gone for good."""

    @property
    def copies_outside_our_control(self) -> bool:
        """Whether copies of epoch keys may exist that `destroy_epoch` does not reach."""

    async def create_epoch(self, epoch: Epoch) -> None:
        """Make the epoch key durable; creating it again changes nothing.

        Raises:
            EpochDestroyed: The epoch was destroyed; it never comes back.
        """

    async def destroy_epoch(self, epoch: Epoch) -> None:
        """Destroy the epoch key for good; destroying it again changes nothing."""

    async def epochs(self) -> tuple[Epoch, ...]:
        """List the epochs whose keys exist, sorted."""

    async def wrap(self, epoch: Epoch, key: bytes, binding: bytes) -> bytes:
        """Return `key` encrypted under the epoch key with `binding` as associated data.

        Raises:
            EpochDestroyed: The epoch key is destroyed or never existed.
        """

    async def unwrap(self, epoch: Epoch, wrapped: bytes, binding: bytes) -> bytes:
        """Return the key inside `wrapped`.

        Raises:
            EpochDestroyed: The epoch key is destroyed or never existed.
            UnwrapFailed: The bytes or the binding are not those that were wrapped.
        """

    async def rewrap(self, old: Epoch, new: Epoch, keys: Sequence[tuple[bytes, bytes]]) -> list[bytes | None]:
        """Return each (wrapped key, binding) of `old` wrapped under `new`, None where it does not open.

        As `unwrap` and `wrap` of each; a service that can does them all in one go.

        Raises:
            EpochDestroyed: The new epoch key is destroyed or never existed.
        """

    async def fence(self, handle: str) -> None:
        """Record durably that this subject handle never gets a key again.

        The service stores HMAC(fence key, handle) only.  Repeating is harmless.
        """

    async def is_fenced(self, handle: str) -> bool:
        """Tell whether `fence` was called for this handle."""

    async def mac(self, tenant: str, label: str, data: bytes) -> bytes:
        """Return HMAC-SHA256 of `data` under the tenant's key for `label` (32 bytes).

        Labels in use: `handle` (row handle of a subject), `backend` (job
        pseudonyms), `backend_subject` (pseudonyms of subjects, where an operator
        wants them), `idempotency` (digest of a request's content), `sought` (the key
        that seals what the search after an erasure looks for).
        """


class OneByOne(Protocol):
    """What `rewrap_each` needs of a service."""

    async def wrap(self, epoch: Epoch, key: bytes, binding: bytes) -> bytes:
        """Wrap a key, as the port has it."""

    async def unwrap(self, epoch: Epoch, wrapped: bytes, binding: bytes) -> bytes:
        """Unwrap a key, as the port has it."""


async def rewrap_each(
    service: OneByOne, old: Epoch, new: Epoch, keys: Sequence[tuple[bytes, bytes]]
) -> list[bytes | None]:
    """Do `rewrap` for a service that knows one key at a time."""
    made: list[bytes | None] = []
    for wrapped, binding in keys:
        try:
            key = await service.unwrap(old, wrapped, binding)
        except (EpochDestroyed, UnwrapFailed):
            made.append(None)
        else:
            made.append(await service.wrap(new, key, binding))
    return made


class EpochDestroyed(Exception):
    """The epoch key does not exist, or no longer."""


class UnwrapFailed(Exception):
    """The wrapped key does not open under this epoch and binding."""
