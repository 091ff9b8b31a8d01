"""The steps of the demo, each of which fails loudly where it does not hold."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass

from lethe.v1 import common_pb2, consent_pb2, dsr_pb2, generation_pb2, notice_pb2, subject_pb2

from audit import checkpoint, export, payloads, verify
from audit.leaf import leaf_hash
from audit.note import Signer
from audit.tree import root_of_leaves
from gateway.admin.demo import Story, demand, files_below
from gateway.admin.export import fetch
from gateway.client import Client, Refused

STYLE = "studio_grey"
NOTICE = "notices/portraits"
NOTICE_TEXT = """We turn your photo into a studio portrait.  A face is biometric data, so we ask for your
explicit consent.  Your photo is destroyed when the portrait is done; the portrait after 30 days; both
at once when you withdraw.  A studio program sees the photo, without your name and without its metadata."""
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Steps:
    """The four who take part: a service, two privacy officers, an auditor."""

    story: Story
    app: Client
    officer: Client
    second: Client
    auditor: Client

    async def take(self) -> None:
        """Take all steps in order."""
        await self.refused_without_consent()
        await self.consents()
        headshot = await self.generates()
        await self.leaves_nothing(headshot)
        await self.withdraws()
        certificate = await self.is_erased()
        await self.is_proved(certificate)

    async def refused_without_consent(self) -> None:
        """Publish a notice, make the subject known, and be refused: nobody has consented."""
        notice = notice_pb2.Notice(
            name=NOTICE,
            language="en",
            title="Your studio portrait",
            text=NOTICE_TEXT,
            purposes=[common_pb2.PURPOSE_GENERATE],
            retention_term="photo: until done; portrait: 30 days",
            recipients=["a studio program on this machine"],
            withdrawal_method="one tap in the app",
        )
        request = notice_pb2.PublishNoticeRequest(notice=notice)
        published = (await self.officer.call(self.officer.notices.PublishNotice, request)).notice
        self.story.tell(
            f"Notice published: {NOTICE} version {published.version}, sha256 {published.sha256[:16]}…"
        )
        subject = subject_pb2.Subject(name=self._subject, residence="DE", birth_year=1956)
        await self.app.call(
            self.app.subjects.UpsertSubject, subject_pb2.UpsertSubjectRequest(subject=subject)
        )
        reason = await self._refusal()
        demand(reason.startswith("DENY_"), f"without consent the answer was {reason or 'a picture'}")
        self.story.tell(f"Without consent nothing is processed: {reason}.")

    async def consents(self) -> None:
        """Record an explicit consent for one purpose."""
        consent = consent_pb2.Consent(
            subject=self._subject,
            purpose=common_pb2.PURPOSE_GENERATE,
            form=consent_pb2.Consent.FORM_EXPLICIT,
            separate=True,
            notice=NOTICE,
            notice_version=1,
            notice_language="en",
            act=consent_pb2.Consent.ACT_CHECKBOX,
            channel="web",
            withdrawal_method_shown="one tap in the app",
        )
        recorded = await self.app.call(
            self.app.consents.RecordConsent, consent_pb2.RecordConsentRequest(consent=consent)
        )
        self.story.tell(
            f"Consent recorded: {recorded.consent.name}, in the log as {recorded.receipt.event_id[:16]}…"
        )

    async def generates(self) -> bytes:
        """Have the headshot made, and return it."""
        states: list[str] = []
        result, image = generation_pb2.ResultHeader(), bytearray()
        async for answer in self.app.generate(self._header(), self.story.portrait):
            part = answer.WhichOneof("part")
            if part == "job" and answer.job.stage not in states:
                states.append(answer.job.stage)
            elif part == "result":
                result = answer.result
            elif part == "chunk":
                image += answer.chunk
        demand(result.size_bytes == len(image) > 0, "the result is not whole")
        (self.story.out / "headshot.jpg").write_bytes(image)
        self.story.tell(f"A headshot of {result.width}x{result.height} pixels ({' > '.join(states)}).")
        return bytes(image)

    async def leaves_nothing(self, headshot: bytes) -> None:
        """Search everything that the backend got, the result, and the gateway's own disk."""
        tap, story = self.story.tap, self.story
        demand(len(b"".join(tap.to_backend)) > len(story.portrait) // 2, "the tap saw no picture")
        # The backend must see the face: the coded pixels are there, and nothing else is.
        story.demand_absent(tap.to_backend, "what the backend got", besides=("the portrait",))
        story.demand_absent([headshot], "the result")
        seen = sum(map(len, tap.to_backend))
        story.tell(f"The backend got {seen} bytes: no GPS, serial number, thumbnail or subject id in them.")
        held = await self.app.call(
            self.app.subjects.ListStoredData, subject_pb2.ListStoredDataRequest(subject=self._subject)
        )
        kinds = sorted(item.kind for item in held.items if item.name.startswith("objects/"))
        demand(kinds == ["output"], f"objects held after the job: {kinds}")
        story.demand_absent(files_below(story.layout.root), "a file of the gateway")
        story.tell(
            "The original is destroyed: key first, then bytes. No plaintext and no subject id on the disk."
        )

    async def withdraws(self) -> None:
        """Withdraw; from now on nothing is processed, and what was kept for the purpose is gone."""
        which = consent_pb2.SubjectPurpose(subject=self._subject, purpose=common_pb2.PURPOSE_GENERATE)
        await self.app.call(
            self.app.consents.WithdrawConsent, consent_pb2.WithdrawConsentRequest(subject_purpose=which)
        )
        reason = await self._refusal()
        demand(reason == "DENY_CONSENT_WITHDRAWN", f"after the withdrawal the answer was {reason}")
        self.story.tell(f"Consent withdrawn, in force at once: {reason}.")

    async def is_erased(self) -> str:
        """Open an erasure, have another person approve it, and keep the certificate."""
        opened = (
            await self.officer.call(
                self.officer.dsrs.CreateDsr,
                dsr_pb2.CreateDsrRequest(subject=self._subject, kind=dsr_pb2.Dsr.KIND_ERASURE, regime="gdpr"),
            )
        ).dsr
        self.story.tell(f"Erasure opened: {opened.name}, due {opened.due_date} (GDPR Art. 12(3)).")
        approve = dsr_pb2.ApproveDsrRequest(name=opened.name)
        reason = await _reason(self.officer.call(self.officer.dsrs.ApproveDsr, approve))
        demand(reason == "SECOND_PERSON_REQUIRED", f"one person alone could approve: {reason}")
        seen = await self.second.call(
            self.second.dsrs.PreviewDsr, dsr_pb2.PreviewDsrRequest(name=opened.name)
        )
        approve.preview_etag = seen.preview_etag
        await self.second.call(self.second.dsrs.ApproveDsr, approve)
        done = await self._fulfilled(opened.name)
        self.story.tell("Approved by a second person, and carried out.")
        await self._certificate(done.certificate)
        return done.certificate

    async def is_proved(self, certificate: str) -> None:
        """Verify certificate and export without the gateway, and be refused a changed and a forged one."""
        story = self.story
        trust = story.layout.trust.read_text()
        (story.out / "trust.txt").write_text(trust)
        proof = (story.out / "certificate.tlog-proof").read_text()
        opening = (story.out / "certificate.opening.json").read_bytes()
        report = verify.verify_certificate(proof, opening, trust)
        demand(report.verdict == "valid", f"the certificate: {report.fault}")
        statement = report.opening or {}
        demand(statement.get("certificate") == certificate, "the certificate names another one")
        classes = ", ".join(str(name) for name in report.leaf.get("cls", ()))
        story.tell(
            f"The certificate verifies offline: destroyed {classes}; leaf {report.index} of {report.size}."
        )
        story.demand_absent(files_below(story.layout.root), "a file of the gateway after the erasure")
        reason = await self._refusal()
        demand(reason == "SUBJECT_BLOCKED", f"an erased subject was answered {reason}")
        story.tell(
            "No plaintext and no subject id in any file, write-ahead log included; the subject stays fenced."
        )
        await self._export(trust)

    async def _export(self, trust: str) -> None:
        story = self.story
        folder = story.out / "export"
        await fetch(self.auditor, folder)
        files = verify.read_folder(folder)
        report = verify.verify_export(files, trust)
        demand(report.verdict == "valid", f"the export: {report.fault}")
        story.demand_absent(files.values(), "the export")
        story.tell(f"The audit export verifies offline: {report.size} events, root {report.root[:16]}…")
        entries = bytearray(files["entries.jsonl"])
        entries[len(entries) // 2] ^= 1
        changed = verify.verify_export({**files, "entries.jsonl": bytes(entries)}, trust)
        demand(changed.verdict == "invalid", "a changed export passed")
        story.tell(f"One byte flipped in it: {changed.fault}")
        forged = verify.verify_export(_forge(files, report.origin), trust)
        demand(forged.verdict == "invalid", "a forged export passed")
        story.tell(f"The same export forged, whole in itself, under keys of its own: {forged.fault}")

    async def _certificate(self, name: str) -> None:
        """Keep the certificate as soon as the log has given its leaf a place."""
        request = dsr_pb2.GetCertificateRequest(name=name)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    found = await self.second.call(self.second.dsrs.GetCertificate, request)
                    break
                except Refused as refusal:
                    demand(refusal.detail == "not_sequenced", f"no certificate: {refusal.reason}")
                await asyncio.sleep(0.1)
        (self.story.out / "certificate.tlog-proof").write_text(found.tlog_proof)
        (self.story.out / "certificate.opening.json").write_bytes(found.opening)

    async def _fulfilled(self, name: str) -> dsr_pb2.Dsr:
        request = dsr_pb2.GetDsrRequest(name=name)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = (await self.second.call(self.second.dsrs.GetDsr, request)).dsr
                if found.state == dsr_pb2.Dsr.STATE_FULFILLED:
                    return found
                await asyncio.sleep(0.1)

    async def _refusal(self) -> str:
        """Return the reason for which an upload is refused, or nothing if it is taken."""
        return await _reason(self.app.create_job(self._header(), self.story.portrait))

    def _header(self) -> generation_pb2.JobHeader:
        return generation_pb2.JobHeader(
            subject=self._subject,
            purpose=common_pb2.PURPOSE_GENERATE,
            notice=NOTICE,
            parameters=generation_pb2.GenerationParameters(style=STYLE),
        )

    @property
    def _subject(self) -> str:
        return f"subjects/{self.story.subject}"


async def _reason(call: Awaitable[object]) -> str:
    """Return why a call is refused, or nothing if it is not."""
    try:
        await call
    except Refused as refusal:
        return refusal.reason
    return ""


def _forge(files: Mapping[str, bytes], origin: str) -> dict[str, bytes]:
    """Return an export that leaves the last event out and is signed by a stranger in the log's name."""
    stranger = Signer(origin, secrets.token_bytes(32))
    entries = files["entries.jsonl"].splitlines()[:-1]
    root = root_of_leaves(leaf_hash(entry) for entry in entries)
    packs = {
        path.removeprefix("policy/").removesuffix(".yaml"): body
        for path, body in files.items()
        if path.startswith("policy/")
    }
    note = checkpoint.sign(origin, len(entries), root, stranger)
    reading = export.read(enumerate(entries))
    return export.build(
        origin=origin,
        checkpoint=note,
        keys=f"{stranger.vkey()}\n",
        policy=export.trust_policy(stranger.verifier),
        start=0,
        end=len(entries),
        entries=enumerate(entries),
        nodes=lambda _level, _index: b"",
        packs=packs,
        signer=stranger,
        terms=export.Terms("auditor", "audit", "forger"),
        found=payloads.withheld(reading.placed()),
    )
