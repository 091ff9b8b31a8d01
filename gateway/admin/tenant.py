"""`lethe tenant`: the controller on whose behalf the gateway acts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.admin import options
from gateway.admin.output import Form, say, show
from gateway.admin.session import talk
from gateway.admin.words import fill, read_mapping

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The controller.")


@app.callback()
def tenants() -> None:
    """Show and change the controller on whose behalf the gateway acts."""


@app.command("show")
def show_(profile: options.As = None, output: options.Output = Form.TABLE) -> None:
    """Show the controller's facts, as policy sees them.

    Example: lethe tenant show --as clients/auditor.yaml
    """
    from lethe.v1 import tenant_pb2 as pb

    show(talk(profile, lambda client: client.call(client.tenant.GetTenant, pb.GetTenantRequest())), output)


@app.command()
def update(
    file: Annotated[
        Path,
        typer.Argument(
            help="YAML or JSON with the facts to change (controller, contact, establishments, targets, "
            "time_zone, calendar, thresholds, training_enabled, recipients), and etag where nothing may "
            "have changed since it was shown; - reads stdin."
        ),
    ],
    apply: options.Apply = False,
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """Change facts of the controller: every decision is made by them from then on.

    An empty list takes establishments or targets back to not said, and what is not said counts as met.
    `recipients` are those who get data beside the backends and are told of what requests change:
    a list of name (recipients/CODE), title, role (processor, contractor, affiliate, third_party), country
    and channel.

    Example: lethe tenant update facts.yaml --apply --as clients/officer.yaml
    """
    from lethe.v1 import tenant_pb2 as pb

    told = read_mapping(file)
    facts = [name for name in told if name != "etag"]
    if not facts:
        raise typer.BadParameter(f"{file}: names no fact")
    if isinstance(thresholds := told.get("thresholds"), dict):
        told["thresholds"] = {name: _flag(value) for name, value in thresholds.items()}
    if isinstance(recipients := told.get("recipients"), list):
        told["recipients"] = [_recipient(one) for one in recipients]
    if "training_enabled" in told:
        told["training_enabled"] = _flag(told["training_enabled"])
    request = pb.UpdateTenantRequest(tenant=fill(pb.Tenant(), told), validate_only=not apply)
    request.update_mask.paths.extend(facts)
    show(talk(profile, lambda client: client.call(client.tenant.UpdateTenant, request)), output)
    if not apply:
        say("rehearsal: nothing was changed; --apply changes the facts")


def _recipient(told: object) -> object:
    """Return a recipient as JSON writes it: its role by the full name."""
    if isinstance(told, dict) and isinstance(role := told.get("role"), str) and role.islower():
        return {**told, "role": f"ROLE_{role.upper()}"}
    return told


def _flag(value: object) -> object:
    """Return a word of YAML that means yes or no as a boolean, and everything else as it is."""
    return {"true": True, "false": False}.get(str(value).lower(), value)
