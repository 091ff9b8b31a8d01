"""`lethe incident`: the register of breaches and their clocks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.admin import options
from gateway.admin.output import Form, show
from gateway.admin.session import pages, talk
from gateway.admin.words import fill, read_mapping

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Breaches: what happened, whom to tell until when.  Nothing is sent to anybody.",
)


@app.command()
def add(
    file: Annotated[
        Path,
        typer.Argument(
            help="YAML or JSON with aware_time, kind (destruction, loss, alteration, disclosure, access, "
            "unavailability), data_kinds, residences, about_subjects, about_records, nature, consequences, "
            "measures, authority and subjects (tell_time, or the rule by which they need not be told); with "
            "name, what is known of a recorded one by now; - reads stdin."
        ),
    ],
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """Enter an incident in the register and show whom to tell until when.

    Example: lethe incident add incident.yaml --as clients/officer.yaml
    """
    from lethe.v1 import incident_pb2 as pb

    request = pb.RecordIncidentRequest(incident=fill(pb.Incident(), read_mapping(file)))
    show(talk(profile, lambda client: client.call(client.incidents.RecordIncident, request)), output)


@app.command("list")
def list_(
    after: Annotated[str, typer.Option(help="Begin behind this page token.")] = "",
    limit: options.Limit = 100,
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """List the register, the incident noticed first first.

    Example: lethe incident list --as clients/officer.yaml
    """
    from lethe.v1 import incident_pb2 as pb

    answer = talk(
        profile,
        lambda client: pages(
            lambda size, token: client.call(
                client.incidents.ListIncidents, pb.ListIncidentsRequest(page_size=size, page_token=token)
            ),
            "incidents",
            limit,
            after,
        ),
    )
    show(
        answer,
        output,
        rows="incidents",
        columns=("name", "kind", "aware_time", "regimes", "due_time", "version"),
    )
