"""The thin services: one method calls one verb of one flow."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace

from google.protobuf.duration_pb2 import Duration
from lethe.v1 import (
    audit_pb2,
    backend_pb2,
    common_pb2,
    consent_pb2,
    dsr_pb2,
    key_pb2,
    notice_pb2,
    retention_pb2,
    subject_pb2,
)

from gateway.errors import MessageInvalid, NotFound
from gateway.flows.audit import Audit
from gateway.flows.consent import Consents
from gateway.flows.dsr import DsrDraft, Dsrs
from gateway.flows.notice import Notices
from gateway.flows.propagate import Propagation
from gateway.flows.receipt import Receipts
from gateway.flows.register import Register
from gateway.flows.retention import HoldDraft, Retention
from gateway.flows.rotation import Rotation
from gateway.flows.subject import Subjects
from gateway.flows.sweep import Sweep
from gateway.package import Packages
from gateway.paging import Page
from gateway.people import People, Profile
from gateway.ports.inference import BackendFacts
from gateway.ports.keys import KeyService
from gateway.ports.records import Consent, Dsr, Records, SubjectKey
from gateway.receipts import MEDIA_TYPE
from gateway.rpc import convert
from gateway.rpc.interceptors import caller
from gateway.rpc.signals import Context, heed_gpc

CHUNK = 256 << 10


@dataclass(frozen=True, slots=True)
class SubjectService:
    """Subjects on the wire."""

    subjects: Subjects
    consents: Consents

    async def UpsertSubject(
        self, request: subject_pb2.UpsertSubjectRequest, context: Context
    ) -> subject_pb2.UpsertSubjectResponse:
        """Make a subject known."""
        profile = convert.profile(request.subject)
        record, receipt = await self.subjects.upsert(caller(), profile, request.request_id)
        await heed_gpc(self.consents, context, profile.subject_id)
        return subject_pb2.UpsertSubjectResponse(
            subject=convert.subject(record, profile), receipt=convert.receipt(receipt)
        )

    async def GetSubject(
        self, request: subject_pb2.GetSubjectRequest, _context: object
    ) -> subject_pb2.GetSubjectResponse:
        """Return a subject."""
        person = await self.subjects.get(caller(), convert.bare(request.name))
        return subject_pb2.GetSubjectResponse(subject=convert.subject(person.subject, person.profile))

    async def ListStoredData(
        self, request: subject_pb2.ListStoredDataRequest, _context: object
    ) -> subject_pb2.ListStoredDataResponse:
        """List what is held of a subject."""
        page = await self.subjects.stored_data(
            caller(), convert.bare(request.subject), request.page_size, request.page_token
        )
        return subject_pb2.ListStoredDataResponse(
            items=[convert.stored_data(item) for item in page.items], next_page_token=page.next_token
        )

    async def DeleteObject(
        self, request: subject_pb2.DeleteObjectRequest, _context: object
    ) -> subject_pb2.DeleteObjectResponse:
        """Destroy an object."""
        receipt = await self.subjects.delete_object(caller(), convert.bare(request.name))
        return subject_pb2.DeleteObjectResponse(receipt=convert.receipt(receipt))

    async def RestrictSubject(
        self, request: subject_pb2.RestrictSubjectRequest, _context: object
    ) -> subject_pb2.RestrictSubjectResponse:
        """Restrict processing, or lift that."""
        _record, receipt = await self.subjects.restrict(
            caller(), convert.bare(request.name), restricted=request.restricted
        )
        return subject_pb2.RestrictSubjectResponse(receipt=convert.receipt(receipt))

    async def RectifySubject(
        self, request: subject_pb2.RectifySubjectRequest, _context: object
    ) -> subject_pb2.RectifySubjectResponse:
        """Correct a subject."""
        profile = convert.profile(request.subject)
        record, receipt = await self.subjects.rectify(caller(), profile)
        return subject_pb2.RectifySubjectResponse(
            subject=convert.subject(record, profile), receipt=convert.receipt(receipt)
        )


@dataclass(frozen=True, slots=True)
class NoticeService:
    """Notices on the wire."""

    notices: Notices

    async def PublishNotice(
        self, request: notice_pb2.PublishNoticeRequest, _context: object
    ) -> notice_pb2.PublishNoticeResponse:
        """Publish a notice."""
        record, receipt = await self.notices.publish(
            caller(), convert.notice_draft(request.notice, request.request_id)
        )
        return notice_pb2.PublishNoticeResponse(
            notice=convert.notice(record), receipt=convert.receipt(receipt)
        )

    async def GetNotice(
        self, request: notice_pb2.GetNoticeRequest, _context: object
    ) -> notice_pb2.GetNoticeResponse:
        """Return a notice."""
        record = await self.notices.get(
            caller(), convert.bare(request.name), request.version, request.language
        )
        return notice_pb2.GetNoticeResponse(notice=convert.notice(record))

    async def ListNotices(
        self, request: notice_pb2.ListNoticesRequest, _context: object
    ) -> notice_pb2.ListNoticesResponse:
        """List notices."""
        page = await self.notices.list(caller(), request.page_size, request.page_token)
        return notice_pb2.ListNoticesResponse(
            notices=[convert.notice(n) for n in page.items], next_page_token=page.next_token
        )


@dataclass(frozen=True, slots=True)
class ConsentService:
    """Consent on the wire."""

    consents: Consents
    receipts: Receipts
    audit: Audit
    people: People

    async def RecordConsent(
        self, request: consent_pb2.RecordConsentRequest, context: Context
    ) -> consent_pb2.RecordConsentResponse:
        """Keep proof of a consent."""
        draft = convert.consent_draft(request.consent, request.request_id)
        await heed_gpc(self.consents, context, draft.subject_id)
        record, receipt = await self.consents.record(caller(), draft)
        return consent_pb2.RecordConsentResponse(
            consent=self._message(record, draft.subject_id), receipt=convert.receipt(receipt)
        )

    async def WithdrawConsent(
        self, request: consent_pb2.WithdrawConsentRequest, _context: object
    ) -> consent_pb2.WithdrawConsentResponse:
        """Take consent back."""
        done = await self.consents.withdraw(
            caller(),
            consent_id=convert.bare(request.name),
            subject_id=convert.bare(request.subject_purpose.subject),
            purpose=convert.purpose_code(request.subject_purpose.purpose),
            channel=request.channel,
            receipt_id=convert.bare(request.receipt),
        )
        return consent_pb2.WithdrawConsentResponse(
            consents=[await self._named(record) for record in done.consents],
            receipt=convert.receipt(done.receipt),
            stopping_jobs=[f"jobs/{job_id}" for job_id in done.stopping],
            already_ended=done.is_repeated,
        )

    async def InvalidateConsent(
        self, request: consent_pb2.InvalidateConsentRequest, _context: object
    ) -> consent_pb2.InvalidateConsentResponse:
        """Note that a consent was never valid."""
        done = await self.consents.invalidate(caller(), convert.bare(request.name))
        return consent_pb2.InvalidateConsentResponse(
            consent=await self._named(done.consents[0]),
            receipt=convert.receipt(done.receipt),
            stopping_jobs=[f"jobs/{job_id}" for job_id in done.stopping],
        )

    async def GetConsent(
        self, request: consent_pb2.GetConsentRequest, _context: object
    ) -> consent_pb2.GetConsentResponse:
        """Return a consent."""
        record = await self.consents.get(caller(), convert.bare(request.name))
        return consent_pb2.GetConsentResponse(consent=await self._named(record))

    async def ListConsents(
        self, request: consent_pb2.ListConsentsRequest, _context: object
    ) -> consent_pb2.ListConsentsResponse:
        """List a subject's consents, or those that are due for renewal."""
        page = await self.consents.list(
            caller(),
            convert.bare(request.subject),
            request.page_size,
            request.page_token,
            due_for_renewal=request.renewal_due,
        )
        return consent_pb2.ListConsentsResponse(
            consents=[await self._named(consent) for consent in page.items], next_page_token=page.next_token
        )

    async def GetReceipt(
        self, request: consent_pb2.GetReceiptRequest, _context: object
    ) -> consent_pb2.GetReceiptResponse:
        """Return a receipt, with the proof that the log has the consent."""
        consent_id = convert.bare(request.name)
        event_id = await self.receipts.event_of(caller(), consent_id)
        proof = await self.audit.inclusion(caller(), event_id=event_id, method="ConsentService/GetReceipt")
        evidence = await self.consents.evidence(await self.consents.get(caller(), consent_id))
        number, content = await self.receipts.issue(caller(), consent_id, evidence, proof.tlog_proof)
        return consent_pb2.GetReceiptResponse(
            name=f"receipts/{number}", content=content, media_type=MEDIA_TYPE
        )

    async def CheckConsent(
        self, request: consent_pb2.CheckConsentRequest, _context: object
    ) -> consent_pb2.CheckConsentResponse:
        """Answer what policy would decide now."""
        decision = await self.consents.check(
            caller(), convert.bare(request.subject), convert.purpose_code(request.purpose)
        )
        return consent_pb2.CheckConsentResponse(decision=convert.decision(decision))

    async def RecordSignal(
        self, request: consent_pb2.RecordSignalRequest, _context: object
    ) -> consent_pb2.RecordSignalResponse:
        """Record opt-out signals."""
        receipt = await self.consents.signal(
            caller(), convert.bare(request.subject), gpc=request.gpc, limit_spi=request.limit_spi
        )
        return consent_pb2.RecordSignalResponse(receipt=convert.receipt(receipt))

    async def _named(self, record: Consent) -> consent_pb2.Consent:
        """Return the consent with its subject's name, where there still is one."""
        names = await self.people.subject_ids(record.tenant, {record.handle} if record.handle else set())
        return self._message(record, names.get(record.handle or "", ""))

    def _message(self, record: Consent, subject_id: str) -> consent_pb2.Consent:
        return convert.consent(record, self.consents.clock.now(), subject_id)


