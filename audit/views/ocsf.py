"""Events in the words of OCSF 1.8.0 (Open Cybersecurity Schema Framework), one JSON object a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from audit import canonical
from audit.views.rows import Context, Row

PATH = "ocsf.jsonl"
VERSION = "1.8.0"

ENTITY, DATASTORE, API = 3004, 6005, 6003
INFORMATIONAL, LOW, MEDIUM, HIGH = 1, 2, 3, 4
SUCCESS, FAILURE = 1, 2
OTHER = 99

_CATEGORIES = {ENTITY: 3, DATASTORE: 6, API: 6}
_LEAF_HASH = "RFC 6962 leaf hash with SHA-256"
_ALLOWED, _DENIED = 1, 2
_COMMON = frozenset({"v", "ty", "id", "t", "n", "act", "seals"})


@dataclass(frozen=True, slots=True)
class Mapped:
    """Where an event type lies in OCSF.

    Attributes:
        what: The entity, the store, or the operation.
        name: The field of the leaf that names the thing; empty where none does.
        label: The activity in words, where OCSF has no code for it.
    """

    class_uid: int
    activity: int
    what: str
    name: str = ""
    severity: int = INFORMATIONAL
    status: int = SUCCESS
    label: str = ""


_CREATE, _UPDATE, _DELETE = 1, 3, 4
_ENABLE, _DISABLE, _ACTIVATE, _DEACTIVATE, _SUSPEND = 8, 9, 10, 11, 12
_READ, _ALTER, _WRITE, _REMOVE, _ENCRYPT = 1, 2, 5, 7, 9
_API_READ = 2

EVENTS: Mapping[str, Mapped] = MappingProxyType(
    {
        "access.refused": Mapped(API, OTHER, "", "", LOW, FAILURE, "Refuse"),
        "audit.read": Mapped(API, _API_READ, ""),
        "backup.created": Mapped(DATASTORE, _READ, "records and objects"),
        "backup.restored": Mapped(DATASTORE, _WRITE, "records and objects", severity=LOW),
        "consent.recorded": Mapped(ENTITY, _CREATE, "Consent Record", "con"),
        "consent.invalidated": Mapped(ENTITY, _DISABLE, "Consent Record", "con", LOW),
        "consent.renewal": Mapped(ENTITY, _UPDATE, "Consent Record", "con"),
        "consent.withdrawn": Mapped(ENTITY, _DEACTIVATE, "Consent Record", "con"),
        "dataset.added": Mapped(DATASTORE, _WRITE, "training sets", "dst"),
        "dataset.completed": Mapped(ENTITY, _ACTIVATE, "Training Set", "dst"),
        "dataset.created": Mapped(ENTITY, _CREATE, "Training Set", "dst"),
        "dataset.expired": Mapped(ENTITY, _DELETE, "Training Set", "dst"),
        "dataset.reduced": Mapped(DATASTORE, _REMOVE, "training sets", "dst"),
        "dataset.released": Mapped(DATASTORE, _READ, "training sets", "dst"),
        "decision.made": Mapped(API, OTHER, "PolicyService/Decide", label="Decide"),
        "dsr.approved": Mapped(ENTITY, _ACTIVATE, "Data Subject Request", "dsr"),
        "dsr.cancelled": Mapped(ENTITY, _DEACTIVATE, "Data Subject Request", "dsr"),
        "dsr.extended": Mapped(ENTITY, _UPDATE, "Data Subject Request", "dsr"),
        "dsr.fulfilled": Mapped(ENTITY, _UPDATE, "Data Subject Request", "dsr"),
        "dsr.partrefused": Mapped(ENTITY, _UPDATE, "Data Subject Request", "dsr", LOW),
        "dsr.paused": Mapped(ENTITY, _UPDATE, "Data Subject Request", "dsr"),
        "dsr.propagated": Mapped(ENTITY, _UPDATE, "Data Subject Request", "dsr"),
        "dsr.received": Mapped(ENTITY, _CREATE, "Data Subject Request", "dsr"),
        "dsr.refused": Mapped(ENTITY, _DISABLE, "Data Subject Request", "dsr", LOW),
        "dsr.resumed": Mapped(ENTITY, _UPDATE, "Data Subject Request", "dsr"),
        "dsr.verified": Mapped(ENTITY, _UPDATE, "Data Subject Request", "dsr"),
        "erasure.incomplete": Mapped(ENTITY, _UPDATE, "Data Subject Request", "dsr", MEDIUM, FAILURE),
        "export.created": Mapped(DATASTORE, _READ, "audit log"),
        "forget.ended": Mapped(ENTITY, _UPDATE, "Data Subject Request", "dsr"),
        "hold.placed": Mapped(ENTITY, _CREATE, "Legal Hold", "hld"),
        "hold.released": Mapped(ENTITY, _DELETE, "Legal Hold", "hld"),
        "image.marked": Mapped(DATASTORE, _ALTER, "objects", "obj"),
        "image.scrubbed": Mapped(DATASTORE, _ALTER, "objects", "obj"),
        "prompt.scrubbed": Mapped(DATASTORE, _ALTER, "objects", "obj"),
        "incident.recorded": Mapped(ENTITY, _UPDATE, "Breach Register", "inc", MEDIUM),
        "job.cancelled": Mapped(ENTITY, _DEACTIVATE, "Generation Job", "job"),
        "job.created": Mapped(ENTITY, _CREATE, "Generation Job", "job"),
        "job.deleted": Mapped(ENTITY, _DELETE, "Generation Job", "job"),
        "job.dispatched": Mapped(ENTITY, _ACTIVATE, "Generation Job", "job"),
        "job.failed": Mapped(ENTITY, _UPDATE, "Generation Job", "job", LOW, FAILURE),
        "job.stopping": Mapped(ENTITY, _SUSPEND, "Generation Job", "job"),
        "job.succeeded": Mapped(ENTITY, _UPDATE, "Generation Job", "job"),
        "key.rotated": Mapped(ENTITY, _UPDATE, "Epoch Keys"),
        "landmarks.refused": Mapped(DATASTORE, _READ, "objects", "obj", LOW, FAILURE),
        "landmarks.released": Mapped(DATASTORE, _READ, "objects", "obj"),
        "log.disputed": Mapped(ENTITY, OTHER, "Audit Log", "", HIGH, FAILURE, "Dispute"),
        "log.keyrevoked": Mapped(ENTITY, _DISABLE, "Audit Log Keys", severity=MEDIUM),
        "log.pruned": Mapped(DATASTORE, _REMOVE, "audit log", severity=LOW),
        "log.rekeyed": Mapped(ENTITY, _UPDATE, "Audit Log Keys", severity=LOW),
        "notice.published": Mapped(ENTITY, _CREATE, "Privacy Notice", "ntc"),
        "object.destroyed": Mapped(DATASTORE, _REMOVE, "objects", "obj"),
        "object.freed": Mapped(DATASTORE, OTHER, "objects", "obj", label="Free"),
        "object.held": Mapped(DATASTORE, OTHER, "objects", "obj", label="Hold"),
        "object.kept": Mapped(DATASTORE, OTHER, "objects", "obj", label="Keep"),
        "object.sealed": Mapped(DATASTORE, _ENCRYPT, "objects", "obj"),
        "object.transient": Mapped(DATASTORE, OTHER, "memory", "obj", label="Hold in memory"),
        "object.stuck": Mapped(DATASTORE, _REMOVE, "objects", "obj", MEDIUM, FAILURE),
        "package.made": Mapped(DATASTORE, _WRITE, "objects", "obj"),
        "package.released": Mapped(DATASTORE, _READ, "objects", "obj"),
        "payload.erased": Mapped(DATASTORE, _REMOVE, "sealed audit payloads"),
        "payload.expired": Mapped(DATASTORE, _REMOVE, "sealed audit payloads"),
        "record.expired": Mapped(ENTITY, _DELETE, "Consent Record, Data Subject Request or Breach"),
        "result.released": Mapped(DATASTORE, _READ, "objects", "obj"),
        "retention.swept": Mapped(DATASTORE, _REMOVE, "objects"),
        "signal.recorded": Mapped(ENTITY, _CREATE, "Privacy Signal"),
        "subject.blocked": Mapped(ENTITY, _SUSPEND, "Data Subject"),
        "subject.erased": Mapped(ENTITY, _DELETE, "Data Subject"),
        "subject.restricted": Mapped(ENTITY, _DISABLE, "Data Subject"),
        "subject.unrestricted": Mapped(ENTITY, _ENABLE, "Data Subject"),
        "subject.upserted": Mapped(ENTITY, _UPDATE, "Data Subject"),
        "tenant.updated": Mapped(ENTITY, _UPDATE, "Controller"),
        "upload.refused": Mapped(DATASTORE, _WRITE, "objects", "", LOW, FAILURE),
    }
)
"""Event type to its class and activity.

