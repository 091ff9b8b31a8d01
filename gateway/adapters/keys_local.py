"""The key service in a directory: for one machine, where no hardware module is at hand.

    root.key            32 random bytes in hex; everything else hangs on it
    epochs/             NAME.key: one epoch key each, sealed under the root.  Backups exclude it.
    destroyed/          NAME: an epoch that was destroyed and never comes back
    fences/             HMAC(fence key, handle) in hex: subjects that never get a key again

NAME is the percent-encoded text form of the epoch.  Directories are 0700, files
0600, all owned by the user who runs the gateway; anything more open is refused.
`destroyed/` and `fences/` lie outside `epochs/` so that backups keep them: an
epoch key that comes back by mistake is then still refused.
docs/reference/sealed-object.md fixes the formats.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hmac
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import ParamSpec, TypeVar
from urllib.parse import quote, unquote

from gateway.adapters.disk import sync_folder, write_new
from gateway.errors import KeyServiceUnavailable
from gateway.ports.keys import Epoch, EpochDestroyed, UnwrapFailed
from gateway.vault.box import KEY_BYTES, derive, open_box, prefixed, rebox, seal_box
from gateway.vault.errors import SealBroken

P = ParamSpec("P")
T = TypeVar("T")

ROOT_FILE = "root.key"
EPOCHS = "epochs"
DESTROYED = "destroyed"
FENCES = "fences"

_EPOCH_LABEL = b"lethe.dev/keyring/epoch/v1"
_FENCE_LABEL = b"lethe.dev/keyring/fence/v1"
_MAC_LABEL = b"lethe.dev/keyring/mac/v1"

# The signature line is fixed by https://bford.info/cachedir/.
_MARKERS = {
    "CACHEDIR.TAG": "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# Not a cache: epoch keys.  The tag makes backup tools leave them out.\n",
    ".nobackup": "",
    "README": "Epoch keys.  Do not back up, copy or snapshot this directory: what is erased stays\n"
    "erased only if no copy of a destroyed key exists.  Losing it loses what it protects.\n",
}


def read_root_key(path: Path, owner: int) -> bytes:
    """Return the 32 bytes of the root key, kept raw or as 64 hex digits.

    Raises:
        KeyServiceUnavailable: It is not a regular file of `owner` (a user id) that
            nobody else may open, or holds something else.
        OSError: It cannot be read.
    """
    # O_NONBLOCK: a FIFO in its place must not hang us; it is refused below.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise KeyServiceUnavailable("the root key is not a regular file", detail="key_kind")
        _refuse_unless_private(info, owner)
        content = file.read(4 * KEY_BYTES)
    if len(content) == KEY_BYTES:
        return content
    try:
        root = bytes.fromhex(content.decode("ascii"))
    except ValueError as error:
        raise KeyServiceUnavailable("the root key is malformed", detail="key_malformed") from error
    if len(root) != KEY_BYTES:
        raise KeyServiceUnavailable("the root key is malformed", detail="key_malformed")
    return root


@dataclass(frozen=True, slots=True)
class LocalKeyring:
    """The `KeyService` over a directory.

    Nothing is kept in memory: each call reads what it needs, so that a key
    destroyed by another process is destroyed here too.  `destroy_epoch`
    overwrites in place; on file systems that keep old blocks (snapshots, copy on
    write) and on flash that is best effort, as `epochs/README` says.
    """

    directory: Path

    @classmethod
    def create(cls, directory: Path) -> LocalKeyring:
        """Make a new keyring and return it; blocks, for use outside the loop.

        The root key comes last, so a keyring that has one is complete, and a
        creation that broke off can be repeated.

        Raises:
            FileExistsError: There is a keyring, or what is left of one.
            KeyServiceUnavailable: The directory is not private.
            OSError: The disk refuses.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_unless_private(directory.stat(), os.geteuid())
        if _is_there(directory / ROOT_FILE):
            raise FileExistsError("a keyring stands there")
        for name in (EPOCHS, DESTROYED, FENCES):
            folder = directory / name
            folder.mkdir(mode=0o700, exist_ok=True)
            # A new root over old epochs would lock them for good: somebody must look first.
            if _names(folder) - set(_MARKERS):
                raise FileExistsError("a keyring without its root key stands there")
        for name, text in _MARKERS.items():
            (directory / EPOCHS / name).write_text(text)
        sync_folder(directory / EPOCHS)
        write_new(directory / ROOT_FILE, os.urandom(KEY_BYTES).hex().encode() + b"\n")
        sync_folder(directory.parent)
        return cls(directory)

    @property
    def name(self) -> str:
        """The adapter's name."""
        return "local"

    @property
    def is_experimental(self) -> bool:
        """No."""
        return False

    @property
    def destroy_latency(self) -> timedelta:
        """None: the key is gone when `destroy_epoch` returns."""
        return timedelta(0)

    @property
    def copies_outside_our_control(self) -> bool:
        """No: backups leave `epochs/` out; whoever copies it anyway breaks the promise."""
        return False

    async def create_epoch(self, epoch: Epoch) -> None:
        """Make the epoch key durable; see the port."""
        await _ask(self._create_epoch, epoch)

    async def destroy_epoch(self, epoch: Epoch) -> None:
        """Destroy the epoch key for good; see the port."""
        await _ask(self._destroy_epoch, epoch)

    async def epochs(self) -> tuple[Epoch, ...]:
        """List the epochs whose keys exist, sorted."""
        return await _ask(self._epochs)

    async def bar(self, epoch: Epoch) -> None:
        """Record durably that the epoch never comes back, wherever its key is."""
        await _ask(self._destroy_epoch, epoch)

    async def is_barred(self, epoch: Epoch) -> bool:
        """Tell whether the epoch was barred or destroyed."""
        return await _ask(self._is_barred, epoch)

    async def wrap(self, epoch: Epoch, key: bytes, binding: bytes) -> bytes:
        """Return `key` encrypted under the epoch key; see the port."""
        return seal_box(await _ask(self._epoch_key, epoch), key, binding)

    async def unwrap(self, epoch: Epoch, wrapped: bytes, binding: bytes) -> bytes:
        """Return the key inside `wrapped`; see the port."""
        try:
            return open_box(await _ask(self._epoch_key, epoch), wrapped, binding)
        except SealBroken as error:
            raise UnwrapFailed("a wrapped key does not open") from error

    async def rewrap(self, old: Epoch, new: Epoch, keys: Sequence[tuple[bytes, bytes]]) -> list[bytes | None]:
        """Return the keys of `old` wrapped under `new`; see the port.  Each epoch key is read once."""
        return await _ask(self._rewrap, old, new, keys)

    async def fence(self, handle: str) -> None:
        """Record durably that this handle never gets a key again."""
        await _ask(self._fence, handle)

    async def is_fenced(self, handle: str) -> bool:
        """Tell whether `fence` was called for this handle."""
        return await _ask(self._is_fenced, handle)

    async def mac(self, tenant: str, label: str, data: bytes) -> bytes:
        """Return HMAC-SHA256 of `data` under the tenant's key for `label`."""
        secret = derive(await _ask(self._root), prefixed(_MAC_LABEL, tenant.encode(), label.encode()))
        return hmac.digest(secret, data, "sha256")

    def _root(self) -> bytes:
        """Return the root key of a keyring that is whole and private."""
        owner = os.geteuid()
        for name in (".", EPOCHS, DESTROYED, FENCES):
            info = (self.directory / name).stat()
            if not stat.S_ISDIR(info.st_mode):
                raise KeyServiceUnavailable("a directory of the keyring is missing", detail="key_kind")
            _refuse_unless_private(info, owner)
        return read_root_key(self.directory / ROOT_FILE, owner)

    def _key_file(self, epoch: Epoch) -> Path:
        return self.directory / EPOCHS / f"{_stem(epoch)}.key"

    def _refuse_destroyed(self, epoch: Epoch) -> None:
        if _is_there(self.directory / DESTROYED / _stem(epoch)):
            raise EpochDestroyed("the epoch was destroyed")

    def _create_epoch(self, epoch: Epoch) -> None:
        kek = derive(self._root(), _EPOCH_LABEL)
        self._refuse_destroyed(epoch)
        place = self._key_file(epoch)
        if not _is_there(place):
            with contextlib.suppress(FileExistsError):
                write_new(place, seal_box(kek, os.urandom(KEY_BYTES), str(epoch).encode()))
        # Also when another call made the file: it may not have come to its sync.
        sync_folder(place.parent)
        try:
            # A destroy in between either erased the file or left its tombstone before we look.
            self._refuse_destroyed(epoch)
        except EpochDestroyed:
            _erase(place)
            raise

    def _destroy_epoch(self, epoch: Epoch) -> None:
        """Destroy in an order that a crash may cut anywhere: (1) bar, (2) overwrite, (3) unlink, (4) sync."""
        self._root()
        _touch_durably(self.directory / DESTROYED / _stem(epoch))
        _erase(self._key_file(epoch))

    def _is_barred(self, epoch: Epoch) -> bool:
        self._root()
        return _is_there(self.directory / DESTROYED / _stem(epoch))

    def _epochs(self) -> tuple[Epoch, ...]:
        self._root()
        names = _names(self.directory / EPOCHS)
        stems = {name.removesuffix(".key") for name in names if name.endswith(".key")}
        return tuple(sorted(_parse_stems(stems - _names(self.directory / DESTROYED))))

    def _epoch_key(self, epoch: Epoch) -> bytes:
        kek = derive(self._root(), _EPOCH_LABEL)
        self._refuse_destroyed(epoch)
        try:
            sealed = self._key_file(epoch).read_bytes()
        except FileNotFoundError:
            raise EpochDestroyed("the epoch key does not exist") from None
        try:
            return open_box(kek, sealed, str(epoch).encode())
        except SealBroken as error:
            raise KeyServiceUnavailable("an epoch key does not open", detail="epoch_unreadable") from error

    def _rewrap(self, old: Epoch, new: Epoch, keys: Sequence[tuple[bytes, bytes]]) -> list[bytes | None]:
        into = self._epoch_key(new)
        try:
            out_of = self._epoch_key(old)
        except EpochDestroyed:
            return [None] * len(keys)
        return rebox(out_of, into, keys)

    def _fence_file(self, handle: str) -> Path:
        secret = derive(self._root(), _FENCE_LABEL)
        return self.directory / FENCES / hmac.digest(secret, handle.encode(), "sha256").hex()

    def _fence(self, handle: str) -> None:
        _touch_durably(self._fence_file(handle))

    def _is_fenced(self, handle: str) -> bool:
        # `_fence_file` has seen that the directory is there: a missing one is no "no".
        return _is_there(self._fence_file(handle))