@dataclass(frozen=True, slots=True)
class DsrService:
    """Data-subject requests on the wire."""

    dsrs: Dsrs
    register: Register
    propagation: Propagation
    packages: Packages
    audit: Audit

    async def CreateDsr(
        self, request: dsr_pb2.CreateDsrRequest, _context: object
    ) -> dsr_pb2.CreateDsrResponse:
        """Open a request."""
        draft = DsrDraft(
            subject_id=convert.bare(request.subject),
            kind=dsr_pb2.Dsr.Kind.Name(request.kind).removeprefix("KIND_").lower(),
            regime=request.regime,
            received_at=convert.maybe_instant(request, "receive_time"),
            request_id=request.request_id,
            is_by_agent=request.by_agent,
            mandate=request.mandate,
            purposes=tuple(map(convert.purpose_code, request.purposes)),
            correction=self._correction(request),
            about=convert.bare(request.about),
        )
        record, receipt = await self.dsrs.create(caller(), draft, rehearse=request.validate_only)
        return dsr_pb2.CreateDsrResponse(dsr=convert.dsr(record), receipt=convert.receipt(receipt))

    @staticmethod
    def _correction(request: dsr_pb2.CreateDsrRequest) -> Profile | None:
        """Return the corrected profile; it is of whom the request is, whatever it says itself."""
        if not request.HasField("correction"):
            return None
        return replace(convert.profile(request.correction), subject_id=convert.bare(request.subject))

    async def GetDsr(self, request: dsr_pb2.GetDsrRequest, _context: object) -> dsr_pb2.GetDsrResponse:
        """Return a request."""
        record, methods = await self.dsrs.show(caller(), convert.bare(request.name))
        return dsr_pb2.GetDsrResponse(dsr=convert.dsr(record, methods))

    async def ListDsrs(self, request: dsr_pb2.ListDsrsRequest, _context: object) -> dsr_pb2.ListDsrsResponse:
        """List requests."""
        page = await self._page(request)
        return dsr_pb2.ListDsrsResponse(
            dsrs=[convert.dsr(d) for d in page.items], next_page_token=page.next_token
        )

    async def _page(self, request: dsr_pb2.ListDsrsRequest) -> Page[Dsr]:
        size, token = request.page_size, request.page_token
        if request.due_only:
            if request.state or request.unconfirmed_only:
                raise MessageInvalid(
                    "due_only says the state", violations=(("state", "state.with_due_only"),)
                )
            return await self.register.due(caller(), request.due_before, size, token)
        if request.unconfirmed_only:
            if request.state or request.due_before:
                raise MessageInvalid(
                    "unconfirmed_only stands alone",
                    violations=(("unconfirmed_only", "unconfirmed_only.alone"),),
                )
            return await self.register.owed(caller(), size, token)
        if request.due_before:
            raise MessageInvalid("due_only is missing", violations=(("due_before", "due_only.missing"),))
        state = dsr_pb2.Dsr.State.Name(request.state).removeprefix("STATE_").lower() if request.state else ""
        return await self.dsrs.list(caller(), state, size, token)

    async def VerifyIdentity(
        self, request: dsr_pb2.VerifyIdentityRequest, _context: object
    ) -> dsr_pb2.VerifyIdentityResponse:
        """Note that identity was shown, or was not."""
        record, receipt = await self.dsrs.verify(
            caller(), convert.bare(request.name), request.method, is_shown=not request.not_shown
        )
        return dsr_pb2.VerifyIdentityResponse(dsr=convert.dsr(record), receipt=convert.receipt(receipt))

    async def ExtendDsr(
        self, request: dsr_pb2.ExtendDsrRequest, _context: object
    ) -> dsr_pb2.ExtendDsrResponse:
        """Extend the time for an answer."""
        record, receipt = await self.dsrs.extend(caller(), convert.bare(request.name), request.reason_code)
        return dsr_pb2.ExtendDsrResponse(dsr=convert.dsr(record), receipt=convert.receipt(receipt))

    async def PauseDsr(self, request: dsr_pb2.PauseDsrRequest, _context: object) -> dsr_pb2.PauseDsrResponse:
        """Stop the clock."""
        record, receipt = await self.dsrs.pause(caller(), convert.bare(request.name))
        return dsr_pb2.PauseDsrResponse(dsr=convert.dsr(record), receipt=convert.receipt(receipt))

    async def ResumeDsr(
        self, request: dsr_pb2.ResumeDsrRequest, _context: object
    ) -> dsr_pb2.ResumeDsrResponse:
        """Let the clock go on."""
        record, receipt = await self.dsrs.resume(caller(), convert.bare(request.name))
        return dsr_pb2.ResumeDsrResponse(dsr=convert.dsr(record), receipt=convert.receipt(receipt))

    async def RecordPropagation(
        self, request: dsr_pb2.RecordPropagationRequest, _context: object
    ) -> dsr_pb2.RecordPropagationResponse:
        """Note that a recipient was told, has acknowledged, or is excused."""
        state = dsr_pb2.Propagation.State.Name(request.state).removeprefix("STATE_").lower()
        record, receipt = await self.propagation.note(
            caller(), convert.bare(request.name), convert.bare(request.recipient), state, request.ground
        )
        return dsr_pb2.RecordPropagationResponse(dsr=convert.dsr(record), receipt=convert.receipt(receipt))

    async def GetLetter(
        self, request: dsr_pb2.GetLetterRequest, _context: object
    ) -> dsr_pb2.GetLetterResponse:
        """Write a letter."""
        kinds = dsr_pb2.GetLetterRequest.Kind
        kind = kinds.Name(request.kind).removeprefix("KIND_").lower() if request.kind else ""
        letter = await self.register.letter(caller(), convert.bare(request.name), kind, request.language)
        return dsr_pb2.GetLetterResponse(
            kind=kinds.Value(f"KIND_{letter.kind.upper()}"),
            language=letter.language,
            subject=letter.subject,
            text=letter.text,
            citations=letter.cites,
        )

    async def GetFigures(
        self, request: dsr_pb2.GetFiguresRequest, _context: object
    ) -> dsr_pb2.GetFiguresResponse:
        """Count what became of requests."""
        since, until = convert.instant(request.start_time), convert.instant(request.end_time)
        figures = await self.register.figures(caller(), since, until, request.regime.lower())
        return dsr_pb2.GetFiguresResponse(figures=map(convert.figures, figures))

    async def PreviewDsr(
        self, request: dsr_pb2.PreviewDsrRequest, _context: object
    ) -> dsr_pb2.PreviewDsrResponse:
        """Show what approving would do."""
        preview = await self.dsrs.preview(caller(), convert.bare(request.name))
        return dsr_pb2.PreviewDsrResponse(
            erased_classes=sorted(cls.value for cls in preview.plan.erase),
            kept_classes=[
                common_pb2.KeptClass(key_class=k.cls.value, rule=k.rule) for k in preview.plan.keep
            ],
            items=[convert.stored_data(item) for item in preview.held],
            preview_etag=preview.etag,
            effects=[effect.value for effect in preview.effects],
            expire_time=convert.stamp(preview.ends_at),
        )

    async def ApproveDsr(
        self, request: dsr_pb2.ApproveDsrRequest, _context: object
    ) -> dsr_pb2.ApproveDsrResponse:
        """Approve a request."""
        record, receipt = await self.dsrs.approve(
            caller(), convert.bare(request.name), request.preview_etag, rehearse=request.validate_only
        )
        return dsr_pb2.ApproveDsrResponse(dsr=convert.dsr(record), receipt=convert.receipt(receipt))

    async def RefuseDsr(
        self, request: dsr_pb2.RefuseDsrRequest, _context: object
    ) -> dsr_pb2.RefuseDsrResponse:
        """Refuse a request."""
        if request.parts:
            parts = [part.removeprefix("objects/") for part in request.parts]
            changed, event = await self.dsrs.refuse_part(
                caller(), convert.bare(request.name), request.reason_code, parts
            )
            return dsr_pb2.RefuseDsrResponse(dsr=convert.dsr(changed), receipt=convert.receipt(event))
        record, receipt = await self.dsrs.refuse(caller(), convert.bare(request.name), request.reason_code)
        return dsr_pb2.RefuseDsrResponse(dsr=convert.dsr(record), receipt=convert.receipt(receipt))

    async def CancelDsr(
        self, request: dsr_pb2.CancelDsrRequest, _context: object
    ) -> dsr_pb2.CancelDsrResponse:
        """Take a request back."""
        record, receipt = await self.dsrs.cancel(caller(), convert.bare(request.name))
        return dsr_pb2.CancelDsrResponse(dsr=convert.dsr(record), receipt=convert.receipt(receipt))

    async def DownloadPackage(
        self, request: dsr_pb2.DownloadPackageRequest, _context: object
    ) -> AsyncIterator[dsr_pb2.DownloadPackageResponse]:
        """Stream a package."""
        handed = await self.packages.hand_out(caller(), convert.bare(request.name), request.offset)
        yield dsr_pb2.DownloadPackageResponse(package=convert.package_header(handed.stored))
        async for chunk in handed.chunks:
            yield dsr_pb2.DownloadPackageResponse(chunk=chunk)

    async def GetCertificate(
        self, request: dsr_pb2.GetCertificateRequest, _context: object
    ) -> dsr_pb2.GetCertificateResponse:
        """Return a certificate."""
        found = await self.dsrs.certificate(caller(), convert.bare(request.name))
        proof = await self.audit.inclusion(
            caller(), event_id=found.event_id, method="DsrService/GetCertificate"
        )
        return dsr_pb2.GetCertificateResponse(
            name=request.name, tlog_proof=proof.tlog_proof, opening=found.opening
        )


