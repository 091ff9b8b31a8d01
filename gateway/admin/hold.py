"""`lethe hold`: legal holds, which stop destruction while they stand."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.admin import options
from gateway.admin.output import Form, emit, say, show
from gateway.admin.person import subject_name
from gateway.admin.session import pages, talk
from gateway.admin.words import moment, reason_code, resource

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Legal holds: what must be kept.")


@app.command()
def place(
    rule: Annotated[str, typer.Option(help="The provision that demands it: 'GDPR Art. 17(3)(e)'.")],
    until: Annotated[
        str, typer.Option(help="When it ends by itself, with its offset; else when it is released.")
    ] = "",
    key_class: Annotated[
        list[str] | None,
        typer.Option("--class", help="content, profile, evidence or dsr; may be repeated.  Default: all."),
    ] = None,
    profile: options.As = None,
    subject_file: options.SubjectFile = None,
    subject: options.Subject = None,
    opaque: options.Opaque = False,
    output: options.Output = Form.TABLE,
) -> None:
    """Place a hold on what is kept of a subject: nothing it covers is destroyed while it stands.

    Example: lethe hold place --rule 'GDPR Art. 17(3)(e)' --subject-file id.txt --as clients/officer.yaml
    """
    from lethe.v1 import retention_pb2 as pb

    hold = pb.Hold(
        subject=subject_name(subject_file, subject, opaque), rule=rule, key_classes=key_class or ()
    )
    if until:
        hold.retain_until_time.CopyFrom(moment(until))
    request = pb.PlaceHoldRequest(hold=hold)
    show(talk(profile, lambda client: client.call(client.retention.PlaceHold, request)), output)


@app.command()
def release(
    name: Annotated[str, typer.Argument(help="The hold: holds/ID.")],
    why: options.Reason,
    profile: options.As = None,
    apply: options.Apply = False,
    output: options.Output = Form.TABLE,
) -> None:
    """Release a hold; what only it kept is destroyed by the next sweep.  A rehearsal sends nothing.

    Example: lethe hold release holds/ID --reason case_closed --apply --as clients/officer.yaml
    """
    from lethe.v1 import retention_pb2 as pb

    plan = {"rehearsal": not apply, "name": resource("holds", name), "reason": reason_code(why)}
    if not apply:
        emit(plan, output)
        say("rehearsal: nothing was sent; --apply releases the hold")
        return
    request = pb.ReleaseHoldRequest(name=resource("holds", name), reason_code=reason_code(why))
    show(talk(profile, lambda client: client.call(client.retention.ReleaseHold, request)), output)


@app.command("list")
def list_(
    after: Annotated[str, typer.Option(help="Begin behind this page token.")] = "",
    limit: options.Limit = 100,
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """List the holds that stand, oldest first.

    Example: lethe hold list --as clients/officer.yaml
    """
    from lethe.v1 import retention_pb2 as pb

    answer = talk(
        profile,
        lambda client: pages(
            lambda size, token: client.call(
                client.retention.ListHolds, pb.ListHoldsRequest(page_size=size, page_token=token)
            ),
            "holds",
            limit,
            after,
        ),
    )
    show(
        answer, output, rows="holds", columns=("name", "subject", "rule", "create_time", "retain_until_time")
    )
