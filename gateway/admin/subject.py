"""`lethe subject`: who is known, what is held of them, and what they may ask to stop or correct."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.admin import options
from gateway.admin.output import Form, emit, say, show
from gateway.admin.person import subject_name
from gateway.admin.session import pages, talk
from gateway.admin.words import fill, read_mapping, reason, resource

if TYPE_CHECKING:
    from lethe.v1 import subject_pb2 as pb

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Subjects: the people in the pictures.")

Facts = Annotated[
    Path,
    typer.Option(
        "--file",
        help="JSON or YAML: subject (the id), residence, location, birth_year or age_band "
        "(under_13, 13_to_15, 16_to_17, adult), guardian: verified_method, relation.  - reads stdin.",
    ),
]


@app.command()
def upsert(file: Facts, profile: options.As = None, output: options.Output = Form.TABLE) -> None:
    """Make a subject known, or replace what is known of them.

    Example: lethe subject upsert --file - --as clients/app.yaml < person.yaml
    """
    from lethe.v1 import subject_pb2 as pb

    request = pb.UpsertSubjectRequest(subject=_subject(file))
    show(talk(profile, lambda client: client.call(client.subjects.UpsertSubject, request)), output)


@app.command()
def rectify(file: Facts, profile: options.As = None, output: options.Output = Form.TABLE) -> None:
    """Correct what is known of a subject.

    GDPR Art. 16.

    Example: lethe subject rectify --file corrected.yaml --as clients/officer.yaml
    """
    from lethe.v1 import subject_pb2 as pb

    request = pb.RectifySubjectRequest(subject=_subject(file))
    show(talk(profile, lambda client: client.call(client.subjects.RectifySubject, request)), output)


@app.command("show")
def show_(
    profile: options.As = None,
    subject_file: options.SubjectFile = None,
    subject: options.Subject = None,
    opaque: options.Opaque = False,
    output: options.Output = Form.TABLE,
) -> None:
    """Show what is known of a subject.

    Example: lethe subject show --subject-file id.txt --as clients/officer.yaml
    """
    from lethe.v1 import subject_pb2 as pb

    request = pb.GetSubjectRequest(name=subject_name(subject_file, subject, opaque))
    show(talk(profile, lambda client: client.call(client.subjects.GetSubject, request)), output)


@app.command()
def data(
    after: Annotated[str, typer.Option(help="Begin behind this page token.")] = "",
    limit: options.Limit = 1000,
    profile: options.As = None,
    subject_file: options.SubjectFile = None,
    subject: options.Subject = None,
    opaque: options.Opaque = False,
    output: options.Output = Form.TABLE,
) -> None:
    """List what is held of a subject, why, and until when.

    GDPR Art. 15(1).

    Example: lethe subject data --subject u-4711 --opaque --as clients/officer.yaml -o json
    """
    from lethe.v1 import subject_pb2 as pb

    whose = subject_name(subject_file, subject, opaque)
    answer = talk(
        profile,
        lambda client: pages(
            lambda size, token: client.call(
                client.subjects.ListStoredData,
                pb.ListStoredDataRequest(subject=whose, page_size=size, page_token=token),
            ),
            "items",
            limit,
            after,
        ),
    )
    columns = ("name", "kind", "purpose", "size_bytes", "expire_time", "rule")
    show(answer, output, rows="items", columns=columns)


@app.command()
def restrict(
    profile: options.As = None,
    subject_file: options.SubjectFile = None,
    subject: options.Subject = None,
    opaque: options.Opaque = False,
    output: options.Output = Form.TABLE,
) -> None:
    """Restrict the processing of a subject's data to storage.

    GDPR Art. 18.

    Example: lethe subject restrict --subject-file id.txt --as clients/officer.yaml
    """
    _restrict(subject_name(subject_file, subject, opaque), profile, output, restricted=True)


@app.command()
def unrestrict(
    profile: options.As = None,
    subject_file: options.SubjectFile = None,
    subject: options.Subject = None,
    opaque: options.Opaque = False,
    output: options.Output = Form.TABLE,
) -> None:
    """Lift a restriction.

    Example: lethe subject unrestrict --subject-file id.txt --as clients/officer.yaml
    """
    _restrict(subject_name(subject_file, subject, opaque), profile, output, restricted=False)


@app.command()
def record(
    name: Annotated[str, typer.Argument(help="The picture: objects/ID, from lethe subject data.")],
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """Show the abstract record of a picture: how a head is held, in bins; needs a consent to analytics.

    Example: lethe subject record objects/ID --as clients/app.yaml -o json
    """
    from lethe.v1 import analytics_pb2 as pb

    request = pb.GetRecordRequest(object=resource("objects", name))
    show(talk(profile, lambda client: client.call(client.analytics.GetRecord, request)), output)


@app.command("delete-object")
def delete_object(
    name: Annotated[str, typer.Argument(help="The object: objects/ID, from lethe subject data.")],
    why: options.Reason,
    profile: options.As = None,
    apply: options.Apply = False,
    output: options.Output = Form.TABLE,
) -> None:
    """Destroy one object, key first, then bytes; a rehearsal sends nothing.

    Example: lethe subject delete-object objects/ID --reason wrong_picture --apply --as clients/officer.yaml
    """
    from lethe.v1 import subject_pb2 as pb

    plan = {"rehearsal": not apply, "name": resource("objects", name), "reason": reason(why)}
    if not apply:
        emit(plan, output)
        say("rehearsal: nothing was sent; --apply destroys the object")
        return
    request = pb.DeleteObjectRequest(name=resource("objects", name))
    show(talk(profile, lambda client: client.call(client.subjects.DeleteObject, request)), output)


def _restrict(name: str, profile: Path | None, output: Form, *, restricted: bool) -> None:
    from lethe.v1 import subject_pb2 as pb

    request = pb.RestrictSubjectRequest(name=name, restricted=restricted)
    show(talk(profile, lambda client: client.call(client.subjects.RestrictSubject, request)), output)


def _subject(file: Path) -> pb.Subject:
    """Return the subject that a file describes."""
    from lethe.v1 import subject_pb2 as pb

    tree = read_mapping(file)
    if "subject" in tree:
        tree["name"] = tree.pop("subject")
    if isinstance(tree.get("name"), str):
        tree["name"] = resource("subjects", tree["name"])
    return fill(pb.Subject(), tree)
