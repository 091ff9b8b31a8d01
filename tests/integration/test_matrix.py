"""What people do with a gateway over its whole life, on every combination of real parts (`tests/places.py`).

make test           files: every journey; bucket and token: the first one
make test-matrix    every journey on each of them
"""

from __future__ import annotations

import base64
import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from lethe.v1 import dsr_pb2, generation_pb2, key_pb2, retention_pb2, subject_pb2

from audit import leaf
from audit.certificate import CertificateReport, verify_certificate
from gateway import compose
from gateway.adapters.clock import SystemClock
from gateway.adapters.sql.records import open_records
from gateway.adapters.survivors import FileSurvivors
from gateway.admin.folder import TENANT
from gateway.client import Client, Refused
from gateway.errors import KeyServiceUnavailable, StoreUnavailable
from gateway.ports.keys import Epoch, EpochDestroyed
from gateway.ports.records import Leaf, Records, SealedPayload, StoredObject, SubjectKey
from gateway.vault.custody import Custody, wrap_binding
from gateway.vault.keys import KeyCache, unwrap_dek
from gateway.vault.payload import PayloadKey
from gateway.vault.safe import Safe, object_binding
from tests import invariants
from tests.gateway import (
    PORTRAIT,
    Gateway,
    add_subject,
    consent,
    erase,
    finished,
    header,
    publish_notice,
    running,
)
from tests.integration.conftest import everywhere, matrix
from tests.places import Place
from tests.process import until

ANN, BOB = "ann-4711-of-lisbon", "bob-4712-of-porto"
DONE = generation_pb2.Job.STATE_SUCCEEDED
RULE = "GDPR Art. 17(3)(e)"


# --- what people do ------------------------------------------------------------------------------


@pytest.fixture
async def gateway(place: Place) -> AsyncIterator[Gateway]:
    """A gateway that runs on the parts, a notice, and two people who consented."""
    async with running(place.layout) as started:
        await settle_in(started)
        yield started


async def settle_in(gateway: Gateway) -> None:
    async with gateway.client("app") as app, gateway.client("officer") as officer:
        await publish_notice(officer)
        for subject in (ANN, BOB):
            await add_subject(app, subject)
            await consent(app, subject)


async def portrait(app: Client, subject: str) -> tuple[str, bytes]:
    """Return a finished job and its picture."""
    made = await finished(app, (await app.create_job(header(subject), PORTRAIT.read_bytes())).job.name)
    assert made.state == DONE
    return made.name, (await app.download(made.name))[1]


async def certificate(gateway: Gateway, name: str) -> CertificateReport:
    """Return what an auditor says of a certificate, once it is in the log."""
    async with gateway.client("officer") as officer:
        request = dsr_pb2.GetCertificateRequest(name=name)

        async def given() -> dsr_pb2.GetCertificateResponse | None:
            with contextlib.suppress(Refused):
                return await officer.call(officer.dsrs.GetCertificate, request)
            return None

        await until(given)
        proved = await given()
    assert proved is not None
    trust = gateway.layout.trust.read_text()
    return verify_certificate(proved.tlog_proof, proved.opening, trust)


def only_outputs_rest(gateway: Gateway, place: Place, number: int) -> Callable[[], Awaitable[bool]]:
    """Return what tells whether the store holds just so many objects, each with its row."""

    async def told() -> bool:
        rows = {stored.object_id for stored in await gateway.rows(StoredObject)}
        return len(rows) == number and rows == place.stored() and not place.drafts()

    return told


async def holds(gateway: Gateway, place: Place) -> None:
    """INVARIANT: effects and leaves belong together, and every live row has its bytes."""
    rows = await gateway.outside.records.transact(invariants.everything)
    invariants.check(rows)
    invariants.check_bytes(rows, place.stored())


# --- what is secret, and what opens it -------------------------------------------------------------


@dataclass
class Secrets:
    """What must be nowhere once a person is erased, taken while they were not."""

    handle: str = ""
    open: dict[str, bytes] = field(default_factory=dict)
    """Opened keys and salts: never on any disk."""
    sealed: dict[str, bytes] = field(default_factory=dict)
    """Wrapped keys: on disk while they open something."""
    keys: list[SubjectKey] = field(default_factory=list)
    objects: list[StoredObject] = field(default_factory=list)

    @classmethod
    async def of(cls, gateway: Gateway, subject: str) -> Secrets:
        made = cls((await gateway.outside.keys.mac(TENANT, "handle", subject.encode())).hex())
        opener = custody(gateway.outside.records, gateway)
        opened = {}
        for key in await gateway.rows(SubjectKey, handle=made.handle):
            opened[key.key_id] = await opener.open(key)
            made.open[f"subject key {key.cls}"] = opened[key.key_id]
            made.sealed[f"wrapped subject key {key.cls}"] = key.wrapped
            made.keys.append(key)
            if key.cls == "audit":
                made.open |= await salts(gateway, PayloadKey.of(key, opened[key.key_id]))
        for stored in await gateway.rows(StoredObject, handle=made.handle, state="live"):
            dek = unwrap_dek(opened[stored.key_id], stored.wrapped_dek, object_binding(stored))
            made.open[f"object key {stored.kind}"] = dek
            made.sealed[f"wrapped object key {stored.kind}"] = stored.wrapped_dek
            made.objects.append(stored)
        assert {"content", "profile", "evidence", "audit"} == {key.cls for key in made.keys}
        assert any(name.startswith("salt") for name in made.open)
        return made


