"""The key hierarchy below the key service, and what it is bound to.

    root          in the key service
    epoch key     in the key service, destroyed to make backups unreadable
    subject key   random, per (tenant, subject, class, retention month), wrapped by an epoch key
    DEK           random, per object, wrapped by a subject key

A subject key never encrypts anything itself: each use has a key of its own,
HKDF-SHA256 of the subject key with the use's label.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gateway.ports.clock import Clock
from gateway.vault.box import derive, need_key, open_box, prefixed, seal_box

DEK_LABEL = b"lethe.dev/dek/v1"
COLUMN_LABEL = b"lethe.dev/column/v1"
BINDING_LABEL = b"lethe.dev/binding/v1"

Key = bytes | bytearray


@dataclass(frozen=True, slots=True)
class Binding:
    """What sealed bytes belong to; they open nowhere else.

    `handle` is the row handle of the subject (or the key's id, where what is
    sealed outlives the handle), `item` the id of the object or record, `cls` the
    class of the subject key, `purpose` may be empty.
    """

    tenant: str
    handle: str
    cls: str
    item: str
    purpose: str

    def aad(self) -> bytes:
        """Return the associated data: the label, then the five fields in order as UTF-8.

        Each of the six stands after its length (4 bytes, big-endian), so no two
        bindings give the same bytes.  docs/reference/sealed-object.md fixes this form.
        """
        fields = (self.tenant, self.handle, self.cls, self.item, self.purpose)
        return prefixed(BINDING_LABEL, *(text.encode() for text in fields))


def wrap_dek(subject_key: Key, dek: Key, binding: Binding) -> bytes:
    """Return the object key wrapped under the subject key (60 bytes).

    Raises:
        ValueError: A key is not 32 bytes long.
    """
    need_key(dek)
    return seal_box(derive(subject_key, DEK_LABEL), dek, binding.aad())


def unwrap_dek(subject_key: Key, wrapped: bytes, binding: Binding) -> bytes:
    """Return the object key.

    Raises:
        SealBroken: Another subject key, another binding, or altered bytes.
    """
    return open_box(derive(subject_key, DEK_LABEL), wrapped, binding.aad())


def seal_column(subject_key: Key, plaintext: bytes, binding: Binding) -> bytes:
    """Return a column's value sealed under the subject key; it is 28 bytes longer."""
    return seal_box(derive(subject_key, COLUMN_LABEL), plaintext, binding.aad())


def open_column(subject_key: Key, sealed: bytes, binding: Binding) -> bytes:
    """Return a column's value.

    Raises:
        SealBroken: Another subject key, another binding, or altered bytes.
    """
    return open_box(derive(subject_key, COLUMN_LABEL), sealed, binding.aad())


def zero(secret: bytearray) -> None:
    """Overwrite `secret` with zeros: best effort.

    Python copies bytes where it pleases; this ends the one copy that we hold.
    """
    secret[:] = bytes(len(secret))


@dataclass(slots=True)
class _Held:
    handle: str
    secret: bytearray
    since: datetime


@dataclass(slots=True)
class KeyCache:
    """Opened subject keys, at most `capacity` of them, each for at most `ttl`.

    The least recently used goes first.  What goes is overwritten.  Not safe
    between threads: it belongs to the loop.
    """

    capacity: int
    ttl: timedelta
    clock: Clock
    _by_use: OrderedDict[str, _Held] = field(default_factory=OrderedDict, init=False, repr=False)
    _by_age: dict[str, None] = field(default_factory=dict, init=False, repr=False)
    _evicted: dict[str, datetime] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse a cache that could hold nothing.

        Raises:
            ValueError: The capacity is below one.
        """
        if self.capacity < 1:
            raise ValueError("a cache holds at least one key")

    def __len__(self) -> int:
        return len(self._by_use)

    def get(self, key_id: str) -> bytes | None:
        """Return the key, or None where it is not held or held too long."""
        self.expire()
        held = self._by_use.get(key_id)
        if held is None or not self._is_fresh(held):
            return None
        self._by_use.move_to_end(key_id)
        return bytes(held.secret)

    def put(self, key_id: str, handle: str, secret: Key) -> None:
        """Hold a copy of the key of `handle` from now on, unless that subject was just evicted.

        A key that was being opened while its subject was erased must not come back.
        """
        self.expire()
        if handle in self._evicted:
            return
        self._drop(key_id)
        while len(self._by_use) >= self.capacity:
            self._drop(next(iter(self._by_use)))
        self._by_use[key_id] = _Held(handle, bytearray(secret), self.clock.now())
        self._by_age[key_id] = None

    def evict(self, handle: str) -> None:
        """Drop every key of the subject, and hold none of it for a term."""
        self._evicted[handle] = self.clock.now()
        for key_id in [key_id for key_id, held in self._by_use.items() if held.handle == handle]:
            self._drop(key_id)

    def holds(self, handle: str, key_ids: Collection[str] = ()) -> bool:
        """Tell whether a key of the subject, or one with such an id, is held; an empty handle is nobody's."""
        is_theirs = bool(handle) and any(held.handle == handle for held in self._by_use.values())
        return is_theirs or not self._by_use.keys().isdisjoint(key_ids)

    def clear(self) -> None:
        """Drop every key."""
        for key_id in list(self._by_use):
            self._drop(key_id)

    def _is_fresh(self, held: _Held) -> bool:
        """Tell whether a key is within its term; one from the future (a clock set back) is not."""
        return timedelta(0) <= self.clock.now() - held.since < self.ttl

    def expire(self) -> None:
        """Drop what is too old, oldest first; called at every use, and by a timer where there is none."""
        for handle, since in list(self._evicted.items()):
            if self.clock.now() - since >= self.ttl:
                del self._evicted[handle]
        while self._by_age:
            oldest = next(iter(self._by_age))
            if self._is_fresh(self._by_use[oldest]):
                return
            self._drop(oldest)

    def _drop(self, key_id: str) -> None:
        held = self._by_use.pop(key_id, None)
        if held is not None:
            self._by_age.pop(key_id)
            zero(held.secret)
