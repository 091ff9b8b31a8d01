"""`lethe notice`: what people were told before they were asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.admin import options
from gateway.admin.output import Form, show
from gateway.admin.session import pages, talk
from gateway.admin.words import fill, read_mapping, resource

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Notices: what people are told.")

Name = Annotated[str, typer.Argument(help="The notice: notices/ID.")]


@app.command()
def publish(
    file: Annotated[
        Path,
        typer.Option(
            "--file",
            help="JSON or YAML: name, language, title, text, purposes, and where they apply retention_term, "
            "recipients, transfer_countries, withdrawal_method, layers, and serves: notices that a law "
            "asks for and that this one is or links to, for example bipa_policy.  - reads stdin.",
        ),
    ],
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """Publish the next version of a notice; a published version never changes.

    Example: lethe notice publish --file notice.yaml --as clients/officer.yaml
    """
    from lethe.v1 import notice_pb2 as pb

    tree = read_mapping(file)
    if isinstance(tree.get("name"), str):
        tree["name"] = resource("notices", tree["name"])
    request = pb.PublishNoticeRequest(notice=fill(pb.Notice(), tree))
    show(talk(profile, lambda client: client.call(client.notices.PublishNotice, request)), output)


@app.command("show")
def show_(
    name: Name,
    version: Annotated[int, typer.Option(min=0, help="Which version; 0 is the newest.")] = 0,
    language: Annotated[str, typer.Option(help="Which language, for example de.")] = "",
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """Show a notice.

    Example: lethe notice show notices/studio --language de --as clients/auditor.yaml
    """
    from lethe.v1 import notice_pb2 as pb

    request = pb.GetNoticeRequest(name=resource("notices", name), version=version, language=language)
    show(talk(profile, lambda client: client.call(client.notices.GetNotice, request)), output)


@app.command("list")
def list_(
    limit: options.Limit = 100, profile: options.As = None, output: options.Output = Form.TABLE
) -> None:
    """List notices.

    Example: lethe notice list --as clients/auditor.yaml
    """
    from lethe.v1 import notice_pb2 as pb

    answer = talk(
        profile,
        lambda client: pages(
            lambda size, token: client.call(
                client.notices.ListNotices, pb.ListNoticesRequest(page_size=size, page_token=token)
            ),
            "notices",
            limit,
        ),
    )
    columns = ("name", "version", "language", "title", "purposes", "publish_time")
    show(answer, output, rows="notices", columns=columns)
