"""`lethe dsr`: data-subject requests, from the day they arrive to the certificate."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.admin import approval, options
from gateway.admin.exits import FAILED, PARTLY
from gateway.admin.files import refuse_existing, write_whole, writing
from gateway.admin.output import Form, fail, say, show
from gateway.admin.person import subject_name
from gateway.admin.session import pages, talk
from gateway.admin.words import fill, moment, read_mapping, reason, reason_code, resource
from policy.terms import DsrKind, Purpose

if TYPE_CHECKING:
    from lethe.v1 import dsr_pb2 as pb

    from gateway.client import Client

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Data-subject requests.")

Name = Annotated[str, typer.Argument(help="The request: dsrs/ID.")]
Ground = Annotated[
    str, typer.Option("--reason", help="The ground as a code, for example GDPR_12_6_IDENTITY; it is stored.")
]
Delay = Annotated[
    str,
    typer.Option("--reason", help="Why it takes longer, as a code, for example complexity; it is stored."),
]


class LetterKind(StrEnum):
    """What a letter tells."""

    ACKNOWLEDGEMENT = "acknowledgement"
    EXTENSION = "extension"
    REFUSAL = "refusal"
    COMPLETION = "completion"


class Excuse(StrEnum):
    """Why a recipient need not be told."""

    IMPOSSIBLE = "impossible"
    DISPROPORTIONATE = "disproportionate"
    NOT_APPROPRIATE = "not_appropriate"
    NEVER_RECEIVED = "never_received"


class State(StrEnum):
    """Where a request stands."""

    RECEIVED = "received"
    IDENTITY_PENDING = "identity_pending"
    VERIFIED = "verified"
    APPROVED = "approved"
    RUNNING = "running"
    FULFILLED = "fulfilled"
    REFUSED = "refused"
    CANCELLED = "cancelled"


@app.command("open")
def open_(
    kind: Annotated[DsrKind, typer.Option(help="What the subject asks for.")],
    regime: Annotated[
        str, typer.Option(help="The law they invoke, as a pack's id; empty: the gateway's choice.")
    ] = "",
    received_at: Annotated[
        str, typer.Option(help="When it arrived, ISO 8601 with offset; default now.")
    ] = "",
    mandate: Annotated[
        str,
        typer.Option(help="What an agent showed who asks for the subject, as a code: a refusal names them."),
    ] = "",
    agent: Annotated[bool, typer.Option("--agent", help="Somebody else asks for the subject.")] = False,
    purpose: Annotated[
        list[Purpose] | None,
        typer.Option(help="What a withdrawal or an objection is about; may be repeated.  Default: all."),
    ] = None,
    correction: Annotated[
        Path | None,
        typer.Option(help="The subject as it should be, YAML or JSON as for `lethe subject upsert`."),
    ] = None,
    about: Annotated[
        str, typer.Option(help="The earlier request that a complaint or an appeal is about.")
    ] = "",
    profile: options.As = None,
    subject_file: options.SubjectFile = None,
    subject: options.Subject = None,
    opaque: options.Opaque = False,
    output: options.Output = Form.TABLE,
) -> None:
    """Open a request and start its statutory clock.

    An opt-out, a limit and a withdrawal need no approval and are carried out at
    once.  The answer names the day it is due and, with `lethe dsr show`, how
    identity may have to be shown.

    Example: lethe dsr open --kind erasure --regime gdpr --subject-file id.txt --as clients/app.yaml
    """
    from lethe.v1 import dsr_pb2 as pb

    request = pb.CreateDsrRequest(
        subject=subject_name(subject_file, subject, opaque),
        regime=regime,
        receive_time=moment(received_at) if received_at else None,
        by_agent=agent or bool(mandate),
        mandate=mandate,
        about=resource("dsrs", about) if about else "",
    )
    fill(request, {"kind": kind, "purposes": [one.value for one in purpose or ()]})
    if correction is not None:
        fill(request.correction, {"name": request.subject, **read_mapping(correction)})
    show(talk(profile, lambda client: client.call(client.dsrs.CreateDsr, request)), output)


@app.command("list")
def list_(
    state: Annotated[State | None, typer.Option(help="Only these.")] = None,
    due: Annotated[bool, typer.Option("--due", help="Only what is open, due next first.")] = False,
    before: Annotated[str, typer.Option(help="Only what is due by this day, YYYY-MM-DD; with --due.")] = "",
    unconfirmed: Annotated[
        bool,
        typer.Option("--unconfirmed", help="Only where a recipient has neither acknowledged nor is excused."),
    ] = False,
    limit: options.Limit = 100,
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """List requests, with the days they are due; with --due, the register of what is to be answered next.

    Example: lethe dsr list --due --before 2026-12-31 --as clients/officer.yaml
    """
    from lethe.v1 import dsr_pb2 as pb

    def page(size: int, token: str) -> pb.ListDsrsRequest:
        request = pb.ListDsrsRequest(
            page_size=size,
            page_token=token,
            due_only=due,
            due_before=before,
            unconfirmed_only=unconfirmed,
        )
        return fill(request, {"state": state} if state else {})

    answer = talk(
        profile,
        lambda client: pages(
            lambda size, token: client.call(client.dsrs.ListDsrs, page(size, token)), "dsrs", limit
        ),
    )
    columns = ("name", "kind", "regime", "state", "receive_time", "due_date", "recipients_unconfirmed")
    show(answer, output, rows="dsrs", columns=columns)


@app.command("show")
def show_(name: Name, profile: options.As = None, output: options.Output = Form.TABLE) -> None:
    """Show a request.

    Example: lethe dsr show dsrs/ID --as clients/officer.yaml
    """
    from lethe.v1 import dsr_pb2 as pb

    request = pb.GetDsrRequest(name=resource("dsrs", name))
    show(talk(profile, lambda client: client.call(client.dsrs.GetDsr, request)), output)


@app.command()
def verify(
    name: Name,
    method: Annotated[
        str, typer.Option(help="How, as a code: `lethe dsr show` names the sufficient_methods.")
    ],
    failed: Annotated[bool, typer.Option("--failed", help="It was asked for, and not shown.")] = False,
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """Note that the subject's identity was shown, or with --failed that it was not.

    Methods: account_session, direct_confirmation, two_data_points,
    three_data_points_declaration, reauthentication.  One that asks for more than
    the request needs is refused, and one that is too weak.

    Example: lethe dsr verify dsrs/ID --method two_data_points --as clients/officer.yaml
    """
    from lethe.v1 import dsr_pb2 as pb

    request = pb.VerifyIdentityRequest(name=resource("dsrs", name), method=method, not_shown=failed)
    show(talk(profile, lambda client: client.call(client.dsrs.VerifyIdentity, request)), output)


@app.command()
def preview(name: Name, profile: options.As = None, output: options.Output = Form.TABLE) -> None:
    """Show what approving would do, what it would destroy, and what would stay by which rule.

    An approval rests on this for an hour; if what is held changes meanwhile, it
    is refused as PREVIEW_STALE, and the answer names what came and what went.

    Example: lethe dsr preview dsrs/ID --as clients/officer.yaml
    """
    from lethe.v1 import dsr_pb2 as pb

    request = pb.PreviewDsrRequest(name=resource("dsrs", name))
    approval.show_preview(talk(profile, lambda client: client.call(client.dsrs.PreviewDsr, request)), output)


@app.command()
def approve(
    name: Name,
    why: options.Reason,
    apply: options.Apply = False,
    etag: Annotated[
        str, typer.Option(help="The preview_etag you looked at; a changed holding then refuses the approval.")
    ] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is carried out.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait; then it ends with 5.")] = 300.0,
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """Approve a request; the gateway then carries it out, and what is destroyed never comes back.

    Without --apply it shows the preview and asks whether the approval would be
    taken.  With it, the approval is bound to what `--etag` names, or else to what
    is held now: data that arrives in between makes it stale.

    Example: lethe dsr approve dsrs/ID --reason subject_asked --apply --wait --as clients/second-officer.yaml
    """
    whole, code = resource("dsrs", name), reason(why)
    if not apply:
        approval.show_preview(talk(profile, lambda client: approval.rehearse(client, whole, etag)), output)
        say(f"rehearsal ({code}): nothing was changed; --apply approves")
        return
    answer = talk(profile, lambda client: approval.approve(client, whole, etag, timeout if wait else 0.0))
    show(answer, output)
    if wait and answer.dsr.state != answer.dsr.STATE_FULFILLED:
        fail(PARTLY, "NOT_FULFILLED", "approved, but not carried out in time; see lethe dsr show")


@app.command()
def refuse(
    name: Name,
    why: Ground,
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this: objects/ID of an access request, a purpose of an objection; repeatable."
        ),
    ] = None,
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """Refuse a request, or with --part a part of it, for a ground of its regime; it destroys nothing.

    Of what is refused in part the rest goes on to its approval, and is complied with in part.

    GDPR Art. 12(4).  A ground that the law does not know for that kind of request is refused, and the
    refusal names those it does.  Tell the subject: lethe dsr letter dsrs/ID --kind refusal.

    Example: lethe dsr refuse dsrs/ID --reason GDPR_12_5_UNFOUNDED --as clients/officer.yaml
    """
    from lethe.v1 import dsr_pb2 as pb

    request = pb.RefuseDsrRequest(name=resource("dsrs", name), reason_code=reason_code(why), parts=part or ())
    show(talk(profile, lambda client: client.call(client.dsrs.RefuseDsr, request)), output)


@app.command()
def extend(name: Name, why: Delay, profile: options.As = None, output: options.Output = Form.TABLE) -> None:
    """Extend the time for an answer: once, while it still runs, for a reason of its regime.

    A reason that the law does not know is refused, and the refusal names those it does.
    Tell the subject: lethe dsr letter dsrs/ID --kind extension.

    Example: lethe dsr extend dsrs/ID --reason complexity --as clients/officer.yaml
    """
    from lethe.v1 import dsr_pb2 as pb

    request = pb.ExtendDsrRequest(name=resource("dsrs", name), reason_code=reason_code(why))
    show(talk(profile, lambda client: client.call(client.dsrs.ExtendDsr, request)), output)


@app.command()
def pause(name: Name, profile: options.As = None, output: options.Output = Form.TABLE) -> None:
    """Stop the clock while you ask the subject what they mean, where the law lets it stand.

    UK GDPR Art. 12A, for access: only what is reasonably required to find what is asked for.
    Until `lethe dsr resume` the request stays on the list under its old day.

    Example: lethe dsr pause dsrs/ID --as clients/officer.yaml
    """
    from lethe.v1 import dsr_pb2 as pb

    request = pb.PauseDsrRequest(name=resource("dsrs", name))
    show(talk(profile, lambda client: client.call(client.dsrs.PauseDsr, request)), output)


@app.command()
def resume(name: Name, profile: options.As = None, output: options.Output = Form.TABLE) -> None:
    """Let the clock go on, as the subject has answered; the days from asking to now do not count.

    Example: lethe dsr resume dsrs/ID --as clients/officer.yaml
    """
    from lethe.v1 import dsr_pb2 as pb

    request = pb.ResumeDsrRequest(name=resource("dsrs", name))
    show(talk(profile, lambda client: client.call(client.dsrs.ResumeDsr, request)), output)


@app.command()
def tell(
    name: Name,
    recipient: Annotated[str, typer.Option(help="Who: recipients/CODE, as `lethe dsr show` lists them.")],
    acknowledged: Annotated[
        bool, typer.Option("--acknowledged", help="It has confirmed that it was told.")
    ] = False,
    excused: Annotated[
        Excuse | None,
        typer.Option(help="It need not be told, for this ground of every law that asks for it."),
    ] = None,
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """Note that a recipient was told of what a request changed, and later that it acknowledged that.

    Nothing is sent: you tell it by its channel, from the approval on, and as long as you still know
    whom the request is about.  GDPR Art. 19; 11 CCR 7022.

    Example: lethe dsr tell dsrs/ID --recipient recipients/mailer --as clients/officer.yaml
    """
    from lethe.v1 import dsr_pb2 as pb

    if acknowledged and excused:
        raise typer.BadParameter("--acknowledged and --excused exclude each other")
    state = "excused" if excused else "acknowledged" if acknowledged else "told"
    request = pb.RecordPropagationRequest(
        name=resource("dsrs", name), recipient=resource("recipients", recipient), ground=excused or ""
    )
    answer = talk(
        profile,
        lambda client: client.call(client.dsrs.RecordPropagation, fill(request, {"state": state})),
    )
    show(answer, output)


@app.command()
def cancel(name: Name, profile: options.As = None, output: options.Output = Form.TABLE) -> None:
    """Take a request back, as its subject asked; it destroys nothing.

    Example: lethe dsr cancel dsrs/ID --as clients/app.yaml
    """
    from lethe.v1 import dsr_pb2 as pb

    request = pb.CancelDsrRequest(name=resource("dsrs", name))
    show(talk(profile, lambda client: client.call(client.dsrs.CancelDsr, request)), output)


@app.command()
def letter(
    name: Name,
    kind: Annotated[LetterKind | None, typer.Option(help="Which; default: the one to send next.")] = None,
    language: Annotated[
        str, typer.Option(help="For example de or pt-BR; English where there is none in it.")
    ] = "en",
    out: Annotated[Path | None, typer.Option(help="Where the text goes; default: stdout.")] = None,
    force: options.Force = False,
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """Write a letter about a request, without name or address: you put those on it.

    Example: lethe dsr letter dsrs/ID --language de --out letter.txt --as clients/officer.yaml
    """
    from lethe.v1 import dsr_pb2 as pb

    if out is not None:
        refuse_existing(out, force)
    request = pb.GetLetterRequest(name=resource("dsrs", name), language=language)
    fill(request, {"kind": kind} if kind else {})
    answer = talk(profile, lambda client: client.call(client.dsrs.GetLetter, request))
    if out is not None:
        write_whole(out, f"{answer.subject}\n\n{answer.text}".encode())
        return
    show(answer, output)


@app.command()
def figures(
    since: Annotated[str, typer.Option(help="Received from here on, ISO 8601 with offset.")],
    until: Annotated[str, typer.Option(help="Received before that; default now.")] = "",
    regime: Annotated[str, typer.Option(help="Only under this law, as a pack's id.")] = "",
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """Count what became of requests, by kind, with the median days to an answer (11 CCR 7102).

    Example: lethe dsr figures --since 2026-01-01T00:00:00-08:00 --regime ccpa --as clients/auditor.yaml
    """
    from lethe.v1 import dsr_pb2 as pb

    request = pb.GetFiguresRequest(
        start_time=moment(since),
        end_time=moment(until or datetime.now(UTC).isoformat()),
        regime=regime,
    )
    columns = (
        *("kind", "received", "complied", "complied_in_part", "denied", "cancelled", "open", "median_days"),
        *("recipients_confirmed", "recipients_unconfirmed"),
    )
    answer = talk(profile, lambda client: client.call(client.dsrs.GetFigures, request))
    show(answer, output, rows="figures", columns=columns)


@app.command()
def package(
    name: Name,
    out: Annotated[Path, typer.Option(help="Where the ZIP file goes.")],
    force: options.Force = False,
    profile: options.As = None,
) -> None:
    """Download the package of a request for access or portability: a ZIP file with a page to open.

    Example: lethe dsr package dsrs/ID --out package.zip --as clients/officer.yaml
    """
    refuse_existing(out, force)
    name = resource("dsrs", name)
    with writing(out) as file:
        talk(profile, lambda client: client.package(name, file.write))


@app.command()
def certificate(
    name: Annotated[str, typer.Argument(help="certificates/ID, or dsrs/ID of the erasure.")],
    out: Annotated[Path, typer.Option(help="Where the tlog-proof goes; its opening is put beside it.")],
    force: options.Force = False,
    profile: options.As = None,
) -> None:
    """Fetch the certificate of a finished erasure: proof and opening, to be checked offline.

    Example: lethe dsr certificate dsrs/ID --out erasure.tlog-proof --as clients/officer.yaml
    """
    opening = out.with_suffix(".opening.json")
    for file in (out, opening):
        refuse_existing(file, force)
    answer = talk(profile, lambda client: _certificate(client, name))
    write_whole(opening, answer.opening)
    write_whole(out, answer.tlog_proof.encode())


async def _certificate(client: Client, name: str) -> pb.GetCertificateResponse:
    """Return a certificate by its own name or by that of its request."""
    from lethe.v1 import dsr_pb2 as pb

    if name.startswith("dsrs/"):
        found = (await client.call(client.dsrs.GetDsr, pb.GetDsrRequest(name=name))).dsr
        if not found.certificate:
            fail(FAILED, "NOT_FOUND", "the request has no certificate (yet)")
        name = found.certificate
    request = pb.GetCertificateRequest(name=resource("certificates", name))
    return await client.call(client.dsrs.GetCertificate, request)