@dataclass(frozen=True, slots=True)
class RetentionService:
    """Terms, legal holds and the sweeper on the wire."""

    retention: Retention
    sweep: Sweep
    people: People

    async def GetSchedule(
        self, _request: retention_pb2.GetScheduleRequest, _context: object
    ) -> retention_pb2.GetScheduleResponse:
        """Return the schedule."""
        lines = self.retention.schedule(caller())
        return retention_pb2.GetScheduleResponse(rules=[convert.term(line) for line in lines])

    async def ListDue(
        self, request: retention_pb2.ListDueRequest, _context: object
    ) -> retention_pb2.ListDueResponse:
        """List what is due."""
        page = await self.retention.due(
            caller(), convert.maybe_instant(request, "before_time"), request.page_size, request.page_token
        )
        items = [convert.due(due) for due in page.items]
        return retention_pb2.ListDueResponse(
            objects=[item.object for item in items], items=items, next_page_token=page.next_token
        )

    async def PlaceHold(
        self, request: retention_pb2.PlaceHoldRequest, _context: object
    ) -> retention_pb2.PlaceHoldResponse:
        """Place a hold."""
        subject = convert.bare(request.hold.subject)
        draft = HoldDraft(
            subject_id=subject,
            rule=request.hold.rule,
            classes=tuple(request.hold.key_classes),
            until=convert.maybe_instant(request.hold, "retain_until_time"),
            request_id=request.request_id,
        )
        hold, receipt = await self.retention.place(caller(), draft)
        return retention_pb2.PlaceHoldResponse(
            hold=convert.hold(hold, subject), receipt=convert.receipt(receipt)
        )

    async def ReleaseHold(
        self, request: retention_pb2.ReleaseHoldRequest, _context: object
    ) -> retention_pb2.ReleaseHoldResponse:
        """Release a hold."""
        receipt = await self.retention.release(caller(), convert.bare(request.name), request.reason_code)
        return retention_pb2.ReleaseHoldResponse(receipt=convert.receipt(receipt))

    async def ListHolds(
        self, request: retention_pb2.ListHoldsRequest, _context: object
    ) -> retention_pb2.ListHoldsResponse:
        """List the holds that stand."""
        page = await self.retention.holds(caller(), request.page_size, request.page_token)
        names = await self.people.subject_ids(caller().tenant, {hold.handle for hold in page.items})
        return retention_pb2.ListHoldsResponse(
            holds=[convert.hold(hold, names.get(hold.handle, "")) for hold in page.items],
            next_page_token=page.next_token,
        )

    async def Sweep(
        self, request: retention_pb2.SweepRequest, _context: object
    ) -> retention_pb2.SweepResponse:
        """Sweep now, or say what a sweep would find."""
        receipt = None
        if request.validate_only:
            found = await self.sweep.outlook(caller())
        else:
            found, receipt = await self.sweep.run_for(caller(), request.reason_code)
        return retention_pb2.SweepResponse(
            due_objects=found.due,
            held_objects=found.held,
            debts=found.owed,
            receipt=convert.receipt(receipt),
        )

    async def ListDebts(
        self, request: retention_pb2.ListDebtsRequest, _context: object
    ) -> retention_pb2.ListDebtsResponse:
        """List what is owed."""
        page = await self.retention.debts(caller(), request.page_size, request.page_token)
        return retention_pb2.ListDebtsResponse(
            debts=[convert.debt(debt) for debt in page.items], next_page_token=page.next_token
        )


