"""The `lethe` command: every noun in its place.

What only the roof can build (`init`, `serve`, `migrate`, `backup`, `restore`, `backend serve`,
`key init`, `demo`) is added to `app` and its nouns by `gateway.main`.
"""

from __future__ import annotations

import os
import sys

import typer

from gateway.admin import (
    audit,
    backend,
    backup,
    certificate,
    config,
    consent,
    dataset,
    dsr,
    generate,
    hold,
    image,
    incident,
    job,
    key,
    notice,
    policy,
    retention,
    subject,
    tenant,
    text,
)
from gateway.admin.exits import FAILED
from gateway.admin.output import say

app = typer.Typer(
    name="lethe",
    no_args_is_help=True,
    # Plain help needs no rich, starts in half the time, and can be compared in a test.
    rich_markup_mode=None,
    # A traceback with its locals would show what nobody may see.
    pretty_exceptions_enable=False,
    help="A privacy gateway for generative pictures: policy decides, audit proves, gateway acts.",
)
backend_app = backend.app
audit_app = audit.app
key_app = key.app
backup_app = backup.app

app.command()(generate.generate)
for _noun, _app in (
    ("subject", subject.app),
    ("notice", notice.app),
    ("consent", consent.app),
    ("job", job.app),
    ("dsr", dsr.app),
    ("hold", hold.app),
    ("retention", retention.app),
    ("audit", audit.app),
    ("certificate", certificate.app),
    ("backend", backend_app),
    ("backup", backup_app),
    ("key", key.app),
    ("tenant", tenant.app),
    ("dataset", dataset.app),
    ("incident", incident.app),
    ("image", image.app),
    ("policy", policy.app),
    ("text", text.app),
    ("config", config.app),
):
    app.add_typer(_app, name=_noun)


def run_cli() -> None:
    """Run the command line and exit.

    A fault that nobody foresaw ends with 1 and shows its kind only, because its
    text and its traceback may quote personal data; LETHE_DEBUG=1 shows them.
    """
    try:
        app()
    except Exception as fault:  # the last line of defence, see above
        if os.environ.get("LETHE_DEBUG"):
            raise
        say(f"error: INTERNAL ({type(fault).__name__}): a fault in lethe itself; LETHE_DEBUG=1 shows where")
        sys.exit(FAILED)
