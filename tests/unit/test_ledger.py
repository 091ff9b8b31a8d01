"""The pen of the log: who acted, in which log, and nothing that the schema does not know."""

from __future__ import annotations

import json

import pytest

from audit import leaf as leaves
from audit.errors import AuditError
from gateway.caller import Caller, Role
from gateway.ledger import Ledger, Receipt
from gateway.ports.records import Leaf
from tests.fakes.clock import NOON, FrozenClock
from tests.fakes.records import MemoryRecords

SERVICE = Caller("acme", "app", Role.SERVICE, is_person=False)
PERSON = Caller("acme", "jane-doe", Role.PRIVACY_OFFICER, is_person=True)
LEDGER = Ledger(FrozenClock(), {"acme": "lethe.test/0a", "other": "lethe.test/0b"})
JOB = "0f" * 16


async def written(
    records: MemoryRecords, by: Caller | None, tenant: str = "acme", **fields: object
) -> Receipt:
    return await records.transact(
        lambda tx: LEDGER.record(tx, tenant, "job.deleted", by, **{"job": JOB, **fields})
    )


async def test_a_receipt_names_the_log_the_event_and_its_hash() -> None:
    records = MemoryRecords()
    receipt = await written(records, SERVICE)
    (row,) = records.all(Leaf)
    assert (receipt.origin, receipt.event_id) == ("lethe.test/0a", row.event_id)
    assert receipt.leaf_hash == row.leaf_hash == leaves.leaf_hash(row.line)
    assert (row.ty, row.seq, row.queued_at) == ("job.deleted", None, NOON)
    assert leaves.decode(row.line)["job"] == JOB


async def test_each_tenant_has_its_own_log() -> None:
    records = MemoryRecords()
    for tenant in ("acme", "other"):
        await written(records, None, tenant)
    assert {row.log for row in records.all(Leaf)} == {"lethe.test/0a", "lethe.test/0b"}


async def test_a_service_appears_by_its_name_and_the_gateway_as_itself() -> None:
    records = MemoryRecords()
    await written(records, SERVICE)
    await written(records, None)
    assert {json.loads(row.line)["act"] for row in records.all(Leaf)} == {"svc:app", "sys:lethe"}


async def test_a_person_appears_under_a_token_that_is_new_for_every_event() -> None:
    """GDPR Art. 5(1)(c): staff are data subjects too."""
    records = MemoryRecords()
    for _ in range(2):
        await written(records, PERSON)
    tokens = {json.loads(row.line)["act"] for row in records.all(Leaf)}
    assert len(tokens) == 2
    assert all(token.startswith("tok:") for token in tokens)
    assert not any(b"jane" in row.line for row in records.all(Leaf))


async def test_fields_that_are_none_are_left_out() -> None:
    records = MemoryRecords()
    await records.transact(
        lambda tx: LEDGER.record(
            tx, "acme", "job.failed", None, job=JOB, rc="BACKEND_UNAVAILABLE", bak="0a" * 16, det=None
        )
    )
    (row,) = records.all(Leaf)
    assert "det" not in json.loads(row.line)


@pytest.mark.parametrize("fields", [{"name": "Jane Doe"}, {"job": "Jane Doe"}, {"job": 5}])
async def test_what_the_schema_does_not_know_takes_the_whole_transaction_with_it(
    fields: dict[str, object],
) -> None:
    records = MemoryRecords()
    with pytest.raises(AuditError):
        await written(records, SERVICE, **fields)
    assert records.all(Leaf) == []
