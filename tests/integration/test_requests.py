"""Requests on the wire, as docs/how-to/close-an-erasure-request.md walks them, on both databases."""

from __future__ import annotations

from lethe.v1 import dsr_pb2 as pb
from lethe.v1 import tenant_pb2

from gateway.client import Refused
from tests.gateway import PORTRAIT, Gateway, approve, consent, finished, fulfilled, header
from tests.integration.conftest import SUBJECT


async def test_an_officer_walks_from_the_letter_to_the_letter(gateway: Gateway, ready: object) -> None:
    async with (
        gateway.client("app") as app,
        gateway.client("officer") as officer,
        gateway.client("second-officer") as second,
        gateway.client("auditor") as auditor,
    ):
        dsrs = officer.dsrs
        create = pb.CreateDsrRequest(subject=f"subjects/{SUBJECT}", kind=pb.Dsr.KIND_ERASURE, regime="ccpa")
        opened = (await officer.call(dsrs.CreateDsr, create)).dsr
        assert opened.ack_date < opened.due_date < opened.extended_due_date
        assert opened.policy[0].id == "ccpa"
        letter = await officer.call(dsrs.GetLetter, pb.GetLetterRequest(name=opened.name, language="es-MX"))
        assert (letter.kind, letter.language) == (pb.GetLetterRequest.KIND_ACKNOWLEDGEMENT, "es")
        assert opened.due_date in letter.text

        # Who asks is to be made sure of, with no more than that takes.
        approve = pb.ApproveDsrRequest(name=opened.name)
        unsure = await refusal(second, second.dsrs.ApproveDsr, approve)
        assert (unsure.reason, unsure.metadata["needed"]) == ("IDENTITY_REQUIRED", "reasonable")
        shown = (await officer.call(dsrs.GetDsr, pb.GetDsrRequest(name=opened.name))).dsr
        assert "two_data_points" in shown.sufficient_methods
        verify = pb.VerifyIdentityRequest(name=opened.name, method="two_data_points")
        assert (await officer.call(dsrs.VerifyIdentity, verify)).dsr.state == pb.Dsr.STATE_VERIFIED

        # The time is extended once; the due list knows the later day.
        extend = pb.ExtendDsrRequest(name=opened.name, reason_code="REASONABLY_NECESSARY")
        longer = (await officer.call(dsrs.ExtendDsr, extend)).dsr
        assert longer.due_date == opened.extended_due_date
        twice = await refusal(officer, dsrs.ExtendDsr, extend)
        assert (twice.reason, twice.detail) == ("EXTENSION_REFUSED", "extended_before")
        due = await officer.call(dsrs.ListDsrs, pb.ListDsrsRequest(due_only=True))
        assert [(one.name, one.due_date) for one in due.dsrs] == [(opened.name, longer.due_date)]

        # Something arrives after it was looked at: the approval is refused, and told what.
        seen = await officer.call(dsrs.PreviewDsr, pb.PreviewDsrRequest(name=opened.name))
        assert list(seen.effects) == ["erase"]
        added = await consent(app, SUBJECT)
        approve.preview_etag = seen.preview_etag
        stale = await refusal(second, second.dsrs.ApproveDsr, approve)
        assert (stale.reason, stale.metadata["added"]) == ("PREVIEW_STALE", added)
        again = await officer.call(dsrs.PreviewDsr, pb.PreviewDsrRequest(name=opened.name))
        approve.preview_etag = again.preview_etag
        await second.call(second.dsrs.ApproveDsr, approve)
        done = await fulfilled(second, opened.name)
        assert (done.certificate != "", done.HasField("answer_time")) == (True, True)
        assert not (await officer.call(dsrs.ListDsrs, pb.ListDsrsRequest(due_only=True))).dsrs

        # What a year of it amounts to, and that it is not told who was erased.
        figures = pb.GetFiguresRequest(start_time=opened.receive_time, end_time=done.answer_time)
        (counted,) = (await auditor.call(auditor.dsrs.GetFigures, figures)).figures
        assert (counted.kind, counted.received, counted.complied) == (pb.Dsr.KIND_ERASURE, 1, 1)
        gone, nobody = [
            await refusal(
                officer,
                dsrs.CreateDsr,
                pb.CreateDsrRequest(subject=f"subjects/{who}", kind=pb.Dsr.KIND_RESTRICTION),
            )
            for who in (SUBJECT, "nobody-at-all")
        ]
        assert (gone.reason, gone.detail, str(gone)) == (nobody.reason, nobody.detail, str(nobody))