async def _ask(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run disk work in a thread; what the disk refuses, the key service does not answer."""
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "unknown").lower()
        raise KeyServiceUnavailable("the local keyring does not answer", detail=code) from error


def _refuse_unless_private(info: os.stat_result, owner: int) -> None:
    if info.st_uid != owner:
        raise KeyServiceUnavailable("a part of the keyring belongs to another user", detail="key_owner")
    if stat.S_IMODE(info.st_mode) & 0o077:
        raise KeyServiceUnavailable("a part of the keyring is open to other users", detail="key_mode")


def _stem(epoch: Epoch) -> str:
    """Return the file name of an epoch, without a suffix.

    Raises:
        ValueError: The epoch's text form would read back as another epoch.
    """
    return quote(epoch.text(), safe="")


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _is_there(place: Path) -> bool:
    """Tell whether a file exists; unlike `Path.exists`, a disk that refuses to say is no "no"."""
    try:
        place.stat()
    except FileNotFoundError:
        return False
    return True


def _parse_stems(stems: set[str]) -> Iterator[Epoch]:
    """Yield the epochs; a file that is none of ours is passed over."""
    for stem in stems:
        with contextlib.suppress(ValueError):
            epoch = Epoch.parse(unquote(stem))
            if _stem(epoch) == stem:
                yield epoch


def _touch_durably(place: Path) -> None:
    """Leave an empty file that survives a crash; one that is there is made to survive."""
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(place.parent)


def _erase(key_file: Path) -> None:
    """Overwrite and unlink the key file and the drafts a crash may have left of it."""
    for name in _names(key_file.parent):
        if name == key_file.name or name.startswith(f"{key_file.name}."):
            with contextlib.suppress(FileNotFoundError):
                _overwrite(key_file.parent / name)
                (key_file.parent / name).unlink()
    sync_folder(key_file.parent)


def _overwrite(place: Path) -> None:
    # In place, not truncated: other names of the same file lose the key too.
    descriptor = os.open(place, os.O_WRONLY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(os.urandom(max(os.fstat(descriptor).st_size, KEY_BYTES)))
        file.flush()
        os.fsync(descriptor)