A data subject is never named: leaves hold no name for one.
"""


def write(rows: Sequence[Row], context: Context) -> bytes:
    """Return the events as JSON Lines, in the order given."""
    return b"".join(canonical.encode(event(row, context)) + b"\n" for row in rows)


def event(row: Row, context: Context) -> dict[str, Any]:
    """Return one event as an OCSF object.

    The index is `metadata.sequence`, the leaf hash `raw_data_hash`, the origin
    `metadata.log_name`; what OCSF has no place for stands in `unmapped` under its
    name in the leaf.
    """
    leaf = row.event
    mapped = EVENTS[leaf["ty"]]
    own = {name: value for name, value in leaf.items() if name not in _COMMON}
    found: dict[str, Any] = {
        "activity_id": mapped.activity,
        "category_uid": _CATEGORIES[mapped.class_uid],
        "class_uid": mapped.class_uid,
        "type_uid": mapped.class_uid * 100 + mapped.activity,
        "time": leaf["t"],
        "severity_id": mapped.severity,
        "status_id": mapped.status,
        "metadata": _metadata(row, context),
        "actor": {"user": _user(leaf["act"])},
        "raw_data_hash": {"algorithm_id": OTHER, "algorithm": _LEAF_HASH, "value": row.hash.hex()},
        "unmapped": {**own, "seals": len(leaf["seals"])},
        **_THINGS[mapped.class_uid](mapped, leaf),
    }
    if mapped.label:
        found["activity_name"] = mapped.label
    if "rc" in leaf:
        found["status_code"] = leaf["rc"]
    if "dec" in leaf:
        found["metadata"]["profiles"] = ["security_control"]
        found["action_id"] = _ALLOWED if leaf["dec"] == "allow" else _DENIED
    return found


def _metadata(row: Row, context: Context) -> dict[str, Any]:
    return {
        "version": VERSION,
        "product": {"name": "Lethe", "vendor_name": "lethe.dev"},
        "log_name": context.origin,
        "sequence": row.index,
        "uid": row.event["id"],
        "event_code": row.event["ty"],
    }


def _user(actor: str) -> dict[str, Any]:
    """Return who acted: a person has only the token that is new in every event."""
    kinds = {"tok": 1, "sys": 3, "svc": 4}
    return {"uid": actor, "type_id": kinds[actor[:3]]}


def _entity(mapped: Mapped, leaf: Mapping[str, Any]) -> dict[str, Any]:
    thing = {"name": mapped.what, "type": mapped.what, "type_id": OTHER}
    named = leaf.get(mapped.name) or leaf.get("con") or leaf.get("dsr") or leaf.get("inc")
    return {"entity": {**thing, "uid": named} if named else thing}


def _datastore(mapped: Mapped, leaf: Mapping[str, Any]) -> dict[str, Any]:
    thing = {"name": mapped.what}
    named = leaf.get(mapped.name)
    return {"table": {**thing, "uid": named} if named else thing, "src_endpoint": _ENDPOINT}


def _api(mapped: Mapped, leaf: Mapping[str, Any]) -> dict[str, Any]:
    return {"api": {"operation": leaf.get("mthd", mapped.what)}, "src_endpoint": _ENDPOINT}


# Required by OCSF; an address would be personal data, so that leaves have none.
_ENDPOINT = {"name": "not recorded", "type_id": 0}
_THINGS = {ENTITY: _entity, DATASTORE: _datastore, API: _api}
