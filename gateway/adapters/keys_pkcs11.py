"""The key service in a hardware module, over PKCS#11: epoch keys are made in the token and never leave it.

What lies in the token, all of it private, so that only who logs in sees it:

    lethe.dev/root           a generic secret that only signs (HMAC): fences, bars and pseudonyms hang on it
    lethe.dev/epoch/EPOCH    one AES-256 key each, sensitive and not extractable
    register                 data objects with the application `lethe.dev/register`: 16 bytes for every
                             fenced handle and every destroyed epoch, HMACs under the root
    generation               a data object that is replaced after every entry in the register, so that who
                             still has the last one need not read the register again

PKCS#11 has no "create unless it is there" and no transaction between processes.
Two things make that harmless.  Where two processes made the key of one epoch at
the same time, both keys stand: either wraps, both are tried, and both are destroyed.
And the register only grows: who adds, writes a new object with what the open ones
hold and more, and only then destroys these; a crash or a race leaves entries twice,
never none.  docs/reference/key-services.md fixes the forms.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pkcs11
from pkcs11 import Attribute, GCMParams, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.exceptions import (
    ArgumentsBad,
    DataInvalid,
    DataLenRange,
    DeviceMemory,
    DeviceRemoved,
    EncryptedDataInvalid,
    EncryptedDataLenRange,
    FunctionFailed,
    GeneralError,
    NoSuchToken,
    ObjectHandleInvalid,
    PinExpired,
    PinIncorrect,
    PinInvalid,
    PinLenRange,
    PinLocked,
    PKCS11Error,
    SessionClosed,
    SessionHandleInvalid,
    TokenNotPresent,
)

from gateway.adapters.one_thread import OneThread
from gateway.adapters.secret_file import read_secret
from gateway.errors import KeyServiceUnavailable
from gateway.ports.keys import Epoch, EpochDestroyed, UnwrapFailed, rewrap_each
from gateway.vault.box import KEY_BYTES, NONCE_BYTES, TAG_BYTES, prefixed

T = TypeVar("T")

ROOT = "lethe.dev/root"
EPOCH = "lethe.dev/epoch/"
REGISTER = "lethe.dev/register"
OPEN, FULL = f"{REGISTER}/open", f"{REGISTER}/full"
GENERATION = "lethe.dev/generation"

ENTRY_BYTES = 16
SEGMENT_BYTES = 8192
"""A register object of this size is full: it is never written again."""

ATTEMPTS = 4
PAUSE_S = 0.02
_BATCH = 100

_WRAP_LABEL = b"lethe.dev/token/wrap/v1"
_MAC_LABEL = b"lethe.dev/token/mac/v1"
_FENCE_LABEL = b"lethe.dev/token/fence/v1"
_BAR_LABEL = b"lethe.dev/token/bar/v1"

_SEALED = {
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.PRIVATE: True,
    Attribute.MODIFIABLE: False,
}
_BAD_BOX = (
    ArgumentsBad,
    DataInvalid,
    DataLenRange,
    EncryptedDataInvalid,
    EncryptedDataLenRange,
    FunctionFailed,
    GeneralError,
)
"""What modules say of a box that does not open; some of it may also mean a module that is ill."""
_BAD_PIN = (PinExpired, PinIncorrect, PinInvalid, PinLenRange, PinLocked)
_DETAILS: dict[type[PKCS11Error], str] = {
    DeviceMemory: "token_full",
    DeviceRemoved: "token_missing",
    NoSuchToken: "token_missing",
    PKCS11Error: "module_unusable",
    TokenNotPresent: "token_missing",
    SessionClosed: "session_lost",
    SessionHandleInvalid: "session_lost",
}


@dataclass(frozen=True, slots=True)
class TokenPlace:
    """Which token of which module, and the file (0600) that holds its user PIN; an empty serial is any."""

    module: Path
    token: str
    pin_file: Path
    serial: str = ""


class TokenKeys:
    """The `KeyService` over a PKCS#11 token; at most one in a process.

    The module is used from one thread only (python-pkcs11 initialises it without
    locks) and everything is looked up in the token anew, or checked against it: what
    another process destroyed is destroyed here, too.  A session that is lost is
    opened again by the next call.
    """

    def __init__(self, place: TokenPlace, *, deadline_s: float = 10.0, has_copies: bool = False) -> None:
        """Take the place of the token; nothing is opened before the first call.

        Args:
            place: Module, token and PIN file.
            deadline_s: How long a caller waits for the module at most.
            has_copies: What the operator declares: the token is backed up, cloned or clustered.
        """
        self._token = _Token(place)
        self._thread = OneThread("pkcs11", deadline_s)
        self._has_copies = has_copies

    @classmethod
    async def create(cls, place: TokenPlace) -> None:
        """Make the root key in a token that has nothing of ours.

        Raises:
            FileExistsError: The token holds objects of ours already.
            KeyServiceUnavailable: The token does not answer.
        """
        made = cls(place)
        try:
            await made._ask(made._token.create)
        finally:
            await made.close()

    async def close(self) -> None:
        """Log out and let the module go; a module that hangs is left alone."""
        with contextlib.suppress(TimeoutError):
            await self._thread.ask(self._token.close)

    @property
    def name(self) -> str:
        """The adapter's name."""
        return "pkcs11"

    @property
    def is_experimental(self) -> bool:
        """No: it is tried against SoftHSM, which is a real module."""
        return False

    @property
    def destroy_latency(self) -> timedelta:
        """None: the token has destroyed the key when `destroy_epoch` returns."""
        return timedelta(0)

    @property
    def copies_outside_our_control(self) -> bool:
        """As declared: nothing in PKCS#11 tells whether a token is backed up or clustered."""
        return self._has_copies

    async def create_epoch(self, epoch: Epoch) -> None:
        """Make the epoch key in the token; see the port."""
        await self._ask(lambda: self._token.create_epoch(epoch))

    async def destroy_epoch(self, epoch: Epoch) -> None:
        """Destroy the epoch key for good; see the port."""
        await self._ask(lambda: self._token.destroy_epoch(epoch))

    async def epochs(self) -> tuple[Epoch, ...]:
        """List the epochs whose keys exist, sorted; keys that a crash left of destroyed ones go now."""
        return await self._ask(self._token.epochs)

    async def wrap(self, epoch: Epoch, key: bytes, binding: bytes) -> bytes:
        """Return `key` encrypted under the epoch key; see the port."""
        return await self._ask(lambda: self._token.wrap(epoch, key, binding))

    async def unwrap(self, epoch: Epoch, wrapped: bytes, binding: bytes) -> bytes:
        """Return the key inside `wrapped`; see the port."""
        return await self._ask(lambda: self._token.unwrap(epoch, wrapped, binding))

    async def rewrap(self, old: Epoch, new: Epoch, keys: Sequence[tuple[bytes, bytes]]) -> list[bytes | None]:
        """Return the keys of `old` wrapped under `new`; see the port."""
        return await rewrap_each(self, old, new, keys)

    async def fence(self, handle: str) -> None:
        """Record durably that this handle never gets a key again."""
        await self._ask(lambda: self._token.enter(_FENCE_LABEL, handle))

    async def is_fenced(self, handle: str) -> bool:
        """Tell whether `fence` was called for this handle."""
        return await self._ask(lambda: self._token.has(_FENCE_LABEL, handle))

    async def mac(self, tenant: str, label: str, data: bytes) -> bytes:
        """Return HMAC-SHA256 of `data` under the tenant's key for `label`.

        That key is an HMAC that the token computes; it leaves the token for the one call.
        """
        info = prefixed(_MAC_LABEL, tenant.encode(), label.encode())
        return hmac.digest(await self._ask(lambda: self._token.sign(info)), data, "sha256")

    async def _ask(self, work: Callable[[], T]) -> T:
        try:
            return await self._thread.ask(lambda: self._token.do(work))
        except TimeoutError:
            raise KeyServiceUnavailable("the token does not answer in time", detail="timeout") from None


