"""`lethe dataset`: training sets of those who opted in."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.admin import options
from gateway.admin.files import refuse_existing, writing
from gateway.admin.output import Form, emit, show
from gateway.admin.progress import progress
from gateway.admin.session import pages, talk
from gateway.admin.words import resource

if TYPE_CHECKING:
    from gateway.client import Client

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Training sets: off, unless the tenant says otherwise."
)

DOWNLOAD_TIMEOUT_S = 3600.0


class FaceProfile(StrEnum):
    """What may be done about faces in a training set."""

    LANDMARKS = "landmarks"
    REDACT = "redact"


Name = Annotated[str, typer.Argument(help="The training set: datasets/ID.")]


@app.command()
def create(
    label: Annotated[str, typer.Argument(help="What it is called: a code, the next version of it is made.")],
    max_size: Annotated[int, typer.Option(help="At most so many pictures; 0 for as many as may be.")] = 0,
    faces: Annotated[
        FaceProfile,
        typer.Option(
            "--profile",
            help="What takes a head's place: landmarks, a canonical mesh in coarse pose; redact, nothing.",
        ),
    ] = FaceProfile.LANDMARKS,
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """Begin the next version of a training set; it is filled in the background.

    Example: lethe dataset create headshots --profile redact --as clients/officer.yaml
    """
    from lethe.v1 import common_pb2
    from lethe.v1 import training_pb2 as pb

    wanted = common_pb2.FaceProfile.Value(f"FACE_PROFILE_{faces.name}")
    request = pb.CreateDatasetRequest(label=label, max_size=max_size, profile=wanted)
    show(talk(profile, lambda client: client.call(client.training.CreateDataset, request)), output)


@app.command("list")
def list_(
    after: Annotated[str, typer.Option(help="Begin behind this page token.")] = "",
    limit: options.Limit = 100,
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """List training sets, by label and version.

    Example: lethe dataset list --as clients/auditor.yaml
    """
    from lethe.v1 import training_pb2 as pb

    answer = talk(
        profile,
        lambda client: pages(
            lambda size, token: client.call(
                client.training.ListDatasets, pb.ListDatasetsRequest(page_size=size, page_token=token)
            ),
            "datasets",
            limit,
            after,
        ),
    )
    show(
        answer, output, rows="datasets", columns=("name", "label", "version", "state", "size", "expire_time")
    )


@app.command("show")
def show_(name: Name, profile: options.As = None, output: options.Output = Form.TABLE) -> None:
    """Show a training set: who was left out and why, and which items every copy of it must lose.

    Example: lethe dataset show datasets/ID --as clients/officer.yaml
    """
    from lethe.v1 import training_pb2 as pb

    request = pb.GetDatasetRequest(name=resource("datasets", name))
    show(talk(profile, lambda client: client.call(client.training.GetDataset, request)), output)


@app.command()
def download(
    name: Name,
    out: Annotated[Path, typer.Option(help="Where the tar file goes.")],
    force: options.Force = False,
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """Download a training set as a tar file: items/ID.jpeg and so on, and manifest.json at its end.

    Example: lethe dataset download datasets/ID --out set.tar --as clients/officer.yaml
    """
    refuse_existing(out, force)
    size = talk(profile, lambda client: _fetch(client, resource("datasets", name), out))
    emit({"file": str(out), "size_bytes": size}, output)


async def _fetch(client: Client, name: str, out: Path) -> int:
    """Write the stream to a file as it comes, and return how many bytes there were."""
    from lethe.v1 import training_pb2 as pb

    request, size = pb.DownloadDatasetRequest(name=name), 0
    with writing(out) as file, progress() as step:
        async for part in client.stream(client.training.DownloadDataset, request, DOWNLOAD_TIMEOUT_S):
            file.write(part.chunk)
            size += len(part.chunk)
            step(f"{size >> 10} KiB")
    return size
