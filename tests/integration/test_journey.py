"""What people do with a gateway, first notice to last certificate; on PostgreSQL in `make test-matrix`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import pytest
from lethe.backend.v1 import backend_pb2
from lethe.v1 import audit_pb2, common_pb2, consent_pb2, dsr_pb2, generation_pb2, notice_pb2, subject_pb2
from PIL import Image

from audit import checkpoint, note, tree, verify
from audit.note import Verifier
from gateway.admin.export import fetch
from gateway.admin.folder import Layout
from gateway.admin.planting import _sexagesimal, plant_metadata
from gateway.admin.tap import Identity, Tap
from gateway.client import Client, Refused
from gateway.ports.records import Job, StoredObject, SubjectKey
from gateway.settings import load
from tests.gateway import (
    NOTICE_TEXT,
    PORTRAIT,
    Gateway,
    add_subject,
    approve,
    consent,
    consent_of,
    erase,
    finished,
    fulfilled,
    header,
    make_folder,
    publish_notice,
    running,
)
from tests.integration.conftest import SUBJECT, weights_folder
from tests.needs import needs
from tests.unit.deidentify import plant

pb = generation_pb2
IMAGE = PORTRAIT.read_bytes()
ERASURE = dsr_pb2.Dsr.KIND_ERASURE


async def until(holds: Callable[[], Awaitable[object]], patience_s: float = 15.0) -> None:
    """Return once `holds` does."""
    async with asyncio.timeout(patience_s):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.02)


async def reason(call: Awaitable[object]) -> str:
    """Return why the call is refused."""
    with pytest.raises(Refused) as caught:
        await call
    return caught.value.reason


async def job_of(app: Client, subject: str = SUBJECT, **changes: object) -> str:
    """Queue a job and return its name."""
    return (await app.create_job(header(subject, **changes), IMAGE)).job.name


async def held_job(gateway: Gateway, app: Client) -> str:
    """Return a job that runs and waits inside the backend."""
    gateway.backend.hold()
    name = await job_of(app)
    async with asyncio.timeout(15):
        await gateway.backend.held.wait()
    return name


async def cancel(app: Client, job: str) -> pb.Job:
    return (await app.call(app.generation.CancelJob, pb.CancelJobRequest(name=job))).job


async def withdraw(app: Client, subject: str = SUBJECT) -> consent_pb2.WithdrawConsentResponse:
    which = consent_pb2.SubjectPurpose(subject=f"subjects/{subject}", purpose=common_pb2.PURPOSE_GENERATE)
    request = consent_pb2.WithdrawConsentRequest(subject_purpose=which)
    return await app.call(app.consents.WithdrawConsent, request)


async def open_dsr(officer: Client, **changes: object) -> dsr_pb2.CreateDsrResponse:
    made = {"subject": f"subjects/{SUBJECT}", "kind": ERASURE, **changes}
    return await officer.call(officer.dsrs.CreateDsr, dsr_pb2.CreateDsrRequest(**made))


# --- jobs ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ready")
class TestJobs:
    async def test_an_upload_becomes_a_picture_and_the_original_is_gone(self, gateway, app) -> None:
        made = await app.create_job(header(SUBJECT), IMAGE)
        assert made.receipt.origin == gateway.settings.tenants["demo"].log_origin

        seen = [state async for state in app.watch(made.job.name)]
        assert seen[-1].state == pb.Job.STATE_SUCCEEDED
        assert [job.percent for job in seen] == sorted(job.percent for job in seen)

        result, picture = await app.download(made.job.name)
        assert result.size_bytes == len(picture) > 0
        assert picture.startswith(b"\xff\xd8\xff")

        async def only_the_output_rests() -> bool:
            return [stored.kind for stored in await gateway.rows(StoredObject)] == ["output"]

        await until(only_the_output_rests)
        assert [result.object.removeprefix("objects/")] == [p.name for p in gateway.object_files()]
        types = [leaf["ty"] for leaf in await gateway.leaves()]
        assert types[-1] == "result.released"
        assert {"decision.made", "job.created", "object.sealed", "image.scrubbed", "job.succeeded"} <= {
            *types
        }

    async def test_generate_runs_one_job_in_one_call(self, app) -> None:
        parts = [part async for part in app.generate(header(SUBJECT), IMAGE)]
        kinds = [part.WhichOneof("part") for part in parts]
        assert kinds == sorted(kinds, key=["job", "result", "chunk", "receipt"].index)
        assert {*kinds} == {"job", "result", "chunk", "receipt"}
        size = next(p.result.size_bytes for p in parts if p.WhichOneof("part") == "result")
        assert size == sum(len(part.chunk) for part in parts)

    async def test_a_queued_job_is_cancelled_at_once(self, gateway, app) -> None:
        first = await held_job(gateway, app)
        second = await job_of(app)
        assert (await cancel(app, second)).state == pb.Job.STATE_CANCELLED
        gateway.backend.release()
        assert (await finished(app, first)).state == pb.Job.STATE_SUCCEEDED
        generated = [call for call in gateway.backend.seen if call.method == "generate"]
        assert len(generated) == 1

    async def test_a_running_job_is_cancelled_within_a_poll(self, gateway, app) -> None:
        job = await held_job(gateway, app)
        await cancel(app, job)
        ended = await finished(app, job)
        assert (ended.state, ended.failure.reason) == (pb.Job.STATE_CANCELLED, "JOB_CANCELLED")
        await nothing_of_it_stays(gateway)

    @pytest.mark.parametrize("end", ["deadline", "hang-up"])
    async def test_a_generate_call_nobody_can_return_to_ends_its_job(self, gateway, app, end) -> None:
        gateway.backend.hold()
        call = asyncio.create_task(generated(app, header(SUBJECT), 20 if end == "hang-up" else 3))
        async with asyncio.timeout(15):
            await gateway.backend.held.wait()
        if end == "hang-up":
            call.cancel()
        await asyncio.wait({call})
        assert call.cancelled() or call.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED

        async def is_cancelled() -> bool:
            return [job.state for job in await gateway.rows(Job)] == ["cancelled"]

        await until(is_cancelled)
        await nothing_of_it_stays(gateway)

    async def test_a_generate_call_with_a_request_id_may_be_returned_to(self, gateway, app) -> None:
        same = header(SUBJECT, request_id=str(uuid.uuid4()))
        gateway.backend.hold()
        call = asyncio.create_task(generated(app, same, 20))
        async with asyncio.timeout(15):
            await gateway.backend.held.wait()
        call.cancel()
        await asyncio.wait({call})
        gateway.backend.release()
        parts = [part async for part in app.generate(same, IMAGE)]
        assert any(part.chunk for part in parts)
        assert len(await gateway.rows(Job)) == 1

    async def test_a_withdrawal_stops_what_runs_and_the_backend_forgets(self, gateway, app) -> None:
        job = await held_job(gateway, app)
        assert (await withdraw(app)).receipt.event_id
        ended = await finished(app, job)
        assert (ended.state, ended.failure.detail) == (pb.Job.STATE_CANCELLED, "consent_withdrawn")
        await nothing_of_it_stays(gateway)
        assert await reason(job_of(app)) == "DENY_CONSENT_WITHDRAWN"

    async def test_a_withdrawal_destroys_what_was_made(self, gateway, app) -> None:
        job = await job_of(app)
        await finished(app, job)
        await withdraw(app)
        await until_nothing_is_stored(gateway)
        assert await reason(app.download(job)) == "DENY_CONSENT_WITHDRAWN"

    async def test_an_erasure_stops_what_runs(self, gateway, app) -> None:
        await held_job(gateway, app)
        done = await erase(gateway, SUBJECT)
        assert done.certificate
        await nothing_of_it_stays(gateway)
        assert await gateway.rows(Job) == []
        assert await reason(job_of(app)) == "SUBJECT_BLOCKED"
        why = [leaf["why"] for leaf in await gateway.leaves("job.cancelled")]
        assert why == ["erasure"]

    async def test_a_restriction_stops_processing_until_it_is_lifted(self, gateway, app) -> None:
        job = await job_of(app)
        await finished(app, job)

        async def restrict(restricted: bool) -> None:
            request = subject_pb2.RestrictSubjectRequest(name=f"subjects/{SUBJECT}", restricted=restricted)
            await app.call(app.subjects.RestrictSubject, request)

        await restrict(True)
        assert await reason(job_of(app)) == "DENY_RESTRICTED"
        assert await reason(app.download(job)) == "DENY_RESTRICTED"
        await restrict(False)
        assert (await finished(app, await job_of(app))).state == pb.Job.STATE_SUCCEEDED
        assert (await app.download(job))[1]

    async def test_a_deleted_job_takes_its_picture_along(self, gateway, app) -> None:
        job = await job_of(app)
        await finished(app, job)
        answer = await app.call(app.generation.DeleteJob, pb.DeleteJobRequest(name=job))
        assert answer.receipt.event_id
        await until_nothing_is_stored(gateway)
        assert await reason(app.call(app.generation.GetJob, pb.GetJobRequest(name=job))) == "NOT_FOUND"

    async def test_a_job_that_runs_is_not_deleted(self, gateway, app) -> None:
        job = await held_job(gateway, app)
        request = pb.DeleteJobRequest(name=job)
        assert await reason(app.call(app.generation.DeleteJob, request)) == "STATE_CONFLICT"
        gateway.backend.release()
        assert (await finished(app, job)).state == pb.Job.STATE_SUCCEEDED

    async def test_stored_data_are_listed_and_an_object_is_deleted(self, gateway, app) -> None:
        job = await finished(app, await job_of(app))
        request = subject_pb2.ListStoredDataRequest(subject=f"subjects/{SUBJECT}")
        items = {item.name: item for item in (await app.call(app.subjects.ListStoredData, request)).items}
        assert items[job.result_object].kind == "output"
        assert all(item.rule for item in items.values())
        assert job.name in items

        delete = subject_pb2.DeleteObjectRequest(name=job.result_object)
        assert (await app.call(app.subjects.DeleteObject, delete)).receipt.event_id
        await until_nothing_is_stored(gateway)
        assert await reason(app.call(app.subjects.DeleteObject, delete)) == "NOT_FOUND"
        assert await reason(app.download(job.name)) == "OBJECT_EXPIRED"

    async def test_a_repeated_request_gets_the_same_job(self, gateway, app) -> None:
        same = header(SUBJECT, request_id=str(uuid.uuid4()))
        first = await app.create_job(same, IMAGE)
        again = await app.create_job(same, IMAGE)
        assert first.job.name == again.job.name
        assert len(await gateway.rows(Job)) == 1
        await finished(app, first.job.name)
        assert len(await gateway.leaves("job.created")) == 1

    async def test_jobs_are_listed_page_by_page(self, app) -> None:
        names = [await job_of(app) for _ in range(3)]
        found, token = [], ""
        while True:
            request = pb.ListJobsRequest(subject=f"subjects/{SUBJECT}", page_size=2, page_token=token)
            page = await app.call(app.generation.ListJobs, request)
            found += [job.name for job in page.jobs]
            token = page.next_page_token
            if not token:
                break
        assert names == found


async def generated(app: Client, head: pb.JobHeader, timeout_s: float) -> None:
    """Call `Generate` as it stands: once, and with a request_id only if `head` has one."""
    messages = iter([pb.GenerateRequest(header=head), pb.GenerateRequest(chunk=IMAGE)])
    async for _answer in app.generation.Generate(messages, timeout=timeout_s):
        pass


async def nothing_of_it_stays(gateway: Gateway) -> None:
    """Demand that the backend was told to cancel and to forget, and that no picture rests."""
    await until_nothing_is_stored(gateway)
    sent = {call.job_pseudonym for call in gateway.backend.seen if call.method == "generate"}
    told = [(call.method, call.job_pseudonym) for call in gateway.backend.seen]
    assert {("cancel", job) for job in sent} <= {*told}
    assert {("forget", job) for job in sent} <= {*told}
    assert gateway.backend.running == {}


async def until_nothing_is_stored(gateway: Gateway) -> None:
    async def is_clean() -> bool:
        return not await gateway.rows(StoredObject) and not gateway.object_files()

    await until(is_clean)


async def test_a_result_whose_term_is_over_is_swept_away(tmp_path, gateway_url) -> None:
    layout = make_folder(tmp_path / "dev", records_url=gateway_url, jobs={"output_ttl_h": 0.0005})
    async with running(layout) as gateway, gateway.client("app") as app, gateway.client("officer") as officer:
        await publish_notice(officer)
        await add_subject(app, SUBJECT)
        await consent(app, SUBJECT)
        job = await job_of(app)
        assert (await finished(app, job)).state == pb.Job.STATE_SUCCEEDED
        await until_nothing_is_stored(gateway)
        whys = {leaf["why"] for leaf in await gateway.leaves("object.destroyed")}
        assert whys == {"job_done", "expired"}
        assert await reason(app.download(job)) in {"OBJECT_EXPIRED", "STATE_CONFLICT", "NOT_FOUND"}


# --- notices and consents ----------------------------------------------------------------------


class TestNoticesAndConsents:
    async def test_notices_have_versions_and_pages(self, app, officer) -> None:
        for _ in range(3):
            await publish_notice(officer)
        seen, token = [], ""
        while True:
            request = notice_pb2.ListNoticesRequest(page_size=2, page_token=token)
            page = await app.call(app.notices.ListNotices, request)
            seen += [notice.version for notice in page.notices]
            token = page.next_page_token
            if not token:
                break
        assert seen == [1, 2, 3]

        async def version_of(number: int) -> notice_pb2.Notice:
            request = notice_pb2.GetNoticeRequest(name="notices/portraits", version=number)
            return (await app.call(app.notices.GetNotice, request)).notice

        assert (await version_of(0)).version == 3
        assert (await version_of(2)).version == 2
        assert (await version_of(1)).text == NOTICE_TEXT
        assert await reason(version_of(4)) == "NOTICE_UNKNOWN"

    async def test_a_newer_consent_supersedes_the_older(self, app, ready) -> None:
        second = await consent(app, SUBJECT)
        request = consent_pb2.GetConsentRequest(name=ready)
        older = (await app.call(app.consents.GetConsent, request)).consent
        assert older.superseded_by == second
        listing = consent_pb2.ListConsentsRequest(subject=f"subjects/{SUBJECT}")
        names = [found.name for found in (await app.call(app.consents.ListConsents, listing)).consents]
        assert names == [ready, second]

    async def test_withdrawing_the_older_consent_does_not_leave_the_newer_standing(self, app, ready) -> None:
        await consent(app, SUBJECT)
        await app.call(app.consents.WithdrawConsent, consent_pb2.WithdrawConsentRequest(name=ready))
        assert await reason(job_of(app)) == "DENY_CONSENT_WITHDRAWN"

    async def test_a_consent_after_a_withdrawal_counts_again(self, app, ready) -> None:
        await withdraw(app)
        await consent(app, SUBJECT)
        assert (await finished(app, await job_of(app))).state == pb.Job.STATE_SUCCEEDED

    async def test_a_repeated_consent_is_recorded_once(self, app, ready) -> None:
        request = consent_pb2.RecordConsentRequest(consent=consent_of(SUBJECT), request_id=str(uuid.uuid4()))
        first = await app.call(app.consents.RecordConsent, request)
        assert (await app.call(app.consents.RecordConsent, request)).consent.name == first.consent.name
        request.consent.channel = "telephone"
        assert await reason(app.call(app.consents.RecordConsent, request)) == "IDEMPOTENCY_CONFLICT"

    async def test_a_dry_decision_leaves_no_trace(self, gateway, app, ready) -> None:
        before = len(await gateway.leaves())
        request = consent_pb2.CheckConsentRequest(
            subject=f"subjects/{SUBJECT}", purpose=common_pb2.PURPOSE_TRAIN
        )
        decision = (await app.call(app.consents.CheckConsent, request)).decision
        assert not decision.allowed
        assert decision.reason_code.startswith("DENY_")
        assert len(await gateway.leaves()) == before


# --- requests of subjects ----------------------------------------------------------------------


@pytest.mark.usefixtures("ready")
class TestErasures:
    async def test_a_rehearsed_request_is_not_kept(self, gateway, officer) -> None:
        rehearsed = await open_dsr(officer, validate_only=True)
        assert rehearsed.dsr.due_date
        assert not rehearsed.HasField("receipt")
        request = dsr_pb2.GetDsrRequest(name=rehearsed.dsr.name)
        assert await reason(officer.call(officer.dsrs.GetDsr, request)) == "NOT_FOUND"
        assert await gateway.leaves("dsr.received") == []

    async def test_a_rehearsed_approval_changes_nothing(self, gateway, officer) -> None:
        opened = (await open_dsr(officer)).dsr
        async with gateway.client("second-officer") as second:
            seen = await second.call(second.dsrs.PreviewDsr, dsr_pb2.PreviewDsrRequest(name=opened.name))
            request = dsr_pb2.ApproveDsrRequest(
                name=opened.name, preview_etag=seen.preview_etag, validate_only=True
            )
            await second.call(second.dsrs.ApproveDsr, request)
            found = await second.call(second.dsrs.GetDsr, dsr_pb2.GetDsrRequest(name=opened.name))
        assert found.dsr.state == dsr_pb2.Dsr.STATE_RECEIVED

    async def test_nobody_approves_what_they_opened(self, gateway, officer) -> None:
        opened = (await open_dsr(officer)).dsr
        request = dsr_pb2.ApproveDsrRequest(name=opened.name)
        assert await reason(officer.call(officer.dsrs.ApproveDsr, request)) == "SECOND_PERSON_REQUIRED"
        assert await gateway.leaves("dsr.approved") == []

    async def test_an_approval_is_bound_to_what_was_seen(self, gateway, app, officer) -> None:
        opened = (await open_dsr(officer)).dsr
        seen = await officer.call(officer.dsrs.PreviewDsr, dsr_pb2.PreviewDsrRequest(name=opened.name))
        await finished(app, await job_of(app))
        async with gateway.client("second-officer") as second:
            for etag in (seen.preview_etag, ""):
                request = dsr_pb2.ApproveDsrRequest(name=opened.name, preview_etag=etag)
                assert await reason(second.call(second.dsrs.ApproveDsr, request)) == "PREVIEW_STALE"

    async def test_a_certificate_verifies_without_the_gateway(self, gateway, app, officer) -> None:
        await finished(app, await job_of(app))
        done = await erase(gateway, SUBJECT)
        request = dsr_pb2.GetCertificateRequest(name=done.certificate)

        async def is_sequenced() -> bool:
            with contextlib.suppress(Refused):
                await officer.call(officer.dsrs.GetCertificate, request)
                return True
            return False

        await until(is_sequenced)
        found = await officer.call(officer.dsrs.GetCertificate, request)
        trust = gateway.layout.trust.read_text()
        report = verify.verify_certificate(found.tlog_proof, found.opening, trust)
        assert (report.verdict, report.fault) == ("valid", "")
        assert report.opening["dsr"] == done.name
        assert {"content", "profile"} <= {*report.leaf["cls"]}
        forged = found.opening.replace(b"gdpr", b"ccpa")
        assert verify.verify_certificate(found.tlog_proof, forged, trust).verdict == "invalid"

    async def test_an_erased_subject_leaves_no_key_of_its_content(self, gateway, app) -> None:
        await finished(app, await job_of(app))
        await erase(gateway, SUBJECT)
        assert {"content", "profile"}.isdisjoint({key.cls for key in await gateway.rows(SubjectKey)})
        assert await gateway.rows(StoredObject) == []
        assert gateway.object_files() == []
        assert await reason(add_subject(app, SUBJECT)) == "SUBJECT_BLOCKED"

    async def test_another_subject_survives_an_erasure(self, gateway, app) -> None:
        await add_subject(app, "crew-2")
        await consent(app, "crew-2")
        kept = await job_of(app, "crew-2")
        await finished(app, kept)
        await erase(gateway, SUBJECT)
        assert (await app.download(kept))[1]

    async def test_a_cancelled_request_is_not_approved(self, gateway, officer) -> None:
        opened = (await open_dsr(officer)).dsr
        await officer.call(officer.dsrs.CancelDsr, dsr_pb2.CancelDsrRequest(name=opened.name))
        async with gateway.client("second-officer") as second:
            request = dsr_pb2.ApproveDsrRequest(name=opened.name)
            assert await reason(second.call(second.dsrs.ApproveDsr, request)) == "STATE_CONFLICT"

    async def test_an_approval_repeated_changes_nothing(self, gateway, officer) -> None:
        opened = (await open_dsr(officer)).dsr
        async with gateway.client("second-officer") as second:
            for _ in range(2):
                await approve(second, opened.name)
            await fulfilled(second, opened.name)
            assert not (await approve(second, opened.name)).HasField("receipt")
        assert len(await gateway.leaves("subject.erased")) == 1


# --- the log -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("ready")
class TestLog:
    async def head(self, auditor: Client) -> checkpoint.Checkpoint:
        found = await auditor.call(auditor.audit.GetCheckpoint, audit_pb2.GetCheckpointRequest())
        keys = [Verifier.parse(key) for key in found.vkeys]
        return checkpoint.open_checkpoint(found.checkpoint, keys)

    async def grown(self, gateway: Gateway, auditor: Client) -> checkpoint.Checkpoint:
        """Return the head once every leaf has its place."""

        async def is_whole() -> bool:
            return (await self.head(auditor)).size == len(await gateway.leaves())

        await until(is_whole)
        return await self.head(auditor)

    async def test_events_are_listed_page_by_page_in_order(self, gateway, auditor) -> None:
        head = await self.grown(gateway, auditor)
        events, token = [], ""
        while True:
            request = audit_pb2.ListEventsRequest(page_size=2, page_token=token)
            page = await auditor.call(auditor.audit.ListEvents, request)
            events += page.events
            token = page.next_page_token
            if not token:
                break
        assert list(range(head.size)) == [event.index for event in events]
        assert all(tree.hash_leaf(event.leaf) == event.leaf_hash for event in events)
        said = await gateway.leaves("audit.read")
        assert sum(read["nrow"] for read in said) == head.size
        request = audit_pb2.ListEventsRequest(type="consent.recorded")
        assert len((await auditor.call(auditor.audit.ListEvents, request)).events) == 1

    async def test_every_event_is_proved_and_the_log_only_grows(self, gateway, app, auditor) -> None:
        first = await self.grown(gateway, auditor)
        await finished(app, await job_of(app))
        second = await self.grown(gateway, auditor)
        assert second.size > first.size

        events = (await auditor.call(auditor.audit.ListEvents, audit_pb2.ListEventsRequest())).events
        for event in events:
            request = audit_pb2.GetInclusionProofRequest(event_id=event.event_id)
            proof = await auditor.call(auditor.audit.GetInclusionProof, request)
            # Reading is an event, too: the log has grown since, and the proof is of its own checkpoint.
            led_to = checkpoint.parse(note.parse(proof.checkpoint)[0])
            assert led_to.size == proof.tree_size >= second.size
            tree.verify_inclusion(
                index=proof.index,
                size=led_to.size,
                leaf_hash=tree.hash_leaf(event.leaf),
                proof=list(proof.hashes),
                root=led_to.root,
            )
        request = audit_pb2.GetConsistencyProofRequest(first_size=first.size, second_size=second.size)
        proof = await auditor.call(auditor.audit.GetConsistencyProof, request)
        tree.verify_consistency(
            first=first.size,
            second=second.size,
            first_root=first.root,
            second_root=second.root,
            proof=list(proof.hashes),
        )

    async def test_an_export_verifies_without_the_gateway(self, gateway, app, auditor, tmp_path) -> None:
        await finished(app, await job_of(app))
        head = await self.grown(gateway, auditor)
        await fetch(auditor, tmp_path / "export")
        files = verify.read_folder(tmp_path / "export")
        report = verify.verify_export(files, gateway.layout.trust.read_text())
        assert ("valid", "", head.size) == (report.verdict, report.fault, report.size)
        assert verify.verify_export(files, None).verdict == "untrusted"
        assert all(SUBJECT.encode() not in content for content in files.values())
        assert [leaf["to"] for leaf in await gateway.leaves("export.created")] == [head.size]

    async def test_a_proof_outside_the_log_is_refused(self, gateway, auditor) -> None:
        head = await self.grown(gateway, auditor)
        beyond = audit_pb2.GetInclusionProofRequest(index=head.size + 5)
        assert await reason(auditor.call(auditor.audit.GetInclusionProof, beyond)) == "NOT_FOUND"
        sizes = audit_pb2.GetConsistencyProofRequest(first_size=1, second_size=head.size + 5)
        assert await reason(auditor.call(auditor.audit.GetConsistencyProof, sizes)) == "MESSAGE_INVALID"


# --- what the backend sees ---------------------------------------------------------------------

GPS = (37.6189, -122.3750)
SERIAL = "SN-4F9C2B7713"
FILE_NAME = "eileen-at-home.jpg"
WHO = "person-8c1f2e"
COMMENT, XMP = b"holiday with Tom", b"urn:uuid:5e1f-the-document"


class Tapped:
    """A gateway whose way to a real studio process leads through a tap."""

    def __init__(self, gateway: Gateway, tap: Tap) -> None:
        self.gateway, self.tap = gateway, tap

    def pictures(self) -> list[bytes]:
        """Return the pictures that the backend was sent, one a call of `Generate`."""
        pictures: list[bytes] = []
        for request in self._requests():
            if request.WhichOneof("part") == "header":
                pictures.append(b"")
            else:
                pictures[-1] += request.chunk
        return pictures

    def job_ids(self) -> list[str]:
        """Return the job ids that the backend was told, one a call of `Generate`."""
        return [
            request.header.job_id for request in self._requests() if request.WhichOneof("part") == "header"
        ]

    def _requests(self) -> list[backend_pb2.GenerateRequest]:
        found, is_generate = [], False
        for message in self.tap.to_backend:
            if message.startswith(b"/lethe.backend."):
                is_generate = message.endswith(b"/Generate")
            elif is_generate:
                with contextlib.suppress(Exception):
                    parsed = backend_pb2.GenerateRequest.FromString(message)
                    if parsed.WhichOneof("part"):
                        found.append(parsed)
        return found


@contextlib.asynccontextmanager
async def tapped(layout: Layout) -> AsyncIterator[Tapped]:
    """Run `lethe backend serve`, a tap in front of it, and a gateway that knows only the tap."""
    weights = weights_folder()
    command = [sys.executable, "-m", "gateway.main", "backend", "serve", "--address", "127.0.0.1:0"]
    command += ["--cert", str(layout.cert("backend")), "--key", str(layout.key("backend"))]
    command += ["--ca", str(layout.backend_ca), "--weights", str(weights)]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        async with asyncio.timeout(60):
            target = (await process.stdout.readline()).decode().removeprefix("listening ").strip()
        ca = layout.backend_ca.read_bytes()
        faces = [
            Identity(layout.cert(name).read_bytes(), layout.key(name).read_bytes(), ca)
            for name in ("backend", "gateway-to-backend")
        ]
        tap = Tap()
        await tap.start(load(layout.config).backends[0].address, target, listen=faces[0], onward=faces[1])
        try:
            async with running(layout, is_backend_real=True) as gateway:
                yield Tapped(gateway, tap)
        finally:
            await tap.stop()
    finally:
        process.terminate()
        await process.wait()


def planted() -> tuple[bytes, bytes]:
    """Return a portrait as a telephone leaves it, and the thumbnail inside."""
    with Image.open(PORTRAIT) as image:
        image.thumbnail((160, 160))
        thumbnail = plant.encode(image, "JPEG")
    told = plant_metadata(IMAGE, gps=GPS, serial=SERIAL, thumbnail=thumbnail)
    extra = plant.segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>" + XMP + b"</x:xmpmeta>")
    return told[:2] + extra + plant.segment(0xFE, COMMENT) + told[2:], thumbnail


def exif_of(picture: bytes) -> dict[str, object]:
    """Return all that exiftool reads in a picture, by group and name."""
    command = [needs("exiftool", "libimage-exiftool-perl"), "-j", "-G", "-a", "-u", "-"]
    done = subprocess.run(command, input=picture, capture_output=True, check=True)
    return json.loads(done.stdout)[0]


async def test_the_backend_sees_a_face_and_nothing_of_whose_it_is(tmp_path) -> None:
    layout = make_folder(tmp_path / "dev")
    portrait, thumbnail = planted()
    photo = tmp_path / FILE_NAME
    photo.write_bytes(portrait)
    async with (
        tapped(layout) as world,
        world.gateway.client("app", 60) as app,
        world.gateway.client("officer") as officer,
    ):
        await publish_notice(officer)
        await add_subject(app, WHO)
        await consent(app, WHO)
        jobs = [
            await finished(app, (await app.create_job(header(WHO), photo.read_bytes())).job.name)
            for _ in range(2)
        ]
        assert {pb.Job.STATE_SUCCEEDED} == {job.state for job in jobs}
        results = [(await app.download(job.name))[1] for job in jobs]
        rows = await world.gateway.rows(Job)
        stored = await world.gateway.rows(StoredObject)

    seen = b"\n".join(world.tap.to_backend)
    assert len(seen) > len(IMAGE)
    middle = thumbnail[len(thumbnail) // 2 :][:24]
    traces = {
        "subject": WHO.encode(),
        "handle": rows[0].handle.encode(),
        "tenant": b"demo",
        "caller": b"client/app",
        "spiffe": b"spiffe",
        "controller": b"Example Portraits",
        "file name": FILE_NAME.encode(),
        "serial": SERIAL.encode(),
        "gps": _sexagesimal(GPS[0]),
        "thumbnail": middle,
        "xmp": XMP,
        "comment": COMMENT,
        "notice": b"portraits",
        **{f"job {row.job_id}": row.job_id.encode() for row in rows},
        **{f"object {one.object_id}": one.object_id.encode() for one in stored},
    }
    for what in ("serial", "thumbnail", "xmp", "comment", "gps"):
        assert traces[what] in portrait, f"{what} was not planted"
    assert not [what for what, trace in traces.items() if trace in seen]
    assert not [what for what, trace in traces.items() for result in results if trace in result]

    pseudonyms = world.job_ids()
    assert len(pseudonyms) == len({*pseudonyms}) == 2
    assert {*pseudonyms}.isdisjoint({row.job_id for row in rows})

    assert len(world.pictures()) == 2
    told = exif_of(portrait)
    assert {"EXIF:SerialNumber", "EXIF:GPSLatitude"} <= {*told}
    # A result carries our own mark, in boxes of JUMBF, and nothing else.
    for picture, more in [*((p, set()) for p in world.pictures()), *((r, {"JUMBF"}) for r in results)]:
        groups = {name.partition(":")[0] for name in exif_of(picture)} - {"SourceFile"}
        assert groups <= {"ExifTool", "File", "Composite", "JFIF", *more}
