"""Makes a backup: the records of one moment, then the objects they name, and nothing that opens either."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from audit import tree
from gateway.errors import StateConflict
from gateway.ledger import Ledger
from gateway.ports.backup import Columns, Sink, Snapshot
from gateway.ports.clock import Clock
from gateway.ports.objects import ObjectMissing, ObjectStore
from gateway.ports.records import Records, Restore, Transaction
from gateway.vault.backup import frame

FORMAT = 1
OBJECT_ID_BYTES = 16
ROWS_BYTES = 1 << 20


@dataclass(slots=True)
class _Seen:
    """What passed by: heads of logs, objects by tenant, digests."""

    heads: dict[str, dict[str, Any]] = field(default_factory=dict)
    objects: dict[str, bytearray] = field(default_factory=dict)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    sealed: Counter[str] = field(default_factory=Counter)
    gone: Counter[str] = field(default_factory=Counter)
    object_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Backup:
    """The maker of backups.

    `publish` gives the log's waiting events their places and lays them out: a restore
    needs the event of its own backup from there, and no gateway may be running.
    """

    records: Records
    objects: ObjectStore
    ledger: Ledger
    clock: Clock
    publish: Callable[[], Awaitable[None]]
    random: Callable[[int], bytes] = os.urandom

    async def run(
        self, snapshot: Snapshot, sink: Sink, step: Callable[[str], None] = lambda _text: None
    ) -> Mapping[str, Any]:
        """Write a backup into `sink` and return its manifest.

        In this order: (1) the rows of every table, of one moment; (2) the bytes of
        every object that was live or held then (one that is gone by now was destroyed, and is
        noted); (3) the manifest; (4) the event in the log of each tenant; (5) the name.
        So there is no backup that the log does not know.  `step` hears how far it is.

        Raises:
            StateConflict: A restore has not been settled yet (detail `restore_unsettled`).
            AuditUnavailable: The log cannot take the event; it may stand there without a backup.
            StoreUnavailable: A store does not answer, or the file cannot be written.
        """
        if await self.records.transact(lambda tx: tx.count(Restore)):
            raise StateConflict("start the gateway first: a restore waits for it", detail="restore_unsettled")
        backup_id, made_at = self.random(16).hex(), self.clock.now()
        seen = _Seen()
        opening = {"format": FORMAT, "backup": backup_id, "revision": snapshot.revision}
        await sink.write(frame(b"M", _json(opening)))
        for table, columns in snapshot.tables.items():
            step(f"table {table}")
            await self._table(snapshot, sink, table, columns, seen)
        total = sum(map(len, seen.objects.values())) // OBJECT_ID_BYTES
        for tenant, ids in seen.objects.items():
            for at in range(0, len(ids), OBJECT_ID_BYTES):
                step(f"object {seen.sealed.total() + seen.gone.total() + 1} of {total}")
                await self._object(sink, tenant, ids[at : at + OBJECT_ID_BYTES].hex(), seen)
        manifest = {
            **opening,
            "made_ms": int(made_at.timestamp() * 1000),
            "logs": seen.heads,
            "tables": seen.tables,
            "objects": seen.sealed.total(),
            "object_bytes": seen.object_bytes,
            "objects_gone": seen.gone.total(),
        }
        await sink.write(frame(b"Z", _json(manifest)))
        digest = await sink.finish()
        await self.records.transact(partial(self._log, backup_id=backup_id, seen=seen, digest=digest))
        await self.publish()
        await sink.keep()
        return {**manifest, "sha256": digest}

    async def _table(self, snapshot: Snapshot, sink: Sink, table: str, columns: Columns, seen: _Seen) -> None:
        await sink.write(frame(b"T", _json({"table": table, "columns": columns})))
        digest, number = hashlib.sha256(), 0
        async for rows in snapshot.rows(table):
            if table == "log_head":
                for row in _named(columns, rows):
                    seen.heads[row["log"]] = {"size": row["size"], "root": row["root"].hex()}
            if table == "stored_object":
                for row in _named(columns, rows):
                    if row["state"] in {"live", "held"}:
                        seen.objects.setdefault(row["tenant"], bytearray()).extend(
                            bytes.fromhex(row["object_id"])
                        )
            number += len(rows)
            for body in _bodies(rows):
                digest.update(body)
                await sink.write(frame(b"R", body))
        seen.tables[table] = {"rows": number, "sha256": digest.hexdigest()}

    async def _object(self, sink: Sink, tenant: str, object_id: str, seen: _Seen) -> None:
        digest, size, begun = hashlib.sha256(), 0, False
        try:
            async for chunk in self.objects.get(object_id):
                if not begun:
                    begun = True
                    await sink.write(frame(b"O", _json({"object": object_id})))
                digest.update(chunk)
                size += len(chunk)
                await sink.write(frame(b"C", chunk))
        except ObjectMissing:
            seen.gone[tenant] += 1
            await sink.write(frame(b"G", _json({"object": object_id})))
            return
        ended = {"object": object_id, "bytes": size, "sha256": digest.hexdigest()}
        await sink.write(frame(b"E", _json(ended)))
        seen.sealed[tenant] += 1
        seen.object_bytes += size

    def _log(self, tx: Transaction, backup_id: str, seen: _Seen, digest: str) -> None:
        for tenant, origin in self.ledger.origins.items():
            head = seen.heads.get(origin, {"size": 0, "root": tree.EMPTY_ROOT.hex()})
            self.ledger.record(
                tx,
                tenant,
                "backup.created",
                None,
                bkp=backup_id,
                **head,
                nobj=seen.sealed[tenant],
                ngone=seen.gone[tenant],
                dig=digest,
            )


def _named(columns: Columns, rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    return [{name: value for (name, _), value in zip(columns, row, strict=True)} for row in rows]


def _bodies(rows: Sequence[Sequence[Any]]) -> Iterator[bytes]:
    """Yield lists of rows of about a mebibyte each: a row may itself be as large."""
    held, size = list[bytes](), 0
    for row in rows:
        held.append(_json([_plain(value) for value in row]))
        size += len(held[-1])
        if size >= ROWS_BYTES:
            yield b"[" + b",".join(held) + b"]"
            held, size = [], 0
    if held:
        yield b"[" + b",".join(held) + b"]"


def _plain(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
