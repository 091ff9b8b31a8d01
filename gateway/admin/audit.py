"""`lethe audit`: the log, shown, exported, and verified without us."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.admin import options
from gateway.admin.exits import FAILED, USAGE, VERDICTS
from gateway.admin.export import fetch
from gateway.admin.files import read_bytes, refuse_existing, write_whole
from gateway.admin.output import Form, emit, fail, show
from gateway.admin.replay import judge_completeness, judge_violations, replayed, shown
from gateway.admin.session import pages, talk

if TYPE_CHECKING:
    from audit.verify import Report

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
    path: Annotated[
        Path, typer.Argument(metavar="DIR|FILE", exists=True, help="An export, or the proof of one event.")
    ],
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
    cannot be replayed.  The .tlog-proof of one event is verified likewise.

    Example: lethe audit verify export --trust trust.txt
    """
    if path.is_file():
        if previous is not None or replay:
            raise typer.BadParameter("--previous and --replay are for exports")
        _verify_proof(path, trust, output)
        return
    report, files = _exported(path, trust, previous)
    again = replayed(files) if replay and report.verdict != "invalid" else None
    emit(asdict(report) | ({"replay": shown(again)} if again else {}), output)
    if again is not None:
        judge_violations(again)
    judge(report.verdict, report.fault)
    if again is not None:
        judge_completeness(again)


def _exported(path: Path, trust: Path | None, previous: Path | None) -> tuple[Report, dict[str, bytes]]:
    """Return what an export is worth, and its files."""
    from audit.errors import ExportInvalid
    from audit.verify import Report, read_folder, verify_export

    vkeys = _trusted(trust, *(folder for folder in (path, previous) if folder is not None))
    try:
        files = read_folder(path)
        return verify_export(files, vkeys, read_folder(previous) if previous else None), files
    except ExportInvalid as fault:
        return Report("invalid", str(fault)), {}
    except OSError as fault:
        fail(FAILED, "FILE_UNREADABLE", f"{path}: {fault.strerror}")


def _trusted(trust: Path | None, *exports: Path) -> str | None:
    """Return the text of a trust file from which trust can be taken."""
    from audit.errors import TrustInvalid
    from audit.folder import read_trust_file
    from audit.trust import read_trust

    try:
        text = read_trust_file(trust, *exports) if trust else None
        if text is not None:
            read_trust(text)
    except TrustInvalid as fault:
        fail(USAGE, "TRUST_INVALID", str(fault))
    except OSError as fault:
        fail(FAILED, "FILE_UNREADABLE", f"{trust}: {fault.strerror}")
    return text


def _verify_proof(path: Path, trust: Path | None, output: Form) -> None:
    from audit.verify import verify_proof

    report = verify_proof(read_bytes(path).decode(errors="replace"), _trusted(trust))
    emit(asdict(report), output)
    judge(report.verdict, report.fault)


@app.command()
def prove(
    directory: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]", exists=True, file_okay=False, help="An export: then no gateway is asked."
        ),
    ] = None,
    event: Annotated[str, typer.Option(help="The event's id.")] = "",
    index: Annotated[int, typer.Option(min=-1, help="Or its place in the log.")] = -1,
    trust: options.Trust = None,
    out: Annotated[Path | None, typer.Option(help="Write the C2SP tlog-proof file here.")] = None,
    force: options.Force = False,
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """Prove that an event is in the log: fetched from the gateway, or made of an export, offline.

    An export is verified first: 4 if it is not valid, and nothing is written; 5 if no trust was given,
    and the proof then is as good as the export.

    Example: lethe audit prove export --event ID --trust trust.txt --out event.tlog-proof
    """
    if (not event) == (index < 0):
        raise typer.BadParameter("name the event by --event or by --index")
    if out is not None:
        refuse_existing(out, force)
    if directory is not None:
        _prove_offline(directory, event, index, trust, out, output)
        return
    if trust is not None:
        raise typer.BadParameter("--trust is for an export: what a gateway answers is verified later")
    from lethe.v1 import audit_pb2 as pb

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


def _prove_offline(
    directory: Path, event: str, place: int, trust: Path | None, out: Path | None, output: Form
) -> None:
    from audit.proof import parse
    from audit.single import place_of, prove

    report, files = _exported(directory, trust, None)
    if report.verdict == "invalid":
        judge(report.verdict, report.fault)
    index = place_of(files, event) if event else place
    made = None if index is None else prove(files, index)
    if made is None:
        fail(FAILED, "NOT_FOUND", "the export does not hold this event")
    if out is not None:
        write_whole(out, made.encode())
    elif output is Form.TABLE:
        typer.echo(made, nl=False)
    else:
        emit({"index": index, "checkpoint": parse(made).checkpoint, "tlog_proof": made}, output)
    judge(report.verdict, report.fault)


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
