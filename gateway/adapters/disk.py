"""Files that are durable and whole, or not there."""

from __future__ import annotations

import os
from pathlib import Path

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC  # O_EXCL follows no link either


def write_draft(place: Path, content: bytes, mode: int) -> Path:
    """Return a synced file beside `place` that holds the content; the caller moves or removes it."""
    draft = place.with_name(f"{place.name}.{os.urandom(8).hex()}.new")
    try:
        descriptor = os.open(draft, _NEW, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return draft


def write_new(place: Path, content: bytes) -> None:
    """Create a file whole and durable, or not at all; only its owner may read it.

    Raises:
        FileExistsError: It exists; it is left alone.
    """
    link_new(place, content, 0o600)
    sync_folder(place.parent)


def link_new(place: Path, content: bytes, mode: int) -> None:
    """Do the same for who makes many files in a folder, and syncs the folder once.

    Raises:
        FileExistsError: It exists; it is left alone.
    """
    draft = write_draft(place, content, mode)
    try:
        os.link(draft, place)
    finally:
        draft.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
