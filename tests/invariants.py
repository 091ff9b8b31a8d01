"""What must hold of the records whenever nobody is inside a transaction."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from gateway.ports.records import (
    SUBJECT_TABLES,
    Certificate,
    Consent,
    Dsr,
    Job,
    Leaf,
    Record,
    StoredObject,
    Transaction,
    kinds,
)

Rows = dict[type[Record], list[Any]]
ENDS = {"succeeded": "job.succeeded", "expired": "job.succeeded", "failed": "job.failed"} | {
    "cancelled": "job.cancelled"
}


def everything(tx: Transaction) -> Rows:
    """Return every row of every kind: work for one transaction."""
    return {kind: tx.find(kind) for kind in kinds()}


def events(rows: Rows) -> dict[str, list[dict[str, Any]]]:
    """Return the events in the log by type, sequenced or not."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for leaf in rows[Leaf]:
        found[leaf.ty].append(json.loads(leaf.line))
    return found


def check(rows: Rows) -> None:
    """INVARIANT: no effect without a leaf, no leaf without an effect, and each leaf once."""
    log = events(rows)
    _check_objects(rows, log)
    _check_jobs(rows, log)
    _check_dsrs(rows, log)
    recorded = _ids(log["consent.recorded"], "con")
    withdrawn = _ids(log["consent.withdrawn"], "con")
    _once(recorded, withdrawn)
    for consent in rows[Consent]:
        assert consent.consent_id in recorded
        assert (consent.withdrawn_at is not None) == (consent.consent_id in withdrawn)


def _check_objects(rows: Rows, log: dict[str, list[dict[str, Any]]]) -> None:
    sealed, destroyed = _ids(_taken(log), "obj"), _ids(log["object.destroyed"], "obj")
    _once(sealed, destroyed, _ids(log["image.scrubbed"], "obj"))
    live = {row.object_id for row in rows[StoredObject] if row.state in {"live", "transient"}}
    doomed = {row.object_id for row in rows[StoredObject] if row.state == "destroyed"}
    assert live == set(sealed) - set(destroyed)
    assert doomed <= set(destroyed) <= set(sealed)
    assert _pictures(log) == set(_ids(log["image.scrubbed"], "obj"))
    assert _ids(log["package.made"], "obj").keys() == set(sealed) - _pictures(log)
    assert all(bool(row.wrapped_dek) == (row.state == "live") for row in rows[StoredObject])


def _pictures(log: dict[str, list[dict[str, Any]]]) -> set[str]:
    """Return the objects that are no packages."""
    return {event["obj"] for event in _taken(log) if event["cat"] != "package"}


def _check_jobs(rows: Rows, log: dict[str, list[dict[str, Any]]]) -> None:
    created = _ids(log["job.created"], "job")
    ended = {ty: _ids(log[ty], "job") for ty in set(ENDS.values())}
    all_ends = Counter(job for ids in ended.values() for job in ids)
    _once(created, all_ends, _ids(log["job.deleted"], "job"))
    standing = {row.job_id: row for row in rows[Job]}
    assert set(standing) <= set(created)
    for job_id in created:
        if job_id in standing and standing[job_id].state in {"queued", "running"}:
            assert job_id not in all_ends
        else:
            assert job_id in all_ends
            assert job_id not in standing or job_id in ended[ENDS[standing[job_id].state]]
    made = (*log["job.created"], *log["job.succeeded"], *log["dataset.added"])
    assert {event["obj"] for event in made} == _pictures(log)


def _check_dsrs(rows: Rows, log: dict[str, list[dict[str, Any]]]) -> None:
    received, approved = _ids(log["dsr.received"], "dsr"), _ids(log["dsr.approved"], "dsr")
    erased = _ids(log["subject.erased"], "dsr")
    over = _ids([event for event in log["record.expired"] if "dsr" in event], "dsr")
    _once(received, approved, erased, over)
    assert {dsr.dsr_id for dsr in rows[Dsr]} == set(received) - set(over)
    under_way = {d.dsr_id for d in rows[Dsr] if d.state in {"approved", "running", "fulfilled"}}
    # What was approved may still be taken back before anybody begins.
    taken_back = {d.dsr_id for d in rows[Dsr] if d.state == "cancelled" and d.dsr_id in approved}
    assert under_way == set(approved) - set(over) - taken_back
    answered = _ids(log["dsr.fulfilled"], "dsr")
    assert {d.dsr_id for d in rows[Dsr] if d.state == "fulfilled"} == {*erased, *answered} - set(over)
    assert {c.dsr_id: c.event_id for c in rows[Certificate]} == {
        event["dsr"]: event["id"] for event in log["subject.erased"]
    }


def check_gone(rows: Rows, handle: str) -> None:
    """No row of any kind carries the handle."""
    for kind in SUBJECT_TABLES:
        assert [row for row in rows[kind] if row.handle == handle] == [], kind.__name__


def check_bytes(rows: Rows, stored: Iterable[str]) -> None:
    """Every stored object belongs to a live row, and every live row has its bytes."""
    assert set(stored) == {row.object_id for row in rows[StoredObject] if row.state == "live"}


def _taken(log: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [*log["object.sealed"], *log["object.transient"]]


def _ids(found: Iterable[dict[str, Any]], name: str) -> Counter[str]:
    return Counter(event[name] for event in found)


def _once(*counters: Counter[str]) -> None:
    for counter in counters:
        assert all(number == 1 for number in counter.values()), counter
