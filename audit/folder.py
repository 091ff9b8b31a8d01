"""Reads an export, and the trust in it, from disk; whoever made the folder may be hostile."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from audit.errors import ExportInvalid, TrustInvalid

MAX_TRUST_BYTES = 1 << 20
MAX_FILES = 10_000
MAX_DEPTH = 4
MAX_TOTAL_BYTES = 8 << 30


def read_folder(path: Path) -> dict[str, bytes]:
    """Return the content of every file below `path`, by its path with slashes.

    Nothing is followed out of the folder; `path` itself may be a link.

    Raises:
        ExportInvalid: A symbolic link, a special file, an odd name, or more than the caps.
        OSError: Something cannot be read.
    """
    files: dict[str, bytes] = {}
    left = MAX_TOTAL_BYTES
    for name, place in _walk(path, "", 0):
        if len(files) == MAX_FILES:
            raise ExportInvalid("folder_too_many_files")
        files[name] = _content(place, left)
        left -= len(files[name])
    return files


def read_trust_file(path: Path, *exports: Path) -> str:
    """Return the text of a trust file, which must not lie in an export: that would vouch for itself.

    Raises:
        TrustInvalid: It lies in one of `exports`, or is too large, or no text.
        OSError: It cannot be read.
    """
    place = path.resolve()
    if any(place.is_relative_to(folder.resolve()) for folder in exports):
        raise TrustInvalid("trust_inside", "the trust file lies in the export: get the keys from elsewhere")
    with place.open("rb") as file:
        content = file.read(MAX_TRUST_BYTES + 1)
    if len(content) > MAX_TRUST_BYTES:
        raise TrustInvalid("trust_too_large")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise TrustInvalid("trust_not_text", "the trust file is not UTF-8") from None


def _walk(folder: Path, prefix: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth > MAX_DEPTH:
        raise ExportInvalid("folder_too_deep")
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_symlink():
                raise ExportInvalid("folder_link", "a symbolic link is no part of an export")
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", depth + 1)
            elif entry.is_file(follow_symlinks=False):
                yield f"{prefix}{entry.name}", entry.path
            else:
                raise ExportInvalid("folder_special_file", "a device, pipe or socket is no part of an export")


def _content(place: str, most: int) -> bytes:
    # What was a file when it was listed may be a link or a pipe by now.
    with open(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 - pathlib cannot refuse links
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ExportInvalid("folder_special_file")
        content = file.read(most + 1)
    if len(content) > most:
        raise ExportInvalid("folder_too_large")
    return content