@dataclass(frozen=True, slots=True)
class AuditService:
    """The log on the wire."""

    audit: Audit

    async def ListEvents(
        self, request: audit_pb2.ListEventsRequest, _context: object
    ) -> audit_pb2.ListEventsResponse:
        """List events."""
        page = await self.audit.events(
            caller(),
            request.type,
            request.page_size,
            request.page_token,
            since=convert.maybe_instant(request, "start_time"),
            until=convert.maybe_instant(request, "end_time"),
        )
        return audit_pb2.ListEventsResponse(
            events=[convert.event(leaf) for leaf in page.items], next_page_token=page.next_token
        )

    async def GetCheckpoint(
        self, _request: audit_pb2.GetCheckpointRequest, _context: object
    ) -> audit_pb2.GetCheckpointResponse:
        """Return the newest checkpoint."""
        head = await self.audit.checkpoint(caller())
        return audit_pb2.GetCheckpointResponse(checkpoint=head.note, vkeys=await self.audit.keys(caller()))

    async def GetInclusionProof(
        self, request: audit_pb2.GetInclusionProofRequest, _context: object
    ) -> audit_pb2.GetInclusionProofResponse:
        """Prove an event."""
        by_id = request.WhichOneof("which") == "event_id"
        proof = await self.audit.inclusion(
            caller(), request.event_id if by_id else "", None if by_id else request.index
        )
        return audit_pb2.GetInclusionProofResponse(
            index=proof.index,
            tree_size=proof.size,
            hashes=proof.hashes,
            checkpoint=proof.note,
            tlog_proof=proof.tlog_proof,
        )

    async def GetConsistencyProof(
        self, request: audit_pb2.GetConsistencyProofRequest, _context: object
    ) -> audit_pb2.GetConsistencyProofResponse:
        """Prove that the log only grew."""
        hashes = await self.audit.consistency(caller(), request.first_size, request.second_size)
        return audit_pb2.GetConsistencyProofResponse(hashes=hashes)

    async def Export(
        self, request: audit_pb2.ExportRequest, _context: object
    ) -> AsyncIterator[audit_pb2.ExportResponse]:
        """Stream an export."""
        for name, content in sorted((await self.audit.export(caller(), convert.wish(request))).items()):
            yield audit_pb2.ExportResponse(file=name)
            for start in range(0, len(content), CHUNK):
                yield audit_pb2.ExportResponse(chunk=content[start : start + CHUNK])


