"""`lethe key`: the key service, its epochs and what it promises."""

from __future__ import annotations

import typer

from gateway.admin import options
from gateway.admin.output import Form, say, show
from gateway.admin.session import talk
from gateway.admin.words import reason_code

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


@app.command()
def rotate(
    why: options.Reason,
    profile: options.As = None,
    apply: options.Apply = False,
    output: options.Output = Form.TABLE,
) -> None:
    """Wrap the tenant's subject keys anew and destroy the epoch keys that wrapped them before.

    Older copies of the database then open nothing.  A rehearsal says how many keys there are.

    Example: lethe key rotate --reason copy_lost --apply --as clients/officer.yaml
    """
    from lethe.v1 import key_pb2 as pb

    request = pb.RotateKeysRequest(validate_only=not apply, reason_code=reason_code(why))
    show(talk(profile, lambda client: client.call(client.keys.RotateKeys, request)), output)
    if not apply:
        say("rehearsal: nothing was changed; --apply rotates")
