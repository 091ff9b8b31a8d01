"""`lethe backend`: what makes the pictures, and what it declares of itself."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.admin import options
from gateway.admin.output import Form, show
from gateway.admin.session import talk
from gateway.admin.words import resource

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Inference backends.")


@app.command("list")
def list_(profile: options.As = None, output: options.Output = Form.TABLE) -> None:
    """List the backends, their kinds, and whether they answer.

    Example: lethe backend list --as clients/auditor.yaml
    """
    from lethe.v1 import backend_pb2 as pb

    answer = talk(profile, lambda client: client.call(client.backends.ListBackends, pb.ListBackendsRequest()))
    columns = ("name", "kind", "reachable", "operator", "region", "retention_seconds", "contracted", "styles")
    show(answer, output, rows="backends", columns=columns)


@app.command("show")
def show_(
    name: Annotated[str, typer.Argument(help="The backend: backends/ID.")],
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """Show what holds of a backend: its kind, its contract, device, model digest, region, retention.

    Example: lethe backend show backends/studio --as clients/auditor.yaml -o yaml
    """
    from lethe.v1 import backend_pb2 as pb

    request = pb.GetBackendRequest(name=resource("backends", name))
    show(talk(profile, lambda client: client.call(client.backends.GetBackend, request)), output)
