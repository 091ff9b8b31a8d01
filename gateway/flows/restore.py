"""Reads a backup back into empty stores; what ended since is ended again by `gateway.flows.suppress`."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from audit import checkpoint
from audit.errors import AuditError
from audit.note import Signer
from gateway.errors import AuditUnavailable, StateConflict
from gateway.ports.backup import Columns
from gateway.ports.files import LogFiles
from gateway.ports.lock import CheckpointLock
from gateway.ports.objects import ObjectExists, ObjectStore
from gateway.ports.records import Restore
from gateway.vault.backup import Frame
from gateway.vault.errors import BackupInvalid

FORMAT = 1

Rows = tuple[str, Columns, Sequence[Sequence[Any]]]
"""A table, its columns, and some of its rows."""


@dataclass(frozen=True, slots=True)
class Object:
    """An object begins (`chunk` is None), or goes on; an empty chunk ends it."""

    object_id: str
    chunk: bytes | None = None


@dataclass(frozen=True, slots=True)
class End:
    """The manifest: all before it is as it says."""

    manifest: Mapping[str, Any]


Part = Rows | Object | End


@dataclass(frozen=True, slots=True)
class Restoring:
    """Restores one backup.

    `frames` opens the file anew at each call; `load` fills the empty database from
    rows of a schema revision and adds the mark, all in one transaction.
    """

    frames: Callable[[], Iterator[Frame]]
    load: Callable[[str, Iterable[Rows], Restore], Awaitable[None]]
    is_empty: Callable[[], Awaitable[bool]]
    objects: ObjectStore
    lock: CheckpointLock
    signers: Mapping[str, tuple[Signer, ...]]
    files: LogFiles | None

    async def run(self, digest: str, step: Callable[[str], None] = lambda _text: None) -> Mapping[str, Any]:
        """Restore the backup whose file has this SHA-256, and return its manifest.

        In this order: (1) the whole file is read and checked, the stores are empty, and the
        log's tail can be had; nothing has been written so far; (2) the objects; (3) the rows
        and the mark, in one transaction.  Cut at any point, it can be run again; until (3) is
        done there is no database that a gateway would start on, and then the mark stands in it.

        Raises:
            BackupInvalid: The file is not whole, or not what its manifest says.
            StateConflict: A store is not empty (detail `records_not_empty`, `objects_not_empty`).
            AuditUnavailable: The log could not go on (`log_tail_missing`, `lock_empty`, `log_unknown`).
        """
        step("checking")
        if not await self.is_empty():
            raise StateConflict("the database is not empty", detail="records_not_empty")
        stray = {found.object_id async for found in self.objects.list()}
        manifest: Mapping[str, Any] = {}
        for part in parts(self.frames()):
            if isinstance(part, Object):
                stray.discard(part.object_id)
            elif isinstance(part, End):
                manifest = part.manifest
        if stray:
            raise StateConflict("the object store is not empty", detail="objects_not_empty")
        await self._refuse_lost_tail(manifest["logs"])
        await self._put_objects(manifest["objects"], step)
        step("records")
        mark = Restore(
            backup_id=manifest["backup"],
            digest=digest,
            made_at=datetime.fromtimestamp(manifest["made_ms"] / 1000, UTC),
            logs={origin: head["size"] for origin, head in manifest["logs"].items()},
            settled={},
            counts={},
        )
        rows = (part for part in parts(self.frames()) if isinstance(part, tuple))
        await self.load(manifest["revision"], rows, mark)
        return {**manifest, "sha256": digest}

    async def _refuse_lost_tail(self, logs: Mapping[str, Any]) -> None:
        """Refuse where the log would fork: what was signed since must be in its published files."""
        if logs.keys() - self.signers.keys():
            raise AuditUnavailable("the backup has a log that is not configured", detail="log_unknown")
        for origin, signers in self.signers.items():
            size = logs.get(origin, {"size": 0})["size"]
            note = await self.lock.load(origin)
            if note is None:
                if size:
                    raise AuditUnavailable("the lock knows no such log", detail="lock_empty")
                continue
            try:
                locked = checkpoint.open_checkpoint(note, [signer.verifier for signer in signers])
            except AuditError as error:
                raise AuditUnavailable("a locked head is not signed by us", detail="log_changed") from error
            if locked.size <= size:
                continue
            shown = await self.files.size(origin) if self.files is not None else 0
            if shown < locked.size:
                raise AuditUnavailable(
                    f"the log has {locked.size} signed events, the backup {size}, audit.published {shown}: "
                    "what lies between cannot be had, and without it the log would fork",
                    detail="log_tail_missing",
                )

    async def _put_objects(self, total: int, step: Callable[[str], None]) -> None:
        number, left = 0, parts(self.frames())
        for part in left:
            if isinstance(part, Object):
                number += 1
                step(f"object {number} of {total}")
                try:
                    await self.objects.put(part.object_id, _chunks(left))
                except ObjectExists as error:
                    raise StateConflict(
                        "the object store is not empty", detail="objects_not_empty"
                    ) from error


async def _chunks(left: Iterator[Part]) -> AsyncIterator[bytes]:
    for part in left:
        if not isinstance(part, Object) or not part.chunk:
            return
        yield part.chunk


def parts(frames: Iterable[Frame]) -> Iterator[Part]:
    """Yield what is in a backup, checked against its manifest, which comes last.

    Raises:
        BackupInvalid: Another format (`version`), or not what the manifest says (`broken`).
    """
    reader = _Reader()
    try:
        for kind, body in frames:
            yield from reader.read(kind, body)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise BackupInvalid("broken", "the backup holds what no backup has") from error
    if not reader.is_over:
        raise _broken()


def _broken() -> BackupInvalid:
    return BackupInvalid("broken", "the backup is not what its manifest says")


class _Reader:
    """Reads frames in the order in which a backup has them."""

    def __init__(self) -> None:
        self.is_over = False
        self._opening: Mapping[str, Any] | None = None
        self._table, self._columns = "", Columns()
        self._object = ""
        self._digest = hashlib.sha256()
        self._size = 0
        self._tables: dict[str, dict[str, Any]] = {}
        self._counts = {"objects": 0, "object_bytes": 0, "objects_gone": 0}

    def read(self, kind: bytes, body: bytes) -> Iterator[Part]:
        if self.is_over or (self._opening is None) != (kind == b"M"):
            raise _broken()
        if kind == b"M":
            self._opening = json.loads(body)
            if self._opening["format"] != FORMAT:
                raise BackupInvalid("version", "the backup is of another format; use the Lethe that reads it")
        elif kind == b"T":
            self._begin_table(json.loads(body))
        elif kind == b"R":
            self._digest.update(body)
            rows = json.loads(body)
            self._tables[self._table]["rows"] += len(rows)
            self._tables[self._table]["sha256"] = self._digest.hexdigest()
            yield self._table, self._columns, [self._row(row) for row in rows]
        elif kind == b"O":
            self._begin_object(json.loads(body)["object"])
            yield Object(self._object)
        elif kind == b"C":
            self._digest.update(body)
            self._size += len(body)
            if not self._object or not body:
                raise _broken()
            yield Object(self._object, body)
        elif kind == b"E":
            ended, self._object = self._object, ""
            said = {"object": ended, "bytes": self._size, "sha256": self._digest.hexdigest()}
            if not ended or json.loads(body) != said:
                raise _broken()
            self._counts["objects"] += 1
            self._counts["object_bytes"] += self._size
            yield Object(ended, b"")
        elif kind == b"G":
            self._counts["objects_gone"] += 1
        elif kind == b"Z":
            yield self._end(json.loads(body))
        else:
            raise _broken()

    def _begin_table(self, opening: Mapping[str, Any]) -> None:
        self._table = opening["table"]
        self._columns = tuple((name, kind) for name, kind in opening["columns"])
        self._digest = hashlib.sha256()
        self._tables[self._table] = {"rows": 0, "sha256": self._digest.hexdigest()}

    def _begin_object(self, object_id: str) -> None:
        if self._object:
            raise _broken()
        self._object, self._digest, self._size = object_id, hashlib.sha256(), 0

    def _row(self, row: Sequence[Any]) -> list[Any]:
        return [
            base64.b64decode(value) if kind == "bytes" and value is not None else value
            for (_, kind), value in zip(self._columns, row, strict=True)
        ]

    def _end(self, manifest: Mapping[str, Any]) -> End:
        self.is_over = True
        opening = self._opening or {}
        said = {name: manifest[name] for name in (*opening, "tables", *self._counts)}
        if self._object or said != {**opening, "tables": self._tables, **self._counts}:
            raise _broken()
        return End(manifest)
