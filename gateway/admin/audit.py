"""`lethe audit`: the log, shown, exported, and verified without us."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from gateway.admin import options
from gateway.admin.exits import FAILED, USAGE, VERDICTS
from gateway.admin.export import fetch
from gateway.admin.files import refuse_existing, write_whole
from gateway.admin.output import Form, emit, fail, show
from gateway.admin.replay import judge_completeness, judge_violations, replayed, shown
from gateway.admin.session import pages, talk

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The audit log.")


@app.command()
def head(
    keys: Annotated[
        bool, typer.Option("--keys", help="Print only the log's keys, with validity: a trust file.")
    ] = False,
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """Show the newest checkpoint, a signed note; or the keys that sign it.

    Trust the keys only as far as you trust this connection.

    Example: lethe audit head --keys --as clients/auditor.yaml > trust.txt
    """
    from lethe.v1 import audit_pb2 as pb

    answer = talk(profile, lambda client: client.call(client.audit.GetCheckpoint, pb.GetCheckpointRequest()))
    if keys:
        typer.echo("\n".join(answer.vkeys))
    elif output is Form.TABLE:
        typer.echo(answer.checkpoint, nl=False)
    else:
        show(answer, output)


@app.command("list")
def list_(
    kind: Annotated[
        str, typer.Option("--type", help="Only events of this type, for example consent.recorded.")
    ] = "",
    since: Annotated[datetime | None, typer.Option(help="Only events from this instant (UTC) on.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Only events before this instant (UTC).")] = None,
    after: Annotated[str, typer.Option(help="Begin behind this page token.")] = "",
    limit: options.Limit = 100,
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """List events, oldest first.

    Example: lethe audit list --type subject.erased --as clients/auditor.yaml
    """
    from lethe.v1 import audit_pb2 as pb

    def asked(size: int, token: str) -> pb.ListEventsRequest:
        request = pb.ListEventsRequest(type=kind, page_size=size, page_token=token)
        for name, at in (("start_time", since), ("end_time", until)):
            if at is not None:
                getattr(request, name).FromDatetime(at)
        return request

    answer = talk(
        profile,
        lambda client: pages(
            lambda size, token: client.call(client.audit.ListEvents, asked(size, token)),
            "events",
            limit,
            after,
        ),
    )
    show(answer, output, rows="events", columns=("index", "type", "event_time", "event_id"))


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="A new or empty folder.")],
    start: Annotated[
        int, typer.Option("--from", min=0, help="Index of the first leaf; 0: the oldest kept.")
    ] = 0,
    end: Annotated[int, typer.Option("--to", min=0, help="Index after the last; 0: all.")] = 0,
    size: Annotated[int, typer.Option(min=0, help="Size of a stored checkpoint; 0: the newest.")] = 0,
    previous: Annotated[
        int, typer.Option(min=0, help="Checkpoint size of your last export: proves that the log only grew.")
    ] = 0,
    kind: Annotated[list[str] | None, typer.Option("--type", help="Only events of this type.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Only events from this instant (UTC) on.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Only events before this instant (UTC).")] = None,
    complete: Annotated[
        bool, typer.Option(help="With a selection: also prove that no other event was left out.")
    ] = False,
    disclose: Annotated[
        list[str] | None, typer.Option(help="Show the payloads of this class, for example audit.")
    ] = None,
    expires: Annotated[
        datetime | None, typer.Option(help="When the recipient destroys it; needed with --disclose.")
    ] = None,
    recipient: Annotated[str, typer.Option(help="A code for who receives it, never a person.")] = "",
    purpose: Annotated[str, typer.Option(help="A code for what it is for.")] = "",
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """Fetch the log, or a part of it, as a folder that anybody can verify offline.

    Example: lethe audit export --out export --previous 1200 --as clients/auditor.yaml
    """
    from lethe.v1 import audit_pb2 as pb

    request = pb.ExportRequest(
        from_index=start,
        to_index=end,
        checkpoint_size=size,
        previous_size=previous,
        types=kind or (),
        complete=complete,
        disclosed_classes=disclose or (),
        recipient=recipient,
        purpose=purpose,
    )
    for name, at in (("start_time", since), ("end_time", until), ("expire_time", expires)):
        if at is not None:
            getattr(request, name).FromDatetime(at)
    emit({"folder": str(out), "files": talk(profile, lambda client: fetch(client, out, request))}, output)


@app.command()
def verify(
    directory: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="An export.")],
    trust: options.Trust = None,
    previous: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="The export before it: the log must have grown on it."
        ),
    ] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Decide every decision again, and ask if promises were kept.")
    ] = False,
    output: options.Output = Form.TABLE,
) -> None:
    """Verify an export offline: 0 valid, 4 not (the first fault is named), 5 consistent but no trust given.

    With --replay also 4 where a decision or a promise does not hold (each is named), and 5 where a decision
    cannot be replayed.

    Example: lethe audit verify export --trust trust.txt
    """
    from audit.errors import ExportInvalid, TrustInvalid
    from audit.folder import read_trust_file
    from audit.verify import Report, read_folder, verify_export

    again = None
    folders = [folder for folder in (directory, previous) if folder is not None]
    try:
        vkeys = read_trust_file(trust, *folders) if trust else None
        files = read_folder(directory)
        report = verify_export(files, vkeys, read_folder(previous) if previous else None)
        if replay and report.verdict != "invalid":
            again = replayed(files)
    except ExportInvalid as fault:
        report = Report("invalid", str(fault))
    except TrustInvalid as fault:
        fail(USAGE, "TRUST_INVALID", str(fault))
    except OSError as fault:
        fail(FAILED, "FILE_UNREADABLE", f"{directory}: {fault.strerror}")
    emit(asdict(report) | ({"replay": shown(again)} if again else {}), output)
    if again is not None:
        judge_violations(again)
    judge(report.verdict, report.fault)
    if again is not None:
        judge_completeness(again)


@app.command()
def prove(
    event: Annotated[str, typer.Option(help="The event's id.")] = "",
    index: Annotated[int, typer.Option(min=-1, help="Or its place in the log.")] = -1,
    out: Annotated[Path | None, typer.Option(help="Write the C2SP tlog-proof file here.")] = None,
    force: options.Force = False,
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """Fetch the proof that an event is in the log.

    Example: lethe audit prove --event ID --out event.tlog-proof --as clients/auditor.yaml
    """
    from lethe.v1 import audit_pb2 as pb

    if (not event) == (index < 0):
        raise typer.BadParameter("name the event by --event or by --index")
    if out is not None:
        refuse_existing(out, force)
    request = (
        pb.GetInclusionProofRequest(event_id=event) if event else pb.GetInclusionProofRequest(index=index)
    )
    answer = talk(profile, lambda client: client.call(client.audit.GetInclusionProof, request))
    if out is not None:
        write_whole(out, answer.tlog_proof.encode())
    elif output is Form.TABLE:
        typer.echo(answer.tlog_proof, nl=False)
    else:
        show(answer, output)


def judge(verdict: str, fault: str) -> None:
    """End the command as a verification ended."""
    if verdict == "invalid":
        fail(VERDICTS[verdict], "PROOF_INVALID", fault)
    if verdict != "valid":
        fail(
            VERDICTS[verdict],
            "TRUST_MISSING",
            "consistent in itself, but no trust was given: not called valid",
        )
