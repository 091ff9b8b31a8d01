"""`lethe key`: the key service, its epochs and what it promises."""

from __future__ import annotations

import typer

from gateway.admin import options
from gateway.admin.output import Form, show
from gateway.admin.session import talk

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Keys.")


@app.callback()
def keys() -> None:
    """Keys: the key service, its epochs and what it promises."""


@app.command()
def status(profile: options.As = None, output: options.Output = Form.TABLE) -> None:
    """Show the key service: how fast it destroys, who else has copies, how many keys each epoch wraps.

    Example: lethe key status --as clients/officer.yaml
    """
    from lethe.v1 import key_pb2 as pb

    show(
        talk(profile, lambda client: client.call(client.keys.GetKeyStatus, pb.GetKeyStatusRequest())), output
    )