async def test_an_opt_out_needs_nobody_and_a_package_somebody_who_makes_it(
    gateway: Gateway, ready: object
) -> None:
    """11 CCR 7026."""
    async with gateway.client("app") as app, gateway.client("officer") as officer:
        request = pb.CreateDsrRequest(subject=f"subjects/{SUBJECT}", kind=pb.Dsr.KIND_OPT_OUT, regime="ccpa")
        opened = (await app.call(app.dsrs.CreateDsr, request)).dsr
        assert (await fulfilled(officer, opened.name)).outcome == "complied"
        (signal,) = await gateway.leaves("signal.recorded")
        assert signal["sig"] == ["gpc"]


async def test_what_is_asked_paused_refused_in_part_and_told_to_recipients(
    gateway: Gateway, ready: object
) -> None:
    """UK GDPR Art. 12A, 15(4), 19."""
    async with (
        gateway.client("app") as app,
        gateway.client("officer") as officer,
        gateway.client("second-officer") as second,
    ):
        dsrs, job = officer.dsrs, await app.create_job(header(SUBJECT), PORTRAIT.read_bytes())
        result = (await finished(app, job.job.name)).result_object
        create = pb.CreateDsrRequest(subject=f"subjects/{SUBJECT}", kind=pb.Dsr.KIND_ACCESS, regime="uk_gdpr")
        access = (await officer.call(dsrs.CreateDsr, create)).dsr
        stands = (await officer.call(dsrs.PauseDsr, pb.PauseDsrRequest(name=access.name))).dsr
        assert (stands.HasField("pause_time"), stands.due_date) == (True, access.due_date)
        goes = (await officer.call(dsrs.ResumeDsr, pb.ResumeDsrRequest(name=access.name))).dsr
        assert (goes.HasField("pause_time"), goes.due_date >= access.due_date) == (False, True)
        refuse = pb.RefuseDsrRequest(name=access.name, reason_code="GDPR_15_4_OTHERS", parts=[result])
        (part,) = (await officer.call(dsrs.RefuseDsr, refuse)).dsr.refused_parts
        assert (part.part, part.reason_code) == (result, "GDPR_15_4_OTHERS")
        await approve(second, access.name)
        assert (await fulfilled(officer, access.name)).outcome == "complied_in_part"

        mailer = tenant_pb2.Recipient(
            name="recipients/mailer",
            title="Mailer Inc",
            role=tenant_pb2.Recipient.ROLE_PROCESSOR,
            country="US",
            channel="their form",
        )
        update = tenant_pb2.UpdateTenantRequest(tenant=tenant_pb2.Tenant(recipients=[mailer]))
        assert list((await officer.call(officer.tenant.UpdateTenant, update)).tenant.recipients) == [mailer]
        create = pb.CreateDsrRequest(subject=f"subjects/{SUBJECT}", kind=pb.Dsr.KIND_RESTRICTION)
        restriction = (await officer.call(dsrs.CreateDsr, create)).dsr.name
        await approve(second, restriction)
        owed = pb.ListDsrsRequest(unconfirmed_only=True)
        ((open_,),) = ((await officer.call(dsrs.ListDsrs, owed)).dsrs,)
        assert (open_.name, open_.recipients_unconfirmed) == (restriction, 1)
        tell = pb.RecordPropagationRequest(name=restriction, recipient=mailer.name)
        for state in (pb.Propagation.STATE_TOLD, pb.Propagation.STATE_ACKNOWLEDGED):
            tell.state = state
            done = (await officer.call(dsrs.RecordPropagation, tell)).dsr
        assert done.recipients[0].recipient == mailer
        assert done.recipients[0].HasField("acknowledge_time")
        assert not (await officer.call(dsrs.ListDsrs, owed)).dsrs
        tell.recipient = "recipients/nobody"
        assert (await refusal(officer, dsrs.RecordPropagation, tell)).reason == "MESSAGE_INVALID"


async def refusal(client: object, method: object, request: object) -> Refused:
    """Return why a call is refused."""
    try:
        await client.call(method, request)  # type: ignore[attr-defined]  # a client
    except Refused as refused:
        return refused
    raise AssertionError("it was not refused")
