"""Receipts: full, signed, in the log, and refused once a byte of them says something else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from audit.receipt import PROOF, verify_receipt
from gateway.errors import NotFound, StateConflict, SubjectBlocked
from gateway.ports.records import Leaf
from tests.world import APP, OFFICER, ORIGIN, STRANGER, World

SCHEMA = json.loads(Path("tests/vectors/dpv-27560-receipt.schema.json").read_text())
SHOWN = {
    "act": "signature",
    "channel": "web",
    "signature": b"scrawl".hex(),
    "controller_shown": "Example Ltd",
    "withdrawal_method_shown": "in the app, or by this receipt",
    "data_categories": ["original", "output"],
    "recipients_shown": ["studio"],
    "transfer_countries_shown": ["DE"],
}


@pytest.fixture
async def w() -> World:
    made = World()
    await made.publish("generate", "retain_output")
    await made.know("ann")
    return made


async def receipt(w: World, consent_id: str) -> bytes:
    """Return a receipt as the service puts it together."""
    await w.log()
    flows = w.flows
    event_id = await flows.receipts.event_of(APP, consent_id)
    proof = await flows.audit.inclusion(APP, event_id=event_id, method="ConsentService/GetReceipt")
    evidence = await flows.consents.evidence(await flows.consents.get(APP, consent_id))
    _, content = await flows.receipts.issue(APP, consent_id, evidence, proof.tlog_proof)
    return content


def trust(w: World) -> str:
    return "\n".join(signer.vkey() for signer in w.signers[ORIGIN]) + "\n"


async def test_a_receipt_has_every_field_of_the_profile_and_verifies_offline(w: World) -> None:
    """ISO/IEC TS 27560, in the DPV profile."""
    consent = await w.consent("ann", term_shown="until delivery", evidence=SHOWN)
    content = await receipt(w, consent.consent_id)
    document = json.loads(content)
    jsonschema.validate(document, SCHEMA)
    record = document["dpv:hasRecordOfActivity"]
    assert "not stated" not in json.dumps({**record, "dpv:hasDataController": {}})
    assert record["dpv:hasNotice"]["dct:description"] == "We make a portrait."
    assert record["dpv:hasDataSubject"]["dct:identifier"] == "subjects/ann"
    assert verify_receipt(content, trust(w)).verdict == "valid"
    assert verify_receipt(content, None).verdict == "untrusted"
    assert w.events("audit.read")[-1]["mthd"] == "ConsentService/GetReceipt"


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every text in a document."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from places(item, (*path, name))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from places(item, (*path, place))


async def test_a_receipt_of_which_anything_was_changed_is_refused(w: World) -> None:
    consent = await w.consent("ann", evidence=SHOWN)
    content = await receipt(w, consent.consent_id)
    found = list(places(json.loads(content)))
    assert len(found) > 40
    for path in found:
        document = json.loads(content)
        *above, last = path
        holder = document
        for name in above:
            holder = holder[name]
        holder[last] = holder[last][:-1] + ("x" if holder[last][-1:] != "x" else "y")
        changed = json.dumps(document).encode()
        assert verify_receipt(changed, trust(w)).verdict == "invalid", path
        if path[0] != PROOF:
            assert verify_receipt(changed, None).verdict == "invalid", path


async def test_the_proof_of_another_consent_is_refused(w: World) -> None:
    one, other = await w.consent("ann"), await w.consent("ann", purpose="retain_output")
    mine, theirs = (
        json.loads(await receipt(w, one.consent_id)),
        json.loads(await receipt(w, other.consent_id)),
    )
    mine[PROOF]["tlogProof"] = theirs[PROOF]["tlogProof"]
    assert verify_receipt(json.dumps(mine).encode(), trust(w)).fault.startswith("receipt_differs")


async def test_a_receipt_by_another_key_or_of_nothing_is_refused(w: World) -> None:
    content = await receipt(w, (await w.consent("ann")).consent_id)
    theirs = next(keys for origin, keys in w.signers.items() if origin != ORIGIN)[0].vkey() + "\n"
    assert verify_receipt(content, theirs).verdict == "invalid"
    for data in (b"", b"[]", b"{}", b'{"@type":"dpv:ConsentReceipt"}', content[:-9]):
        assert verify_receipt(data, trust(w)).verdict == "invalid"


async def test_a_receipt_withdraws_by_itself(w: World) -> None:
    """GDPR Art. 7(3): as easy to withdraw as to give."""
    consent = await w.consent("ann")
    number = json.loads(await receipt(w, consent.consent_id))["dct:identifier"].removeprefix("receipts/")
    assert number == consent.receipt_id
    with pytest.raises(NotFound):
        await w.flows.consents.withdraw(STRANGER, receipt_id=number)
    with pytest.raises(NotFound):
        await w.flows.consents.withdraw(APP, receipt_id="0" * 32)
    done = await w.flows.consents.withdraw(APP, receipt_id=number)
    assert [one.state for one in done.consents] == ["withdrawn"]
    events = json.loads(await receipt(w, consent.consent_id))["dpv:hasRecordOfActivity"][
        "dpv:hasConsentStatus"
    ]
    assert [event["@type"] for event in events][1:] == ["dpv:ConsentWithdrawn"]


async def test_before_its_event_is_in_the_log_there_is_no_receipt(w: World) -> None:
    consent = await w.consent("ann")
    event_id = await w.flows.receipts.event_of(APP, consent.consent_id)
    with pytest.raises(StateConflict) as early:
        await w.flows.audit.inclusion(APP, event_id=event_id)
    assert early.value.detail == "not_sequenced"
    await w.records.transact(lambda tx: tx.discard(Leaf, equal={"event_id": event_id}))
    with pytest.raises(StateConflict) as gone:
        await w.flows.receipts.event_of(APP, consent.consent_id)
    assert gone.value.detail == "event_gone"


async def test_nobody_gets_a_receipt_of_one_who_is_erased_or_of_another_tenant(w: World) -> None:
    consent = await w.consent("ann")
    with pytest.raises(NotFound):
        await w.flows.receipts.event_of(STRANGER, consent.consent_id)
    await w.erase("ann")
    with pytest.raises(SubjectBlocked):
        await w.flows.receipts.issue(OFFICER, consent.consent_id, {}, "")
