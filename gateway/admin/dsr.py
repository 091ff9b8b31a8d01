"""`lethe dsr`: data-subject requests, from the day they arrive to the certificate."""

from __future__ import annotations

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
from gateway.admin.words import fill, moment, reason, reason_code, resource
from policy.terms import DsrKind

if TYPE_CHECKING:
    from lethe.v1 import dsr_pb2 as pb

    from gateway.client import Client

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Data-subject requests.")

Name = Annotated[str, typer.Argument(help="The request: dsrs/ID.")]
Why = Annotated[
    str, typer.Option("--reason", help="The ground as a code, for example GDPR_12_6_IDENTITY; it is stored.")
]


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
    profile: options.As = None,
    subject_file: options.SubjectFile = None,
    subject: options.Subject = None,
    opaque: options.Opaque = False,
    output: options.Output = Form.TABLE,
) -> None:
    """Open a request and start its statutory clock.

    Example: lethe dsr open --kind erasure --regime gdpr --subject-file id.txt --as clients/app.yaml
    """
    from lethe.v1 import dsr_pb2 as pb

    request = pb.CreateDsrRequest(
        subject=subject_name(subject_file, subject, opaque),
        regime=regime,
        receive_time=moment(received_at) if received_at else None,
    )
    fill(request, {"kind": kind})
    show(talk(profile, lambda client: client.call(client.dsrs.CreateDsr, request)), output)


@app.command("list")
def list_(
    state: Annotated[State | None, typer.Option(help="Only these.")] = None,
    limit: options.Limit = 100,
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """List requests, with the days they are due.

    Example: lethe dsr list --state received --as clients/officer.yaml
    """
    from lethe.v1 import dsr_pb2 as pb

    def page(size: int, token: str) -> pb.ListDsrsRequest:
        return fill(pb.ListDsrsRequest(page_size=size, page_token=token), {"state": state} if state else {})

    answer = talk(
        profile,
        lambda client: pages(
            lambda size, token: client.call(client.dsrs.ListDsrs, page(size, token)), "dsrs", limit
        ),
    )
    show(answer, output, rows="dsrs", columns=("name", "kind", "regime", "state", "receive_time", "due_date"))


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
        str, typer.Option(help="How identity was shown, as a code, for example account_login.")
    ],
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """Note that the subject's identity was shown.

    Example: lethe dsr verify dsrs/ID --method account_login --as clients/officer.yaml
    """
    from lethe.v1 import dsr_pb2 as pb

    request = pb.VerifyIdentityRequest(name=resource("dsrs", name), method=method)
    show(talk(profile, lambda client: client.call(client.dsrs.VerifyIdentity, request)), output)


@app.command()
def preview(name: Name, profile: options.As = None, output: options.Output = Form.TABLE) -> None:
    """Show what approving would destroy, and what would stay by which rule.

    Example: lethe dsr preview dsrs/ID --as clients/officer.yaml
    """
    from lethe.v1 import dsr_pb2 as pb

    request = pb.PreviewDsrRequest(name=resource("dsrs", name))
    show(talk(profile, lambda client: client.call(client.dsrs.PreviewDsr, request)), output)


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
    taken.  With it, the approval is bound to the preview: data that arrived in
    between makes it stale.

    Example: lethe dsr approve dsrs/ID --reason subject_asked --apply --wait --as clients/second-officer.yaml
    """
    whole, code = resource("dsrs", name), reason(why)
    if not apply:
        show(talk(profile, lambda client: approval.rehearse(client, whole, etag)), output)
        say(f"rehearsal ({code}): nothing was changed; --apply approves")
        return
    answer = talk(profile, lambda client: approval.approve(client, whole, etag, timeout if wait else 0.0))
    show(answer, output)
    if wait and answer.dsr.state != answer.dsr.STATE_FULFILLED:
        fail(PARTLY, "NOT_FULFILLED", "approved, but not carried out in time; see lethe dsr show")


@app.command()
def refuse(name: Name, why: Why, profile: options.As = None, output: options.Output = Form.TABLE) -> None:
    """Refuse a request for a ground of its regime (GDPR Art. 12(4)); it destroys nothing.

    Example: lethe dsr refuse dsrs/ID --reason GDPR_12_5_UNFOUNDED --as clients/officer.yaml
    """
    from lethe.v1 import dsr_pb2 as pb

    request = pb.RefuseDsrRequest(name=resource("dsrs", name), reason_code=reason_code(why))
    show(talk(profile, lambda client: client.call(client.dsrs.RefuseDsr, request)), output)


@app.command()
def extend(name: Name, why: Why, profile: options.As = None, output: options.Output = Form.TABLE) -> None:
    """Extend the term for a ground of its regime.

    Example: lethe dsr extend dsrs/ID --reason complexity --as clients/officer.yaml
    """
    from lethe.v1 import dsr_pb2 as pb

    request = pb.ExtendDsrRequest(name=resource("dsrs", name), reason_code=reason_code(why))
    show(talk(profile, lambda client: client.call(client.dsrs.ExtendDsr, request)), output)


@app.command()
def cancel(name: Name, profile: options.As = None, output: options.Output = Form.TABLE) -> None:
    """Take a request back, as its subject asked; it destroys nothing.

    Example: lethe dsr cancel dsrs/ID --as clients/app.yaml
    """
    from lethe.v1 import dsr_pb2 as pb

    request = pb.CancelDsrRequest(name=resource("dsrs", name))
    show(talk(profile, lambda client: client.call(client.dsrs.CancelDsr, request)), output)


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