@dataclass(slots=True)
class _Token:
    """The token, for one thread.  Methods other than `do` and `close` are work for `do`."""

    place: TokenPlace
    library: Any = None
    session: Any = None
    held: dict[str, list[Any]] = field(default_factory=dict)
    entries: set[bytes] = field(default_factory=set)
    read_segments: set[int] = field(default_factory=set)
    generations: dict[str, Any] = field(default_factory=dict)
    refused_pin: tuple[int, ...] = ()

    # --- the session -----------------------------------------------------------------------------

    def do(self, work: Callable[[], T]) -> T:
        """Do `work` in a session, and believe it only if the token was there to the end.

        An object that another process destroys meanwhile, and a module that trips over
        what another process writes (SoftHSM does), make it start anew in a new session;
        all work may be repeated.

        Raises:
            KeyServiceUnavailable: The module or the token fails.  The next call opens it again.
        """
        for attempt in range(ATTEMPTS):
            try:
                self._open()
                try:
                    return work()
                finally:
                    self._need_token()
            except KeyServiceUnavailable:
                self.close()
                raise
            except PKCS11Error as error:
                self.close()
                if attempt + 1 == ATTEMPTS or isinstance(error, DeviceMemory):
                    raise _unavailable(error) from error
                time.sleep(PAUSE_S * (attempt + 1))
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Let the module go."""
        self._forget()
        self.session = None
        if self.library is not None:
            library, self.library = self.library, None
            with contextlib.suppress(PKCS11Error):
                library.finalize()

    def _forget(self) -> None:
        """Forget every handle: they belong to a session.  What was entered in the register stays known."""
        self.held.clear()
        self.read_segments.clear()
        self.generations.clear()

    def _reopen(self) -> None:
        """Begin anew, to see what the token really kept: some modules say yes before the disk did."""
        self.close()
        self._open()

    def _open(self) -> None:
        if self.session is not None:
            return
        place = self.place
        pin, version = read_secret(place.pin_file, "pin")
        if version == self.refused_pin:
            # Asking again with a PIN that was refused would lock the token.
            raise KeyServiceUnavailable("the token refused the PIN", detail="pin_refused")
        if not place.module.is_file():
            raise KeyServiceUnavailable("the PKCS#11 module is not there", detail="module_missing")
        self.library = pkcs11.lib(str(place.module))
        serial = place.serial.encode() or None
        token = self.library.get_token(token_label=place.token, token_serial=serial)
        try:
            self.session = token.open(rw=True, user_pin=pin)
        except _BAD_PIN as error:
            self.refused_pin = version
            raise KeyServiceUnavailable("the token refused the PIN", detail="pin_refused") from error

    def _need_token(self) -> None:
        """Refuse to go on without the token: to a search, one that was pulled out looks empty."""
        if self.session is None:
            return
        known = self.session.token
        try:
            is_same = known.slot.get_token().serial == known.serial
        except PKCS11Error:
            is_same = False
        if not is_same:
            raise DeviceRemoved

    # --- objects ---------------------------------------------------------------------------------

    def _find(self, kind: ObjectClass, attribute: Attribute, value: str) -> list[Any]:
        asked = {Attribute.CLASS: kind, Attribute.TOKEN: True, attribute: value}
        return list(self.session.get_objects(asked, batch_size=_BATCH))

    def _keys(self, label: str) -> list[Any]:
        """Return the keys of that label, in use or found; there may be none."""
        held = self.held.get(label)
        # The handle of a destroyed object may be given to another: a handle proves nothing, the label does.
        if held and all(key[Attribute.LABEL] == label for key in held):
            return held
        return self._find_keys(label)

    def _find_keys(self, label: str) -> list[Any]:
        self.held.pop(label, None)
        found = self._find(ObjectClass.SECRET_KEY, Attribute.LABEL, label)
        for key in found:
            if key[Attribute.EXTRACTABLE] or not key[Attribute.SENSITIVE]:
                raise KeyServiceUnavailable("a key could leave the token", detail="key_extractable")
        if found:
            self.held[label] = found
        return found

    def _root(self) -> Any:
        roots = self._keys(ROOT)
        if len(roots) != 1:
            detail = "root_ambiguous" if roots else "root_missing"
            raise KeyServiceUnavailable("the token does not hold one root key of ours", detail=detail)
        return roots[0]

    def create(self) -> None:
        """Make the root key.

        Raises:
            FileExistsError: There is a root key, or an epoch key without one.
        """
        keys = self.session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY}, batch_size=_BATCH)
        if any(key[Attribute.LABEL].startswith((ROOT, EPOCH)) for key in list(keys)):
            raise FileExistsError("the token holds keys of ours already")
        self.session.generate_key(
            KeyType.GENERIC_SECRET,
            8 * KEY_BYTES,
            label=ROOT,
            store=True,
            capabilities=MechanismFlag.SIGN,
            template=_SEALED,
        )
        self._reopen()
        self._root()

    def sign(self, data: bytes) -> bytes:
        """Return HMAC-SHA256 of `data` under the root key."""
        return bytes(self._root().sign(data, mechanism=Mechanism.SHA256_HMAC))

    # --- epochs ----------------------------------------------------------------------------------

    def create_epoch(self, epoch: Epoch) -> None:
        """Make the epoch key durable, unless there is one."""
        label = EPOCH + epoch.text()
        self._refuse_destroyed(epoch)
        if not self._keys(label):
            self.session.generate_key(
                KeyType.AES,
                8 * KEY_BYTES,
                label=label,
                store=True,
                capabilities=MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
                template=_SEALED,
            )
            self._reopen()
            if not self._find_keys(label):
                raise _not_kept()
        try:
            # A destruction in between either destroyed the key or was entered before we look.
            self._refuse_destroyed(epoch)
        except EpochDestroyed:
            self._destroy_keys(label)
            raise

    def destroy_epoch(self, epoch: Epoch) -> None:
        """Destroy in an order that a crash may cut anywhere: (1) bar, (2) destroy every key of it."""
        label = EPOCH + epoch.text()
        self.enter(_BAR_LABEL, str(epoch))
        self._destroy_keys(label)

    def epochs(self) -> tuple[Epoch, ...]:
        """List the epochs, and finish destructions that broke off."""
        asked = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.KEY_TYPE: KeyType.AES}
        labels = {key[Attribute.LABEL] for key in list(self.session.get_objects(asked, batch_size=_BATCH))}
        self._root()
        found = set(_parse(labels))
        barred = {epoch for epoch in found if self.has(_BAR_LABEL, str(epoch))}
        for epoch in barred:
            self._destroy_keys(EPOCH + str(epoch))
        return tuple(sorted(found - barred))

    def wrap(self, epoch: Epoch, key: bytes, binding: bytes) -> bytes:
        """Return a box with `key`, sealed in the token."""
        keys = self._epoch_keys(epoch)
        nonce = os.urandom(NONCE_BYTES)
        return nonce + _encrypt(keys[0], nonce, key, _aad(epoch, binding))

    def unwrap(self, epoch: Epoch, wrapped: bytes, binding: bytes) -> bytes:
        """Return what is in the box.  Of an epoch that was made twice, either key may have sealed it."""
        keys = self._epoch_keys(epoch)
        if len(wrapped) < NONCE_BYTES + TAG_BYTES:
            raise UnwrapFailed("shorter than an empty box")
        aad = _aad(epoch, binding)
        opened = _decrypt(keys, wrapped, aad)
        if opened is None:
            # Of an epoch that was made twice we may know one key only.
            known = {key.handle for key in keys}
            others = [key for key in self._find_keys(EPOCH + str(epoch)) if key.handle not in known]
            opened = _decrypt(others, wrapped, aad)
        if opened is None:
            raise UnwrapFailed("a wrapped key does not open")
        return opened

    def _epoch_keys(self, epoch: Epoch) -> list[Any]:
        self._refuse_destroyed(epoch)
        keys = self._keys(EPOCH + epoch.text())
        if not keys:
            raise EpochDestroyed("the epoch key does not exist")
        return keys

    def _refuse_destroyed(self, epoch: Epoch) -> None:
        if self.has(_BAR_LABEL, str(epoch)):
            raise EpochDestroyed("the epoch was destroyed")

    def _destroy_keys(self, label: str) -> None:
        for key in self._find_keys(label):
            with contextlib.suppress(ObjectHandleInvalid):
                key.destroy()
        self.held.pop(label, None)

    # --- the register ----------------------------------------------------------------------------

    def has(self, label: bytes, name: str) -> bool:
        """Tell whether `name` was entered under `label`, by this process or any other."""
        entry = self._entry(label, name)
        if not self._is_current():
            generations = self._find(ObjectClass.DATA, Attribute.APPLICATION, GENERATION)
            # Labels before the register: what is entered from here on takes them away.
            labelled = {held[Attribute.LABEL]: held for held in generations}
            self._read_register()
            self.generations = labelled
        return entry in self.entries

    def enter(self, label: bytes, name: str) -> None:
        """Enter `name` durably; entering it again changes nothing.

        (1) A new object with the entry and all that the open ones hold, (2) once it is
        seen to be kept, these destroyed, (3) a new generation, so that every process
        reads again.  The third also for an entry that stands: who made it may have died
        before.
        """
        if not self.has(label, name):
            content = {self._entry(label, name)}
            for held in self._find(ObjectClass.DATA, Attribute.LABEL, OPEN):
                content.update(_entries(held))
            segment = OPEN if len(content) * ENTRY_BYTES < SEGMENT_BYTES else FULL
            self._create_data(REGISTER, segment, b"".join(sorted(content)))
            self._reopen()
            self._retire(segment, content)
        fresh = os.urandom(16).hex()
        self._create_data(GENERATION, fresh, b"-")
        for held in self._find(ObjectClass.DATA, Attribute.APPLICATION, GENERATION):
            with contextlib.suppress(ObjectHandleInvalid):
                if held[Attribute.LABEL] != fresh:
                    held.destroy()

    def _retire(self, segment: str, content: set[bytes]) -> None:
        """Destroy the open objects that a new one, found in the token, makes superfluous."""
        if not any(
            set(_entries(held)) == content for held in self._find(ObjectClass.DATA, Attribute.LABEL, segment)
        ):
            raise _not_kept()
        for held in self._find(ObjectClass.DATA, Attribute.LABEL, OPEN):
            with contextlib.suppress(ObjectHandleInvalid):
                # Proper subsets only: two processes that entered the same would destroy each other's.
                if set(_entries(held)) < content:
                    held.destroy()

    def _entry(self, label: bytes, name: str) -> bytes:
        return self.sign(prefixed(label, name.encode()))[:ENTRY_BYTES]

    def _is_current(self) -> bool:
        """Tell whether nothing was entered since the register was read: its generation is still there."""
        with contextlib.suppress(ObjectHandleInvalid):
            held = self.generations
            return bool(held) and all(held[label][Attribute.LABEL] == label for label in held)
        return False

    def _read_register(self) -> None:
        """Read what other processes entered; listed until it holds still, for a listing is no snapshot."""
        last: set[int] | None = None
        while True:
            found = self._find(ObjectClass.DATA, Attribute.APPLICATION, REGISTER)
            segments = {held.handle: held for held in found}
            if set(segments) == last:
                return
            last = set(segments)
            for handle in last - self.read_segments:
                content = _entries(segments[handle])
                self.entries.update(content)
                if len(content) * ENTRY_BYTES >= SEGMENT_BYTES:
                    self.read_segments.add(handle)

    def _create_data(self, application: str, label: str, content: bytes) -> None:
        self.session.create_object(
            {
                Attribute.CLASS: ObjectClass.DATA,
                Attribute.TOKEN: True,
                Attribute.PRIVATE: True,
                Attribute.MODIFIABLE: True,
                Attribute.APPLICATION: application,
                Attribute.LABEL: label,
                Attribute.VALUE: content,
            }
        )


def _aad(epoch: Epoch, binding: bytes) -> bytes:
    return prefixed(_WRAP_LABEL, str(epoch).encode(), binding)


def _encrypt(key: Any, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    return bytes(
        key.encrypt(
            plaintext, mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(nonce, aad, 8 * TAG_BYTES)
        )
    )


def _decrypt(keys: list[Any], box: bytes, aad: bytes) -> bytes | None:
    """Return what is in the box, or None where no key opens it though each of them works."""
    params = GCMParams(box[:NONCE_BYTES], aad, 8 * TAG_BYTES)
    for key in keys:
        try:
            return bytes(key.decrypt(box[NONCE_BYTES:], mechanism=Mechanism.AES_GCM, mechanism_param=params))
        except _BAD_BOX:
            # Modules say the same of a bad box and of themselves; a box that must open tells them apart.
            nonce = os.urandom(NONCE_BYTES)
            sound = GCMParams(nonce, aad, 8 * TAG_BYTES)
            probe = _encrypt(key, nonce, b"probe", aad)
            key.decrypt(probe, mechanism=Mechanism.AES_GCM, mechanism_param=sound)
    return None


def _entries(segment: Any) -> list[bytes]:
    content = bytes(segment[Attribute.VALUE])
    return [content[start : start + ENTRY_BYTES] for start in range(0, len(content), ENTRY_BYTES)]


def _parse(labels: set[str]) -> Iterator[Epoch]:
    """Yield the epochs; a key that is none of ours is passed over."""
    for label in labels:
        if label.startswith(EPOCH):
            with contextlib.suppress(ValueError):
                epoch = Epoch.parse(label.removeprefix(EPOCH))
                if EPOCH + str(epoch) == label:
                    yield epoch


def _not_kept() -> KeyServiceUnavailable:
    return KeyServiceUnavailable("the token did not keep what it took", detail="token_full")


def _unavailable(error: PKCS11Error) -> KeyServiceUnavailable:
    kind = type(error)
    named = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()
    return KeyServiceUnavailable("the token does not answer", detail=_DETAILS.get(kind, named))
