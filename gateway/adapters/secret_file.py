"""A secret in a file of its own: a PIN, a credential."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from gateway.errors import KeyServiceUnavailable


def read_secret(path: Path, what: str) -> tuple[str, tuple[int, ...]]:
    """Return the secret and the version of the file that holds it.

    Args:
        path: A regular file of ours that nobody else may open.
        what: `pin` or `credential`: the beginning of the detail of a refusal.

    Raises:
        KeyServiceUnavailable: The file is not there, not ours alone, or holds nothing.
    """
    try:
        # O_NONBLOCK: a FIFO in its place must not hang us; it is refused below.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode):
                raise KeyServiceUnavailable("a secret is not a regular file", detail=f"{what}_kind")
            if info.st_uid != os.geteuid():
                raise KeyServiceUnavailable("a secret belongs to another user", detail=f"{what}_owner")
            if stat.S_IMODE(info.st_mode) & 0o077:
                raise KeyServiceUnavailable("a secret is open to other users", detail=f"{what}_mode")
            secret = file.read(1024).decode().strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise KeyServiceUnavailable("a secret cannot be read", detail=f"{what}_unreadable") from error
    if not secret:
        raise KeyServiceUnavailable("a secret is empty", detail=f"{what}_unreadable")
    return secret, (info.st_ino, info.st_mtime_ns, info.st_size)
