"""`lethe backup`: the keys that backups are sealed to; making one is the roof's (`gateway.main`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gateway.admin.exits import FAILED, UNVERIFIED, USAGE
from gateway.admin.files import refuse_existing
from gateway.admin.output import fail, say

CODES = {"broken": UNVERIFIED, "version": UNVERIFIED, "identity": UNVERIFIED}
"""Exit codes by what is wrong with a backup, where it is not the command line."""


class CreatesByDefault(TyperGroup):
    """Takes `lethe backup OUT` for `lethe backup create OUT`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the verb in where there is none."""
        if args and args[0] not in {*self.commands, "--help"}:
            args = ["create", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=CreatesByDefault,
    no_args_is_help=True,
    help="Back up records and objects; sealed, and without any key.",
)


@app.command()
def keygen(
    identity: Annotated[Path, typer.Option(help="The private key is written here; keep it elsewhere.")],
    recipient: Annotated[Path, typer.Option(help="The public key is written here.")],
) -> None:
    """Make the keys that backups are sealed to: the recipient makes them, the identity reads them.

    Keep the identity where the gateway is not, and never with the backups.

    Example: lethe backup keygen --identity /media/safe/identity.pem --recipient recipient.pem
    """
    from gateway.vault.backup import make_identity

    for path in (identity, recipient):
        refuse_existing(path, force=False)
    private, public = make_identity()
    try:
        for path, content, mode in ((identity, private, 0o600), (recipient, public, 0o644)):
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
                os.fsync(file.fileno())
    except OSError as fault:
        fail(FAILED, "FILE_UNWRITABLE", f"{fault.filename}: {fault.strerror}")
    say("keep the identity where neither the gateway nor its backups are: without it no backup opens")


def refuse(code: str, message: str) -> None:
    """End the command because of what a backup or its keys are."""
    fail(CODES.get(code, USAGE), f"BACKUP_{code.upper()}", message)
