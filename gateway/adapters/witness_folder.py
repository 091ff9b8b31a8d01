"""What a witness keeps: its keys, and the newest checkpoint of each log that it cosigned.

    ed25519.seed      32 secret bytes in hex: the key of cosignature/v1
    ml-dsa-44.seed    likewise: the key of ML-DSA-44 cosignatures
    vkeys             the verifier keys, one a line; made last, so that a folder with it is whole
    state/            the newest checkpoints, in the form of `lock_file`
    running           locked by the process that is this witness

Losing `state/` is losing the promise: a witness that has forgotten what it cosigned
would cosign a fork.  It is never made anew, and restoring an older copy of it does
the same harm, so backups leave it out.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from audit.cosign import Cosigner
from audit.errors import NoteInvalid
from audit.note import Algorithm
from gateway.adapters.disk import sync_folder, write_new
from gateway.adapters.keys_local import read_root_key
from gateway.adapters.lock_file import FileLock
from gateway.errors import LetheError

VKEYS = "vkeys"
STATE = "state"
RUNNING = "running"
ALGORITHMS: tuple[Algorithm, ...] = ("ed25519", "ml-dsa-44")


class WitnessFolderInvalid(Exception):
    """A folder that is not that of a witness, or not to be used now; `code` says why."""

    def __init__(self, code: str, message: str) -> None:
        """Keep the code."""
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class WitnessFolder:
    """A witness's folder, held by this process alone until `close`."""

    cosigners: tuple[Cosigner, ...]
    state: FileLock
    running: int

    @property
    def name(self) -> str:
        """The witness's name, which is that of its keys."""
        return self.cosigners[0].name

    def close(self) -> None:
        """Let another process have it."""
        self.state.close()
        os.close(self.running)


def create(directory: Path, name: str) -> tuple[str, ...]:
    """Make the folder of a new witness and return its verifier keys.

    Raises:
        WitnessFolderInvalid: The directory is not empty, or the name names no key.
        OSError, LetheError: The disk refuses; what was made so far is no witness, and is left.
    """
    seeds = {algorithm: os.urandom(32) for algorithm in ALGORITHMS}
    try:
        vkeys = tuple(Cosigner(name, seed, algorithm).vkey() for algorithm, seed in seeds.items())
    except NoteInvalid as error:
        raise WitnessFolderInvalid("witness_name", "a name has no spaces and no plus") from error
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise WitnessFolderInvalid("witness_folder_not_empty", "the folder holds something already")
    directory.chmod(0o700)
    for algorithm, seed in seeds.items():
        write_new(directory / f"{algorithm}.seed", f"{seed.hex()}\n".encode())
    FileLock.create(directory / STATE).close()
    write_new(directory / VKEYS, "".join(f"{vkey}\n" for vkey in vkeys).encode())
    sync_folder(directory)
    sync_folder(directory.parent)
    return vkeys


def open_folder(directory: Path) -> WitnessFolder:
    """Return the witness of a folder, now held by this process.

    Raises:
        WitnessFolderInvalid: Another process is this witness, or the folder is none or not private.
        LetheError: The state cannot be used; `detail` says why.
        OSError: The disk refuses.
    """
    try:
        vkeys = (directory / VKEYS).read_text("utf-8").split()
    except FileNotFoundError:
        raise WitnessFolderInvalid("witness_folder_missing", "no witness was made there: --init") from None
    if stat.S_IMODE(directory.stat().st_mode) & 0o077:
        raise WitnessFolderInvalid("witness_folder_open", "others may look into the folder")
    cosigners = _cosigners(directory, vkeys)
    running = _take(directory / RUNNING)
    try:
        return WitnessFolder(cosigners, FileLock(directory / STATE), running)
    except BaseException:
        os.close(running)
        raise


def _cosigners(directory: Path, vkeys: list[str]) -> tuple[Cosigner, ...]:
    """Return the keys, if they are those that were told to others."""
    name = vkeys[0].partition("+")[0] if vkeys else ""
    try:
        found = tuple(
            Cosigner(name, read_root_key(directory / f"{algorithm}.seed", os.geteuid()), algorithm)
            for algorithm in ALGORITHMS
        )
    except (LetheError, NoteInvalid, FileNotFoundError) as error:
        raise WitnessFolderInvalid("witness_key_unreadable", "a seed is missing, open or damaged") from error
    if [cosigner.vkey() for cosigner in found] != vkeys:
        raise WitnessFolderInvalid("witness_key_changed", "the seeds are not those of the file vkeys")
    return found


def _take(place: Path) -> int:
    """Lock the file for the life of this process; the system lets go of it whatever happens."""
    descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
            raise
        raise WitnessFolderInvalid("witness_running", "another process is this witness") from error
    return descriptor
