"""Writing the files of an export as a stranger names them, and nowhere but in the folder."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from gateway.admin.exits import FAILED, USAGE
from gateway.admin.output import fail

if TYPE_CHECKING:
    from lethe.v1.audit_pb2 import ExportRequest

    from gateway.client import Client

_PATH = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}/){0,4}[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
MAX_FILES = 10_000
EXPORT_TIMEOUT_S = 600.0


@dataclass(slots=True)
class Folder:
    """An export that is being written: beside its folder first, and moved there when it is whole."""

    target: Path
    staging: Path
    _seen: set[str] = field(default_factory=set)
    _open: IO[bytes] | None = None

    @classmethod
    @contextmanager
    def begin(cls, target: Path) -> Iterator[Folder]:
        """Yield a folder to write; unless it is finished, nothing of it stays."""
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            fail(USAGE, "FOLDER_NOT_EMPTY", f"{target} is there and not empty")
        try:
            target.absolute().parent.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=".export-", dir=target.absolute().parent))
            folder = cls(target, staging)
            try:
                yield folder
            finally:
                folder.close()
                shutil.rmtree(staging, ignore_errors=True)
        except OSError as fault:
            fail(FAILED, "FILE_UNWRITABLE", f"{target}: {fault.strerror}")

    def start(self, name: str) -> None:
        """Begin the next file; a name that might lead elsewhere ends the command."""
        self.close()
        if not _PATH.fullmatch(name) or name in self._seen or len(self._seen) >= MAX_FILES:
            fail(FAILED, "EXPORT_UNSAFE", "the server named a file that may not be written")
        self._seen.add(name)
        path = self.staging / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._open = path.open("xb")

    def add(self, chunk: bytes) -> None:
        """Append to the file that was begun last."""
        if self._open is None:
            fail(FAILED, "EXPORT_UNSAFE", "the server sent bytes of no file")
        self._open.write(chunk)

    def finish(self) -> int:
        """Put the folder in its place and return how many files it holds."""
        self.close()
        if self.target.exists():
            self.target.rmdir()
        self.staging.rename(self.target)
        return len(self._seen)

    def close(self) -> None:
        """Close the file that is being written."""
        if self._open is not None:
            self._open.close()
            self._open = None


async def fetch(client: Client, out: Path, request: ExportRequest | None = None) -> int:
    """Fetch an export into `out`, of the whole log unless asked otherwise; return how many files it has."""
    from lethe.v1 import audit_pb2 as pb

    with Folder.begin(out) as folder:
        asked = request or pb.ExportRequest()
        async for part in client.stream(client.audit.Export, asked, EXPORT_TIMEOUT_S):
            if part.WhichOneof("part") == "file":
                folder.start(part.file)
            else:
                folder.add(part.chunk)
        return folder.finish()
