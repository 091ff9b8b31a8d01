"""Which record lives in which table, and the statements that move one to the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Column, Delete, Insert, Select, Update, bindparam, delete, insert, select, update
from sqlalchemy import Table as SqlTable

from gateway.adapters.sql.consent import ConsentRow, SignalRow
from gateway.adapters.sql.debts import DebtRow
from gateway.adapters.sql.dsr import CertificateRow, DsrRow
from gateway.adapters.sql.holds import HoldRow
from gateway.adapters.sql.idempotency import RememberedRow
from gateway.adapters.sql.incident import IncidentRow
from gateway.adapters.sql.jobs import JobRow
from gateway.adapters.sql.keys import ClosedEpochRow, SubjectKeyRow
from gateway.adapters.sql.leaves import (
    CheckpointRow,
    LeafRow,
    LogHeadRow,
    LogKeysRow,
    SealedPayloadRow,
    TileRow,
    WitnessedSizeRow,
)
from gateway.adapters.sql.notice import NoticeRow
from gateway.adapters.sql.objects import StoredObjectRow
from gateway.adapters.sql.packs import PackTextRow
from gateway.adapters.sql.restore import RestoreRow
from gateway.adapters.sql.subject import SubjectRow
from gateway.adapters.sql.table import Table
from gateway.adapters.sql.tenant import TenantVersionRow
from gateway.adapters.sql.training import DatasetItemRow, DatasetRow
from gateway.ports import records
from gateway.ports.records import Record

ROWS: Mapping[type[Record], type[Table]] = {
    records.Subject: SubjectRow,
    records.SubjectKey: SubjectKeyRow,
    records.ClosedEpoch: ClosedEpochRow,
    records.PackText: PackTextRow,
    records.Notice: NoticeRow,
    records.Consent: ConsentRow,
    records.Signal: SignalRow,
    records.StoredObject: StoredObjectRow,
    records.Job: JobRow,
    records.Dsr: DsrRow,
    records.Certificate: CertificateRow,
    records.Hold: HoldRow,
    records.Debt: DebtRow,
    records.Remembered: RememberedRow,
    records.Leaf: LeafRow,
    records.SealedPayload: SealedPayloadRow,
    records.Tile: TileRow,
    records.LogHead: LogHeadRow,
    records.LogKeys: LogKeysRow,
    records.Checkpoint: CheckpointRow,
    records.WitnessedSize: WitnessedSizeRow,
    records.Restore: RestoreRow,
    records.TenantVersion: TenantVersionRow,
    records.Incident: IncidentRow,
    records.Dataset: DatasetRow,
    records.DatasetItem: DatasetItemRow,
}


@dataclass(frozen=True)
class Mapped:
    """A record kind, its table, and its statements, built once.

    `columns` stand in the order of the record's fields, `key` names the primary
    key in the order of `Transaction.get`.  In the statements a key value is
    bound as `key_NAME`, a new value as `new_NAME`.
    """

    table: SqlTable
    columns: Mapping[str, Column[Any]]
    key: tuple[str, ...]
    insert: Insert
    select_all: Select[Any]
    select_one: Select[Any]
    update: Update
    delete: Delete

    def row(self, record: Record) -> dict[str, Any]:
        """Return the record's values by column."""
        return {name: getattr(record, name) for name in self.columns}

    def key_of(self, record: Record) -> dict[str, Any]:
        """Return the record's key, as the statements bind it."""
        return {f"key_{name}": getattr(record, name) for name in self.key}

    def change(self, record: Record) -> dict[str, Any]:
        """Return the record's key and values, as `update` binds them."""
        return {f"new_{name}": getattr(record, name) for name in self.columns} | self.key_of(record)


def _mapped(kind: type[Record], row: type[Table]) -> Mapped:
    table: SqlTable = row.__table__  # type: ignore[attr-defined]  # SQLModel adds it where table=True
    columns = {field.name: table.columns[field.name] for field in fields(kind)}
    key = tuple(column.name for column in table.primary_key)
    at_key = [table.columns[name] == bindparam(f"key_{name}", type_=table.columns[name].type) for name in key]
    new = {name: bindparam(f"new_{name}", type_=column.type) for name, column in columns.items()}
    every = select(*columns.values())
    return Mapped(
        table=table,
        columns=columns,
        key=key,
        insert=insert(table),
        select_all=every,
        select_one=every.where(*at_key),
        update=update(table).where(*at_key).values(new),
        delete=delete(table).where(*at_key),
    )


MAPPED: Mapping[type[Record], Mapped] = {kind: _mapped(kind, row) for kind, row in ROWS.items()}