@dataclass(frozen=True, slots=True)
class BackendService:
    """The backends on the wire."""

    kinds: Mapping[str, str]
    known: Callable[[], Mapping[str, BackendFacts]]

    async def ListBackends(
        self, _request: backend_pb2.ListBackendsRequest, _context: object
    ) -> backend_pb2.ListBackendsResponse:
        """List the backends."""
        known = self.known()
        return backend_pb2.ListBackendsResponse(
            backends=[convert.backend(name, kind, known.get(name)) for name, kind in self.kinds.items()]
        )

    async def GetBackend(
        self, request: backend_pb2.GetBackendRequest, _context: object
    ) -> backend_pb2.GetBackendResponse:
        """Return a backend."""
        name = convert.bare(request.name)
        if name not in self.kinds:
            raise NotFound
        shown = convert.backend(name, self.kinds[name], self.known().get(name))
        return backend_pb2.GetBackendResponse(backend=shown)


@dataclass(frozen=True, slots=True)
class KeyService_:  # noqa: N801 - the port has the plain name
    """The key service on the wire."""

    keys: KeyService
    records: Records
    rotation: Rotation

    async def RotateKeys(
        self, request: key_pb2.RotateKeysRequest, _context: object
    ) -> key_pb2.RotateKeysResponse:
        """Wrap the tenant's subject keys anew."""
        moved, receipt = await self.rotation.rotate(
            caller(), rehearse=request.validate_only, reason_code=request.reason_code
        )
        return key_pb2.RotateKeysResponse(rewrapped_keys=moved, receipt=convert.receipt(receipt))

    async def GetKeyStatus(
        self, _request: key_pb2.GetKeyStatusRequest, _context: object
    ) -> key_pb2.GetKeyStatusResponse:
        """Return the key service's state."""
        tenant = caller().tenant
        epochs = [epoch for epoch in await self.keys.epochs() if epoch.tenant == tenant]
        counts = await self.records.transact(
            lambda tx: {str(e): tx.count(SubjectKey, equal={"epoch": str(e)}) for e in epochs}
        )
        return key_pb2.GetKeyStatusResponse(
            adapter=self.keys.name,
            destroy_latency=Duration(seconds=int(self.keys.destroy_latency.total_seconds())),
            copies_outside_our_control=self.keys.copies_outside_our_control,
            experimental=self.keys.is_experimental,
            epochs=[
                key_pb2.KeyEpoch(key_class=e.cls, month=e.month, roll=e.roll, wrapped_keys=counts[str(e)])
                for e in epochs
            ],
        )
