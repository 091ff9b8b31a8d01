"""Published logs in a folder: one folder a log, in the layout of C2SP tlog-tiles.

    ORIGIN/checkpoint, ORIGIN/tile/LEVEL/INDEX, ORIGIN/tile/entries/INDEX

Serve hash tiles and checkpoints to everybody, entry bundles to whom they concern.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from audit import note
from audit.checkpoint import parse
from audit.errors import AuditError
from gateway.errors import AuditUnavailable

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


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

    async def put(self, origin: str, files: Mapping[str, bytes]) -> None:
        """Write files that never change again."""
        await asyncio.to_thread(self._put, origin, files)

    async def show(self, origin: str, checkpoint: str) -> None:
        """Replace the checkpoint."""
        await asyncio.to_thread(self._show, origin, checkpoint)

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
                self._place(path, content)
                touched.add(path.parent)
                if not path.parent.name.endswith(".p"):
                    shutil.rmtree(path.with_name(f"{path.name}.p"), ignore_errors=True)
            for folder in touched:
                _sync_folder(folder)
        except OSError as error:
            raise AuditUnavailable("the log cannot be published", detail="folder") from error

    def _show(self, origin: str, checkpoint: str) -> None:
        path = self._home(origin) / "checkpoint"
        try:
            _make_folders(path.parent)
            fresh = _written(path, checkpoint.encode())
            fresh.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            raise AuditUnavailable("the checkpoint cannot be shown", detail="folder") from error

    @staticmethod
    def _place(path: Path, content: bytes) -> None:
        fresh = _written(path, content)
        try:
            os.link(fresh, path)
        finally:
            fresh.unlink()


def _written(path: Path, content: bytes) -> Path:
    """Return a synced file beside `path` that holds the content."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with open(os.open(fresh, _FLAGS, 0o640), "wb") as file:  # noqa: PTH123 - pathlib cannot refuse links
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return fresh


def _make_folders(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folders(folder.parent)
    folder.mkdir(mode=0o750, exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
