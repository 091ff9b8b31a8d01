"""`lethe consent`: proof of what people agreed to, and taking it back just as easily."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gateway.admin import options
from gateway.admin.audit import judge
from gateway.admin.exits import REFUSED, USAGE
from gateway.admin.files import read_bytes, read_text, refuse_existing, write_whole
from gateway.admin.output import Form, emit, fail, show
from gateway.admin.person import maybe_subject_name, subject_name
from gateway.admin.session import pages, talk
from gateway.admin.words import fill, moment, resource
from policy.terms import ConsentForm, Purpose

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Consents: what people agreed to.")

Name = Annotated[str, typer.Argument(help="The consent: consents/ID.")]
ForPurpose = Annotated[Purpose, typer.Option(help="What the data is processed for.")]


class Act(StrEnum):
    """What the person did to consent."""

    CHECKBOX = "checkbox"
    SIGNATURE = "signature"
    TYPED_NAME = "typed_name"
    BUTTON = "button"
    SPOKEN = "spoken"


class By(StrEnum):
    """Who gave the consent, if not the subject."""

    GUARDIAN = "guardian"
    DEPICTED = "depicted"
    AGENT = "agent"


@app.command()
def record(
    purpose: ForPurpose,
    form: Annotated[ConsentForm, typer.Option(help="How it was expressed.")],
    notice: Annotated[str, typer.Option(help="The notice that was shown: notices/ID.")],
    notice_version: Annotated[int, typer.Option(min=1, help="Its version.")],
    notice_language: Annotated[str, typer.Option(help="Its language, for example de.")],
    profile: options.As = None,
    subject_file: options.SubjectFile = None,
    subject: options.Subject = None,
    opaque: options.Opaque = False,
    notice_sha256: Annotated[str, typer.Option(help="Its digest, if the shop kept it.")] = "",
    separate: Annotated[bool, typer.Option("--separate", help="Given for this purpose alone.")] = False,
    presented_separately: Annotated[
        bool, typer.Option("--presented-separately", help="Shown apart from other terms.")
    ] = False,
    highlighted: Annotated[bool, typer.Option("--highlighted", help="The clause was set off.")] = False,
    condition_of_service: Annotated[
        bool, typer.Option("--condition-of-service", help="The service was refused without it.")
    ] = False,
    two_step_confirmed: Annotated[
        bool, typer.Option("--two-step-confirmed", help="Confirmed in a second step.")
    ] = False,
    act: Annotated[Act | None, typer.Option(help="What the person did.")] = None,
    by: Annotated[By | None, typer.Option(help="Who gave it, if not the subject.")] = None,
    via: Annotated[str, typer.Option(help="By what way, as a code, for example web_form.")] = "",
    channel: Annotated[str, typer.Option(help="Where it was collected, as a code, for example web.")] = "",
    ui_version: Annotated[str, typer.Option(help="Version of what was on the screen.")] = "",
    term_shown: Annotated[str, typer.Option(help="The storage term that was shown.")] = "",
    withdrawal_method_shown: Annotated[
        str, typer.Option(help="How to withdraw, as it was shown before consent (GDPR Art. 7(3)).")
    ] = "",
    signature_file: Annotated[Path | None, typer.Option(help="The signature's bytes.")] = None,
    given_at: Annotated[str, typer.Option(help="When, ISO 8601 with offset; default now.")] = "",
    expires_at: Annotated[str, typer.Option(help="Until when, if it is limited.")] = "",
    output: options.Output = Form.TABLE,
) -> None:
    """Keep proof of a consent.

    What proves it rests sealed: the receipt shows it, not `lethe consent show`.  A record that
    lacks what a law asks for is refused, and the refusal names it.

    Example: lethe consent record --purpose generate --form explicit --notice notices/studio \