async def salts(gateway: Gateway, key: PayloadKey) -> dict[str, bytes]:
    """Return the salts of all that the log's events say of a person."""
    found = {}
    lines = {row.event_id: row for row in await gateway.rows(Leaf)}
    for row in await gateway.rows(SealedPayload, key_id=key.holder.key_id):
        entry = leaf.decode(lines[row.event_id].line)["seals"][row.slot]
        found[f"salt {row.event_id}"] = key.open(row.log, entry, row.blob)[0]
    return found


def custody(records: Records, gateway: Gateway) -> Custody:
    """Return what opens the records' keys with the gateway's live key service."""
    clock = SystemClock()
    return Custody(records, gateway.outside.keys, clock, KeyCache(16, compose.KEY_CACHE_TTL, clock))


def forms(secret: bytes) -> tuple[bytes, ...]:
    """Return a secret as it may lie about."""
    return secret, secret.hex().encode(), secret.hex().upper().encode(), base64.b64encode(secret).rstrip(b"=")


async def opened_by_any(copy: Place, gateway: Gateway, stored: StoredObject) -> bytes | None:
    """Return an object of a copy, opened with all that a thief of it and the live key service have.

    Its own rows, and the keys that were wrapped anew since: those lie beside the live key service.
    """
    settings = copy.settings
    survivors = FileSurvivors(compose.survivors_directory(gateway.settings))
    async with contextlib.AsyncExitStack() as stack:
        records = open_records(settings.records.url)
        stack.push_async_callback(records.close)
        objects = await compose.open_objects(settings.objects, stack)
        row = await records.transact(lambda tx: tx.get(SubjectKey, stored.key_id))
        assert row is not None
        tries = [row]
        for epoch in map(str, await gateway.outside.keys.epochs()):
            wrapped = (await survivors.find(epoch)).get(row.key_id)
            tries += [] if wrapped is None else [replace(row, epoch=epoch, wrapped=wrapped)]
        for tried in tries:
            await records.transact(lambda tx, tried=tried: tx.put(tried))
            with contextlib.suppress(KeyServiceUnavailable, StoreUnavailable):
                return await Safe(custody(records, gateway), objects, SystemClock()).open(stored)
    return None


# --- the journeys --------------------------------------------------------------------------------


@everywhere
async def test_a_life_from_the_upload_to_the_certificate_and_nothing_of_it_is_left(
    place: Place, tmp_path: Path
) -> None:
    """Upload, release, copy of everything, erasure, certificate; then the raw files, and the copy.

    The canary bytes, salts and keys are in no data file, WAL, heap or object version; and the copy with
    the live key service opens the objects of who stayed, and none of the erased.
    """
    async with running(place.layout) as gateway:
        await settle_in(gateway)
        async with gateway.client("app") as app:
            (ann_job, ann_picture), (bob_job, picture) = [await portrait(app, who) for who in (ANN, BOB)]
        await until(only_outputs_rest(gateway, place, 2))
        ann, bob = [await Secrets.of(gateway, who) for who in (ANN, BOB)]
    copy = await place.copied(tmp_path / "copy")
    before = await place.holding(*ann.sealed.values(), ann.handle.encode())
    assert set(before) == {*ann.sealed.values(), ann.handle.encode()}  # there is something to be found

    async with running(place.layout) as gateway:
        done = await erase(gateway, ANN)
        report = await certificate(gateway, done.certificate)
        assert (report.verdict, report.fault) == ("valid", "")
        assert report.opening["key_service"] == gateway.outside.keys.name
        await until(only_outputs_rest(gateway, place, 1))
        await holds(gateway, place)
        async with gateway.client("app") as app:
            assert (await app.download(bob_job))[1] == picture
            with pytest.raises(Refused):
                await app.download(ann_job)
            with pytest.raises(Refused, match="was erased"):
                await add_subject(app, ANN)

        # With the copy and the live key service: hers opens no more, his does.
        assert [await opened_by_any(copy, gateway, stored) for stored in ann.objects] == [None]
        assert [await opened_by_any(copy, gateway, stored) for stored in bob.objects] == [picture]
        gone = [key for key in ann.keys if key.cls in report.opening["erased_classes"]]
        assert {"content", "profile", "audit"} <= {key.cls for key in gone}
        for key in gone:
            binding = wrap_binding(key.tenant, key.key_id, key.cls, key.month)
            with pytest.raises(EpochDestroyed):
                await gateway.outside.keys.unwrap(Epoch.parse(key.epoch), key.wrapped, binding)
        (kept,) = await gateway.rows(StoredObject)
        bob_now = await Secrets.of(gateway, BOB)

    shutil.rmtree(copy.layout.root)  # it was a thief's: what is searched is what we keep
    upload = PORTRAIT.read_bytes()
    pieces = [upload[at : at + 24] for at in (20_000, 60_000)] + [ann_picture[100:124]]
    assert {len(piece) for piece in pieces} == {24}
    canaries = [ANN.encode(), *pieces, *(form for secret in ann.open.values() for form in forms(secret))]
    lingering = [] if not place.is_scoured else [*ann.sealed.values(), *forms(bytes.fromhex(ann.handle))]
    found = await place.holding(*canaries, *lingering, bob.handle.encode(), *bob_now.sealed.values())
    assert [(needle, found.get(needle)) for needle in (*canaries, *lingering) if needle in found] == []
    assert {bob.handle.encode(), *bob_now.sealed.values()} <= set(found)  # what is there is found
    assert place.stored() == {kept.object_id}


