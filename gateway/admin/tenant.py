"""`lethe tenant`: the controller on whose behalf the gateway acts."""

from __future__ import annotations

import typer

from gateway.admin import options
from gateway.admin.output import Form, show
from gateway.admin.session import talk

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The controller.")


@app.callback()
def tenants() -> None:
    """Show the controller on whose behalf the gateway acts."""


@app.command("show")
def show_(profile: options.As = None, output: options.Output = Form.TABLE) -> None:
    """Show the controller's facts, as policy sees them.

    Example: lethe tenant show --as clients/auditor.yaml
    """
    from lethe.v1 import tenant_pb2 as pb

    show(talk(profile, lambda client: client.call(client.tenant.GetTenant, pb.GetTenantRequest())), output)