--notice-version 1 --notice-language en --separate --act checkbox --channel web --subject-file id.txt \
--as clients/app.yaml
    """
    from lethe.v1 import consent_pb2 as pb

    consent = pb.Consent(
        subject=subject_name(subject_file, subject, opaque),
        notice=resource("notices", notice),
        notice_version=notice_version,
        notice_language=notice_language,
        notice_sha256=notice_sha256,
        separate=separate,
        presented_separately=presented_separately,
        highlighted=highlighted,
        condition_of_service=condition_of_service,
        two_step_confirmed=two_step_confirmed,
        via=via,
        by=by or "",
        channel=channel,
        ui_version=ui_version,
        term_shown=term_shown,
        withdrawal_method_shown=withdrawal_method_shown,
        signature=read_bytes(signature_file) if signature_file else b"",
        give_time=moment(given_at) if given_at else None,
        expire_time=moment(expires_at) if expires_at else None,
    )
    codes = {"purpose": purpose.value, "form": form.value} | ({"act": act.value} if act else {})
    request = pb.RecordConsentRequest(consent=fill(consent, codes))
    show(talk(profile, lambda client: client.call(client.consents.RecordConsent, request)), output)


@app.command()
def withdraw(
    name: Annotated[
        str | None,
        typer.Argument(help="The consent: consents/ID; or name a receipt, or subject and purpose."),
    ] = None,
    purpose: Annotated[Purpose | None, typer.Option(help="Withdraw every consent for it.")] = None,
    receipt_file: Annotated[
        Path | None, typer.Option("--receipt", help="A receipt's file: nothing else is needed.")
    ] = None,
    profile: options.As = None,
    subject_file: options.SubjectFile = None,
    subject: options.Subject = None,
    opaque: options.Opaque = False,
    output: options.Output = Form.TABLE,
) -> None:
    """Take consent back, at once and without a reason: as easy as giving it.

    GDPR Art. 7(3).  A receipt withdraws by the number in it, also if the file was damaged.

    Example: lethe consent withdraw --purpose generate --subject-file id.txt --as clients/app.yaml
    """
    from lethe.v1 import consent_pb2 as pb

    is_named = bool(maybe_subject_name(subject_file, subject, opaque))
    ways = [name is not None, receipt_file is not None, purpose is not None]
    if sum(ways) != 1 or (is_named and purpose is None):
        raise typer.BadParameter("name a consent, a receipt, or a subject with --purpose")
    if receipt_file is not None:
        request = pb.WithdrawConsentRequest(receipt=_number(receipt_file))
    elif name is not None:
        request = pb.WithdrawConsentRequest(name=resource("consents", name))
    else:
        whose = pb.SubjectPurpose(subject=subject_name(subject_file, subject, opaque))
        request = pb.WithdrawConsentRequest(subject_purpose=fill(whose, {"purpose": purpose}))
    show(talk(profile, lambda client: client.call(client.consents.WithdrawConsent, request)), output)


@app.command("show")
def show_(name: Name, profile: options.As = None, output: options.Output = Form.TABLE) -> None:
    """Show a consent.

    Example: lethe consent show consents/ID --as clients/officer.yaml
    """
    from lethe.v1 import consent_pb2 as pb

    request = pb.GetConsentRequest(name=resource("consents", name))
    show(talk(profile, lambda client: client.call(client.consents.GetConsent, request)), output)


@app.command("list")
def list_(
    profile: options.As = None,
    subject_file: options.SubjectFile = None,
    subject: options.Subject = None,
    opaque: options.Opaque = False,
    renewal_due: Annotated[
        bool,
        typer.Option("--renewal-due", help="Those to be asked for anew, as their notice has changed."),
    ] = False,
    limit: options.Limit = 100,
    output: options.Output = Form.TABLE,
) -> None:
    """List a subject's consents, or everybody's that are due for renewal.

    Example: lethe consent list --subject-file id.txt --as clients/officer.yaml
    """
    from lethe.v1 import consent_pb2 as pb

    whose = maybe_subject_name(subject_file, subject, opaque)
    if not whose and not renewal_due:
        whose = subject_name(subject_file, subject, opaque)
    answer = talk(
        profile,
        lambda client: pages(
            lambda size, token: client.call(
                client.consents.ListConsents,
                pb.ListConsentsRequest(
                    subject=whose, page_size=size, page_token=token, renewal_due=renewal_due
                ),
            ),
            "consents",
            limit,
        ),
    )
    columns = ("name", "purpose", "form", "notice", "notice_version", "give_time", "state")
    show(answer, output, rows="consents", columns=columns)


@app.command()
def receipt(
    name: Name,
    out: Annotated[Path, typer.Option(help="Where the receipt goes.")],
    force: options.Force = False,
    profile: options.As = None,
) -> None:
    """Fetch the receipt of a consent (ISO/IEC TS 27560), signed and with the proof that the log has it.

    Example: lethe consent receipt consents/ID --out receipt.jsonld --as clients/officer.yaml
    """
    from lethe.v1 import consent_pb2 as pb

    refuse_existing(out, force)
    request = pb.GetReceiptRequest(name=resource("consents", name))
    write_whole(out, talk(profile, lambda client: client.call(client.consents.GetReceipt, request)).content)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The receipt.")],
    trust: options.Trust = None,
    output: options.Output = Form.TABLE,
) -> None:
    """Verify a receipt, offline: 0 valid, 4 not (the fault is named), 5 consistent but no trust given.

    Example: lethe consent verify receipt.jsonld --trust trust.txt
    """
    from audit.errors import TrustInvalid
    from audit.receipt import verify_receipt

    try:
        report = verify_receipt(read_bytes(file), read_text(trust) if trust else None)
    except TrustInvalid as fault:
        fail(USAGE, "TRUST_INVALID", str(fault))
    emit(asdict(report), output)
    judge(report.verdict, report.fault)


@app.command()
def invalidate(name: Name, profile: options.As = None, output: options.Output = Form.TABLE) -> None:
    """Note that a consent was never valid; what rests on it stops as if it had been withdrawn.

    Example: lethe consent invalidate consents/ID --as clients/officer.yaml
    """
    from lethe.v1 import consent_pb2 as pb

    request = pb.InvalidateConsentRequest(name=resource("consents", name))
    show(talk(profile, lambda client: client.call(client.consents.InvalidateConsent, request)), output)


@app.command()
def check(
    purpose: ForPurpose,
    profile: options.As = None,
    subject_file: options.SubjectFile = None,
    subject: options.Subject = None,
    opaque: options.Opaque = False,
    output: options.Output = Form.TABLE,
) -> None:
    """Ask what policy would decide now; a denial is printed and ends with 3.

    Example: lethe consent check --purpose train --subject-file id.txt --as clients/app.yaml
    """
    from lethe.v1 import consent_pb2 as pb

    whose = pb.CheckConsentRequest(subject=subject_name(subject_file, subject, opaque))
    request = fill(whose, {"purpose": purpose})
    answer = talk(profile, lambda client: client.call(client.consents.CheckConsent, request))
    show(answer, output)
    if not answer.decision.allowed:
        fail(
            REFUSED,
            answer.decision.reason_code,
            f"{answer.decision.deciding_pack or 'policy'} does not allow it",
        )


@app.command()
def signal(
    gpc: Annotated[bool, typer.Option("--gpc", help="The browser sends Global Privacy Control.")] = False,
    limit_spi: Annotated[
        bool, typer.Option("--limit-spi", help="Limit the use of sensitive personal information.")
    ] = False,
    profile: options.As = None,
    subject_file: options.SubjectFile = None,
    subject: options.Subject = None,
    opaque: options.Opaque = False,
    output: options.Output = Form.TABLE,
) -> None:
    """Record the opt-out signals a subject sends now; one that is left out counts as not sent.

    Example: lethe consent signal --gpc --subject-file id.txt --as clients/app.yaml
    """
    from lethe.v1 import consent_pb2 as pb

    whose = subject_name(subject_file, subject, opaque)
    request = pb.RecordSignalRequest(subject=whose, gpc=gpc, limit_spi=limit_spi)
    show(talk(profile, lambda client: client.call(client.consents.RecordSignal, request)), output)


def _number(file: Path) -> str:
    """Return the name that a receipt gives itself."""
    from audit.errors import AuditError
    from audit.receipt import receipt_id

    try:
        return receipt_id(read_bytes(file))
    except AuditError as fault:
        raise typer.BadParameter(f"not a receipt: {fault.code}") from None
