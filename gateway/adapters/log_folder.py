"""Published logs in a folder: one folder a log, in the layout of C2SP tlog-tiles.

    ORIGIN/checkpoint, ORIGIN/tile/LEVEL/INDEX, ORIGIN/tile/entries/INDEX
    ORIGIN/checkpoint.stamped, ORIGIN/checkpoint.tsr (where an authority stamps checkpoints)

Serve hash tiles and checkpoints to everybody, entry bundles to whom they concern.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from audit import note, tiles
from audit.checkpoint import parse
from audit.errors import AuditError
from gateway.adapters.disk import link_new, sync_folder, write_draft
from gateway.errors import AuditUnavailable

_MODE = 0o640
_NAME = re.compile(r"(?P<more>x)?(?P<digits>[0-9]{3})(?:\.p)?", re.ASCII)


class LogFolder:
    """The `LogFiles` below a directory, which must exist.

    Rule:
        R5, R6: files are made exclusively and linked under their names, and the folders synced.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def size(self, origin: str) -> int:
        """Return the size of the checkpoint that is shown."""
        return await asyncio.to_thread(self._size, origin)

    async def get(self, origin: str, name: str) -> bytes | None:
        """Return a file, or None where there is none."""
        return await asyncio.to_thread(self._get, origin, name)

    async def put(self, origin: str, files: Mapping[str, bytes]) -> None:
        """Write files that never change again."""
        await asyncio.to_thread(self._put, origin, files)

    async def prune(self, origin: str, min_index: int) -> None:
        """Remove the bundles below the minimum index, and folders that become empty."""
        await asyncio.to_thread(self._prune, origin, min_index)

    async def show(self, origin: str, checkpoint: str) -> None:
        """Replace the checkpoint."""
        await asyncio.to_thread(self._show, origin, "checkpoint", checkpoint.encode())

    async def show_stamped(self, origin: str, checkpoint: str, timestamp: bytes) -> None:
        """Replace the stamped checkpoint and its timestamp."""
        await asyncio.to_thread(self._show, origin, "checkpoint.stamped", checkpoint.encode())
        await asyncio.to_thread(self._show, origin, "checkpoint.tsr", timestamp)

    def _home(self, origin: str) -> Path:
        parts = origin.split("/")
        if any(part in {"", ".", ".."} for part in parts):
            raise AuditUnavailable("the origin is no path", detail="folder")
        return self._directory.joinpath(*parts)

    def _size(self, origin: str) -> int:
        try:
            text = (self._home(origin) / "checkpoint").read_text(encoding="utf-8")
            return parse(note.parse(text)[0]).size
        except FileNotFoundError:
            return 0
        except (OSError, UnicodeDecodeError, AuditError) as error:
            raise AuditUnavailable("the published log cannot be read", detail="folder") from error

    def _get(self, origin: str, name: str) -> bytes | None:
        try:
            return (self._home(origin) / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise AuditUnavailable("the published log cannot be read", detail="folder") from error

    def _put(self, origin: str, files: Mapping[str, bytes]) -> None:
        home = self._home(origin)
        touched: set[Path] = set()
        try:
            for name, content in files.items():
                path = home / name
                if path.exists():
                    if path.read_bytes() != content:
                        raise AuditUnavailable("a published file would change", detail="log_changed")
                    continue
                _make_folders(path.parent)
                link_new(path, content, _MODE)
                touched.add(path.parent)
                if not path.parent.name.endswith(".p"):
                    shutil.rmtree(path.with_name(f"{path.name}.p"), ignore_errors=True)
            for folder in touched:
                sync_folder(folder)
        except OSError as error:
            raise AuditUnavailable("the log cannot be published", detail="folder") from error

    def _prune(self, origin: str, min_index: int) -> None:
        try:
            _remove_below(self._home(origin) / "tile" / "entries", 0, min_index // tiles.WIDTH)
        except OSError as error:
            raise AuditUnavailable("the published log cannot be pruned", detail="folder") from error

    def _show(self, origin: str, name: str, content: bytes) -> None:
        path = self._home(origin) / name
        try:
            _make_folders(path.parent)
            write_draft(path, content, _MODE).replace(path)
            sync_folder(path.parent)
        except OSError as error:
            raise AuditUnavailable("the checkpoint cannot be shown", detail="folder") from error


def _remove_below(folder: Path, prefix: int, end: int) -> None:
    """Remove the bundles before `end` below a folder, the digits on whose path are `prefix`.

    All that lies in a folder has at least the index `1000 * prefix`, so that of a
    log of any size only what was written early is looked through.
    """
    if prefix * 1000 >= end or not folder.is_dir():
        return
    removed = False
    for entry in sorted(folder.iterdir()):
        found = _NAME.fullmatch(entry.name)
        if found is None:
            continue
        index = prefix * 1000 + int(found["digits"])
        if found["more"]:
            _remove_below(entry, index, end)
        elif index < end:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            removed = True
    if removed:
        sync_folder(folder)
    if prefix and not any(folder.iterdir()):
        with contextlib.suppress(OSError):  # the publisher wrote into it meanwhile
            folder.rmdir()


def _make_folders(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folders(folder.parent)
    folder.mkdir(mode=0o750, exist_ok=True)
    sync_folder(folder.parent)