@matrix
async def test_a_hold_stops_the_end_of_every_term_until_it_is_released(place: Place) -> None:
    place.configure("jobs", output_ttl_h=0.0006)
    async with running(place.layout) as gateway:
        await settle_in(gateway)
        async with gateway.client("app") as app, gateway.client("officer") as officer:
            later = Timestamp(seconds=int(datetime.now(UTC).timestamp()) + 3600)
            wanted = retention_pb2.Hold(subject=f"subjects/{ANN}", rule=RULE, retain_until_time=later)
            request = retention_pb2.PlaceHoldRequest(hold=wanted)
            hold = (await officer.call(officer.retention.PlaceHold, request)).hold
            for who in (ANN, BOB):
                await portrait_made(app, who)
            handle = (await gateway.outside.keys.mac(TENANT, "handle", ANN.encode())).hex()

            async def only_hers_are_held() -> bool:
                rows = await gateway.rows(StoredObject)
                are_held = [(row.handle, row.state) for row in rows] == [(handle, "held")] * 2
                return are_held and place.stored() == {row.object_id for row in rows}

            await until(only_hers_are_held)
            await officer.call(
                officer.retention.ReleaseHold, retention_pb2.ReleaseHoldRequest(name=hold.name)
            )
            await until(only_outputs_rest(gateway, place, 0))
        whys = [event["why"] for event in await gateway.leaves("object.destroyed")]
        assert sorted(whys) == ["expired", "expired", "expired", "job_done"]
        await holds(gateway, place)


async def portrait_made(app: Client, subject: str) -> None:
    made = await finished(app, (await app.create_job(header(subject), PORTRAIT.read_bytes())).job.name)
    assert made.state in {DONE, generation_pb2.Job.STATE_EXPIRED}


@matrix
async def test_keys_rotate_beside_what_is_used_and_older_copies_open_nothing(
    gateway: Gateway, place: Place
) -> None:
    async with gateway.client("app") as app, gateway.client("officer") as officer:
        job, picture = await portrait(app, ANN)
        before = await Secrets.of(gateway, ANN)
        rotated = await officer.call(officer.keys.RotateKeys, key_pb2.RotateKeysRequest())
        assert rotated.rewrapped_keys >= len(before.keys)
        for key in before.keys:
            binding = wrap_binding(key.tenant, key.key_id, key.cls, key.month)
            with pytest.raises(EpochDestroyed):
                await gateway.outside.keys.unwrap(Epoch.parse(key.epoch), key.wrapped, binding)
        assert (await app.download(job))[1] == picture
        _, another = await portrait(app, ANN)
        assert another.startswith(b"\xff\xd8\xff")
        state = await officer.call(officer.keys.GetKeyStatus, key_pb2.GetKeyStatusRequest())
        assert state.adapter == gateway.outside.keys.name
        assert sum(epoch.wrapped_keys for epoch in state.epochs) >= len(before.keys)
    await holds(gateway, place)


@matrix
async def test_a_person_sees_corrects_and_deletes_what_is_stored(gateway: Gateway, place: Place) -> None:
    async with gateway.client("app") as app:
        job = (await app.create_job(header(ANN), PORTRAIT.read_bytes())).job.name
        ended = await finished(app, job)
        request = subject_pb2.ListStoredDataRequest(subject=f"subjects/{ANN}")
        items = (await app.call(app.subjects.ListStoredData, request)).items
        assert {ended.result_object, job} <= {item.name for item in items}
        delete = subject_pb2.DeleteObjectRequest(name=ended.result_object)
        assert (await app.call(app.subjects.DeleteObject, delete)).receipt.event_id
        await until(only_outputs_rest(gateway, place, 0))
        with pytest.raises(Refused) as refused:
            await app.download(job)
        assert refused.value.reason == "OBJECT_EXPIRED"


@matrix
async def test_what_nobody_claims_is_swept(place: Place) -> None:
    """A crash between the ciphertext and its commit: the sweeper removes what no row claims."""
    place.configure("sweep", orphan_grace_s=0.0)
    async with running(place.layout) as gateway:

        async def chunks() -> AsyncIterator[bytes]:
            yield b"garbage"

        await gateway.outside.objects.put("ab" * 16, chunks())
        await until(lambda: not place.stored() and not place.drafts())
